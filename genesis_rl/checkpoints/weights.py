"""Reading and writing of pretrained model folders in the Hub's format.

A folder contains model.safetensors and config.json.

The functions get the model classes as an argument, so that the models' modules can import them.
Pickles are never loaded: weights are safetensors, everything else is JSON.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Unpack

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genesis_rl.checkpoints.hub import DownloadOptions, download, is_repository
from genesis_rl.perception.preprocessing import Preprocessing, as_preprocessing
from genesis_rl.slots import SceneModel
from genesis_rl.utils.checks import check_parameters
from genesis_rl.utils.files import current_folder, json_text, new_file, read_folder, read_json
from genesis_rl.utils.process import pick_device, versions

OLD_KEYS = {
    # agent.json and run.json, under "config"
    "num_envs": "n_envs",
    "total_steps": "total_timesteps",
    "obs_key": "image_key",
    "eval_greedy": "eval_deterministic",
    "frame_layout": "image_layout",
    # settings and metrics of training in imagination
    "num_dreams": "n_imagined_envs",
    "trust": "uncertainty_quantile",
    "iterate": "rounds",
    "dream_steps": "imagined_steps",
    "dream_return": "imagined_return",
    # train.json of a pretraining
    "fresh": "reinit_modules",
    "beta_until": "beta_anneal_fraction",
    "trains": "trained_modules",
    "sigma_x_fraction": "sigma_x_anneal_fraction",
    "foreground_until": "foreground_anneal_fraction",
    "recompute": "activation_checkpointing",
    # config.json of a scene model, a world model and a scene probe
    "posterior_sigma_floor": "posterior_sigma_min",
    "glimpse_size": "window_size",
    "form": "slot_spec",
    "question": "target",
}
FORMAT = 1
_SHIPPED = Path(__file__).parent / "pretrained"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
M = TypeVar("M", bound=nn.Module)
_OTHER = "its config.json belongs to another model"
#: Config and class of models by their name in config.json.
Classes = Mapping[str, tuple[type[Any], type[Any]]]


def rename_old_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON data with the present names of its keys.

    Args:
        data: object of a file of this or an earlier version; nested objects are not renamed.
    """
    return {OLD_KEYS.get(key, key): value for key, value in data.items()}


class Pretrained(NamedTuple):
    """A loaded model with its preprocessing and metadata.

    Attributes:
        model: the model, in eval mode.
        preprocessing: resizing of frames to the model's size.
        metadata: the content of config.json.
    """

    model: SceneModel
    preprocessing: Preprocessing
    metadata: dict[str, Any]


def write_model(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    name: str,
    preprocessing: Preprocessing | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write model.safetensors and config.json into a folder, which is created if missing.

    Args:
        model: a model with a ``config``.
        folder: destination; its other files are not changed.
        name: name of the model's class in config.json.
        preprocessing: resizing of frames to the model's size; None: as the model was loaded, else
            "stretch".
        extra: additional JSON data for config.json (training settings, metrics).
        dtype: data type to round the weights to; None: no rounding. Weights are loaded as float32.

    Raises:
        OSError: if the folder cannot be written.
    """
    stored: Preprocessing | None = getattr(model, "preprocessing", None)
    if preprocessing is None:
        preprocessing = stored or Preprocessing()
    preprocessing = as_preprocessing(preprocessing)
    model_config: Any = model.config
    config = {
        **(extra or {}),
        "format": FORMAT,
        "genesis_rl": versions()["genesis_rl"],
        "model": name,
        "config": dataclasses.asdict(model_config),
        "preprocessing": preprocessing.to_json(),
    }
    write_module(model, folder, config, dtype)


def write_module(
    module: nn.Module,
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a module's weights and the content of config.json to a folder, created if missing.

    ``dtype`` rounds the parameters, but not the buffers (running statistics).

    Raises:
        OSError: if the folder cannot be written.
    """
    text = json_text(config, indent=2) + "\n"
    weights_of = {name for name, _ in module.named_parameters()}
    state = {
        name: (value.to(dtype) if dtype is not None and name in weights_of else value).contiguous()
        for name, value in module.state_dict().items()
    }
    folder = Path(folder)
    # Both files are written before either is renamed.
    with new_file(folder / WEIGHTS) as weights, new_file(folder / CONFIG) as described:
        save_file(state, weights)
        weights.chmod(0o644)
        described.write_text(text)


def read_model(
    path_or_hub_id: str | os.PathLike[str],
    classes: Classes,
    *,
    device: str | torch.device = "auto",
    **options: Unpack[DownloadOptions],
) -> Pretrained:
    """Read a model of one of the given classes.

    Args:
        path_or_hub_id: as of `genesis_rl.checkpoints.loading.load`.
        classes: accepted classes.
        device: "auto" selects a GPU if available.
        **options: for the Hub.

    Returns:
        The model in eval mode on the device, its preprocessing and the metadata.

    Raises:
        ValueError: if no model is found, or it is damaged or of another class.
    """
    loaded = read_folder(_find(path_or_hub_id, options), lambda folder: _read(folder, classes))
    model: Any = loaded.model
    model.to(pick_device(device)).to(memory_format=torch.channels_last)
    return loaded


def _read(folder: Path, classes: Classes) -> Pretrained:
    """Read a pretrained model folder, to the CPU."""
    metadata = _read_config(folder / CONFIG, classes)
    config_class, model_class = classes[metadata["model"]]
    try:
        values = {k: as_tuple(v) for k, v in rename_old_keys(metadata["config"]).items()}
        config = config_class(**values)
        preprocessing = Preprocessing(**metadata.get("preprocessing", {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    model = build(lambda: model_class(config), folder)
    load_weights(model, folder)
    model.preprocessing = preprocessing
    return Pretrained(model.eval(), preprocessing, metadata)


def build(make: Callable[[], M], folder: Path, *, other: str = _OTHER) -> M:
    """Build a module after comparing its shapes with a folder's model.safetensors.

    The comparison precedes the allocation of memory: a config cannot require more than the file
    contains. ``other`` is the cause of unexpected entries, for the message.

    Raises:
        ValueError: if the file is missing or damaged, an entry does not match, or the module cannot
            be built.
    """
    try:
        with torch.device("meta"):
            outline = make()
    except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    check_tensors(folder / WEIGHTS, outline.state_dict(), other=other, shapes=CONFIG)
    return make()


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load a folder's model.safetensors into a model of the same shape.

    Raises:
        ValueError: if the file is missing or damaged, an entry does not match, or a value is not
            finite.
    """
    expected = model.state_dict()
    state = read_tensors(folder / WEIGHTS, expected, other=_OTHER, shapes=CONFIG)
    model.load_state_dict(state)


def check_tensors(path: Path, expected: Mapping[str, Tensor], *, other: str, shapes: str) -> None:
    """Check that a safetensors file has exactly the expected entries, from its header only.

    Args:
        path: the file; links are followed, as the Hub's cache consists of links.
        expected: tensors of the expected names and shapes, on any device.
        other: cause of unexpected entries, for the message.
        shapes: source of the expected shapes, for the message.

    Raises:
        ValueError: if the file is missing or damaged, or an entry does not match.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing.")
    check_parameters(shapes, sum(value.numel() for value in expected.values()))
    try:
        with safe_open(path, "pt") as file:
            stored_shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not safetensors: {error}") from error
    for name in sorted(expected.keys() ^ stored_shapes.keys()):
        where = "lacks" if name in expected else "has an unknown"
        raise ValueError(f"{path} {where} entry {name}; {other}.")
    for name, value in expected.items():
        if stored_shapes[name] != tuple(value.shape):
            raise ValueError(
                f"{path}: {name} must have shape {tuple(value.shape)} of {shapes}, got shape "
                f"{stored_shapes[name]}."
            )


def read_tensors(
    path: Path, expected: Mapping[str, Tensor], *, other: str, shapes: str
) -> dict[str, Tensor]:
    """Read a safetensors file with exactly the expected entries, to the CPU.

    Args and errors as for `check_tensors`.

    Raises:
        ValueError: also if a value is not finite.
    """
    check_tensors(path, expected, other=other, shapes=shapes)
    try:
        state = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not safetensors: {error}") from error
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{path}: {name} must have finite values, got "
                f"{int((~value.isfinite()).sum()):,} of {value.numel():,} that are not. Train the "
                "model again with a smaller learning rate."
            )
    return state


def as_tuple(value: Any) -> Any:
    """Convert a list of JSON data to a tuple of a config."""
    return tuple(value) if isinstance(value, list) else value


def shipped(*, world_models: bool = False) -> list[str]:
    """Return the names of the package's pretrained scene models or world models."""
    return sorted(path.parent.name for path in _home(world_models).glob(f"*/{CONFIG}"))


def shipped_folder(name: str, *, world_models: bool = False) -> Path | None:
    """Return the folder of a pretrained model of the package; None for an unknown name."""
    return _home(world_models) / name if name in shipped(world_models=world_models) else None


def _home(world_models: bool) -> Path:
    return _SHIPPED / "world_models" if world_models else _SHIPPED


def find_folder(path: Path, file: str = CONFIG) -> Path | None:
    """Return the folder that contains a file: ``path``, or ``best/`` or ``last/`` in it."""
    folders = (path, path / "best", path / "last")
    return next((f for f in folders if (current_folder(f) / file).is_file()), None)


def _find(path_or_hub_id: str | os.PathLike[str], options: DownloadOptions) -> Path:
    path = Path(path_or_hub_id).expanduser()
    folder = find_folder(path)
    if folder is not None:
        return folder
    if path.exists():
        raise ValueError(f"encoder must be a folder with {CONFIG} and {WEIGHTS}, got {path}.")
    name = str(path_or_hub_id)
    packaged = shipped_folder(name)
    if packaged is not None:
        return packaged
    if not is_repository(name):
        raise ValueError(
            f"encoder must be a folder, a Hub id of form 'owner/name' or one of "
            f"{', '.join(shipped())}, got {name!r}."
        )
    return download(name, [WEIGHTS, CONFIG], **options)


def _read_config(path: Path, classes: Classes) -> dict[str, Any]:
    metadata = read_json(path)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config"), dict):
        raise ValueError(f"{path} must be the config of a genesis_rl model.")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT}, got {metadata.get('format')!r}.")
    if metadata.get("model") not in list(classes):  # the value may not be hashable
        more = "" if len(classes) > 1 else " genesis_rl.load loads any model."
        raise ValueError(
            f"{path}: model must be {'one of ' * (len(classes) > 1)}{', '.join(classes)}, "
            f"got {metadata.get('model')!r}.{more}"
        )
    return metadata
