"""Models on disk: a folder of model.safetensors and config.json, by the conventions of the Hub.

What here reads or writes a model is told its classes, and so can serve the models themselves. No
pickle is ever loaded from a user's path: weights are safetensors, everything else is JSON.
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

from genesis_rl.checks import check_parameters
from genesis_rl.files import current_folder, json_text, new_file, read_folder, read_json
from genesis_rl.frames import Preprocessing, as_preprocessing
from genesis_rl.hub import DownloadOptions, download, is_repository
from genesis_rl.slots import SceneModel

FORMAT = 1
_SHIPPED = Path(__file__).parent / "pretrained"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
M = TypeVar("M", bound=nn.Module)

_OTHER = "its config.json is of another model"

#: Config and class of models by the name that config.json gives.
Classes = Mapping[str, tuple[type[Any], type[Any]]]


class Pretrained(NamedTuple):
    """A loaded model with what was saved beside it.

    Attributes:
        model: the model, in eval mode.
        preprocessing: how frames are brought to its size.
        metadata: the whole content of config.json.
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
    """Write model.safetensors and config.json into a folder, which is made if missing.

    Args:
        model: a model with a ``config``.
        folder: destination; other files there are left alone.
        name: what config.json calls the model's class.
        preprocessing: how frames are brought to the model's size; by default as it was loaded,
            and else stretched.
        extra: more JSON data for config.json (training settings, metrics).
        dtype: that the weights are rounded to; None: as they are. Loaded, they are float32.

    Raises:
        OSError: if the folder cannot be written.
    """
    known: Preprocessing | None = getattr(model, "preprocessing", None)
    if preprocessing is None:
        preprocessing = known or Preprocessing()
    preprocessing = as_preprocessing(preprocessing)
    model_config: Any = model.config
    config = {
        **(extra or {}),
        "format": FORMAT,
        "genesis_rl": _version(),
        "model": name,
        "config": dataclasses.asdict(model_config),
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    write_module(model, folder, config, dtype)


def write_module(
    module: nn.Module,
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a module's weights and what config.json is to hold into a folder, made if missing.

    ``dtype`` rounds the weights; what is no weight (running statistics) stays as it is.

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
    # Both are written before either takes its place.
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
        path_or_hub_id: a folder with config.json; a run's folder, whose best checkpoint is taken;
            a name of `shipped`; or the id of a repository on the Hugging Face Hub, "owner/name".
        classes: the classes that it may be of.
        device: "auto" takes a GPU if there is one.
        **options: for the Hub.

    Returns:
        The model in eval mode on the device, its preprocessing and the metadata.

    Raises:
        ValueError: if nothing lies there, or it is damaged or of another kind.
    """
    loaded = read_folder(_find(path_or_hub_id, options), lambda folder: _read(folder, classes))
    model: Any = loaded.model
    model.to(pick_device(device)).to(memory_format=torch.channels_last)
    return loaded


def _read(folder: Path, classes: Classes) -> Pretrained:
    """Read a model's folder, to the CPU."""
    metadata = _read_config(folder / CONFIG, classes)
    config_class, model_class = classes[metadata["model"]]
    try:
        values = {k: as_tuple(v) for k, v in metadata["config"].items()}
        config = config_class(**values)
        preprocessing = Preprocessing(**metadata.get("preprocessing", {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    model = build(lambda: model_class(config), folder)
    load_weights(model, folder)
    model.preprocessing = preprocessing
    return Pretrained(model.eval(), preprocessing, metadata)


def build(make: Callable[[], M], folder: Path, *, other: str = _OTHER) -> M:
    """Build a module whose shape a folder's model.safetensors has.

    The shapes are compared before memory is allocated: a config cannot ask for more than the file
    holds.

    Args:
        make: builds the module.
        folder: holds model.safetensors and config.json.
        other: what other entries mean, for the message.

    Raises:
        ValueError: if the file is missing or damaged, an entry does not fit, or no module can be
            built.
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
        ValueError: if the file is missing or damaged, an entry does not fit, or a value is not
            finite.
    """
    wanted = model.state_dict()
    state = read_tensors(folder / WEIGHTS, wanted, other=_OTHER, shapes=CONFIG)
    model.load_state_dict(state)


def check_tensors(path: Path, wanted: Mapping[str, Tensor], *, other: str, shapes: str) -> None:
    """Check that a safetensors file has exactly the wanted entries, from its header alone.

    Args:
        path: the file; a link is followed, as the Hub's cache consists of links.
        wanted: tensors of the names and shapes that it must hold, on any device.
        other: what other entries mean, for the message.
        shapes: what asks for the shapes, for the message.

    Raises:
        ValueError: if the file is missing or damaged, or an entry does not fit.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing.")
    check_parameters(shapes, sum(value.numel() for value in wanted.values()))
    try:
        with safe_open(path, "pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not safetensors: {error}") from error
    for name in sorted(wanted.keys() ^ found.keys()):
        where = "lacks" if name in wanted else "has an unknown"
        raise ValueError(f"{path} {where} entry {name}; {other}.")
    for name, value in wanted.items():
        if found[name] != tuple(value.shape):
            raise ValueError(
                f"{path}: {name} has shape {found[name]}; {shapes} wants {tuple(value.shape)}."
            )


def read_tensors(
    path: Path, wanted: Mapping[str, Tensor], *, other: str, shapes: str
) -> dict[str, Tensor]:
    """Read a safetensors file that must hold exactly the wanted entries, to the CPU.

    Args and errors as for `check_tensors`.

    Raises:
        ValueError: also if a value is not finite.
    """
    check_tensors(path, wanted, other=other, shapes=shapes)
    try:
        state = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not safetensors: {error}") from error
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{path}: {name} must have finite values, got {_count_non_finite(value)} that are "
                "not; train the model again, with a smaller learning rate."
            )
    return state


def _count_non_finite(value: Tensor) -> str:
    return f"{int((~value.isfinite()).sum()):,} of {value.numel():,}"


def pick_device(device: str | torch.device) -> torch.device:
    """Resolve "auto" to CUDA if there is any, else the CPU.

    Raises:
        TypeError: if the device is neither a string nor a torch.device.
        ValueError: if the device is unknown or not supported, or a GPU is asked for that does not
            exist.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a string or a torch.device, got {device!r}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(
            f"device is {str(device)!r}; wanted 'auto', 'cpu' or 'cuda' (or 'cuda:N')."
        )
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {str(device)!r}, but PyTorch sees no GPU; try 'cpu'.")
        count = torch.cuda.device_count()
        if count and chosen.index is not None and chosen.index >= count:
            raise ValueError(f"device is {str(device)!r}; wanted 'cuda:0' to 'cuda:{count - 1}'.")
    return chosen


def as_tuple(value: Any) -> Any:
    """Turn a list into a tuple: JSON has the one where the configs have the other."""
    return tuple(value) if isinstance(value, list) else value


def shipped(*, world_models: bool = False) -> list[str]:
    """Names of the scene models, or of the world models, that come with the package."""
    return sorted(path.parent.name for path in _home(world_models).glob(f"*/{CONFIG}"))


def shipped_folder(name: str, *, world_models: bool = False) -> Path | None:
    """The folder of a model that comes with the package; None if none is called so."""
    return _home(world_models) / name if name in shipped(world_models=world_models) else None


def _home(world_models: bool) -> Path:
    return _SHIPPED / "world_models" if world_models else _SHIPPED


def _find(path_or_hub_id: str | os.PathLike[str], options: DownloadOptions) -> Path:
    path = Path(path_or_hub_id).expanduser()
    for folder in (path, path / "best", path / "last"):
        if (current_folder(folder) / CONFIG).is_file():
            return folder
    if path.exists():
        raise ValueError(f"{path} holds no model: wanted a folder with {CONFIG} and {WEIGHTS}.")
    name = str(path_or_hub_id)
    coming_along = shipped_folder(name)
    if coming_along is not None:
        return coming_along
    if not is_repository(name):
        raise ValueError(
            f"encoder {name!r} is neither a folder nor a Hub id of form 'owner/name', nor one of"
            f" those that come with genesis_rl: {', '.join(shipped())}."
        )
    return download(name, [WEIGHTS, CONFIG], **options)


def _read_config(path: Path, classes: Classes) -> dict[str, Any]:
    metadata = read_json(path)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config"), dict):
        raise ValueError(f"{path} is not the config of a genesis_rl model.")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} has format {metadata.get('format')!r}; wanted {FORMAT}.")
    if metadata.get("model") not in list(classes):  # it may be of a type that has no hash
        more = "" if len(classes) > 1 else "; genesis_rl.load takes any model"
        raise ValueError(
            f"{path} is of a model {metadata.get('model')!r}; wanted "
            f"{'one of ' * (len(classes) > 1)}{', '.join(classes)}{more}."
        )
    return metadata


def _version() -> str:
    from genesis_rl import __version__

    return __version__
