"""Import of optional dependencies, which extras of the package install."""

import importlib
from typing import Any

#: The extra that installs a package, by the package's import name.
EXTRAS = {
    "accelerate": "train",
    "imageio": "train",
    "matplotlib": "train",
    "tensorboard": "train",
    "torchmetrics": "train",
    "mujoco": "mujoco",
    "crc32c": "data",
    "h5py": "data",
    "gymnasium_robotics": "fetch",
    "minari": "minari",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sb3_contrib": "zoo",
    "submitit": "slurm",
    "torch_fidelity": "fid",
    "wandb": "wandb",
}


class MissingExtraError(ImportError):
    """A feature requires a package that is not installed; the message names the extra."""


def require(module: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: dotted name of the module; its package is in `EXTRAS`.

    Raises:
        MissingExtraError: if the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        problem = "is not installed" if missing else f"cannot be imported ({error})"
        raise MissingExtraError(
            f"this feature requires {package}, which {problem}:"
            f" pip install 'genesis_rl[{EXTRAS[package]}]'."
        ) from error
