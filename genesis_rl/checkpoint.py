"""Models on disk: a folder of model.safetensors and config.json, by the conventions of the Hub.

No pickle is ever loaded from a user's path: weights are safetensors, everything else is JSON.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genesis_rl.files import new_folder, recover_folder
from genesis_rl.frames import Preprocessing
from genesis_rl.models import MODELS
from genesis_rl.slots import SceneModel

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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


def save_pretrained(
    model: SceneModel,
    folder: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model's weights and config as a folder, all of it or nothing.

    Args:
        model: one of the classes in ``MODELS``.
        folder: destination; what lies there is replaced.
        preprocessing: how frames are brought to the model's size; stretched by default.
        extra: more JSON data for config.json (training settings, metrics).

    Raises:
        ValueError: if the model is of no registered class.
    """
    with new_folder(folder) as temporary:
        write_pretrained(model, temporary, preprocessing=preprocessing, extra=extra)


def write_pretrained(
    model: SceneModel,
    folder: Path,
    *,
    preprocessing: Preprocessing | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write model.safetensors and config.json into a folder that exists; see save_pretrained."""
    names = [name for name, (_, cls) in MODELS.items() if type(model) is cls]
    if not names or not isinstance(model, nn.Module):
        raise ValueError(f"model is a {type(model).__name__}; wanted one of {', '.join(MODELS)}.")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    config = {
        **(extra or {}),
        "format": FORMAT,
        "genesis_rl": _version(),
        "model": names[0],
        "config": dataclasses.asdict(model.config),
        "preprocessing": dataclasses.asdict(preprocessing or Preprocessing()),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str], *, device: str | torch.device = "auto"
) -> Pretrained:
    """Load a model saved by `save_pretrained` or a run of pretrain/train.py.

    Args:
        path_or_hub_id: a folder with config.json; a run's folder, whose best checkpoint is taken;
            or the id of a repository on the Hugging Face Hub, "owner/name".
        device: "auto" takes a GPU if there is one.

    Returns:
        The model in eval mode on the device, its preprocessing and the metadata.

    Raises:
        ValueError: if nothing lies there, or it is damaged or of another kind.
    """
    folder = _find(path_or_hub_id)
    metadata = _read_config(folder / CONFIG)
    config_class, model_class = MODELS[metadata["model"]]
    try:
        values = {k: as_tuple(v) for k, v in metadata["config"].items()}
        model = model_class(config_class(**values))
        preprocessing = Preprocessing(**metadata.get("preprocessing", {}))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    load_weights(model, folder)
    model.to(pick_device(device)).to(memory_format=torch.channels_last)
    return Pretrained(model.eval(), preprocessing, metadata)


def load(path_or_hub_id: str | os.PathLike[str], device: str | torch.device = "auto") -> SceneModel:
    """Load a pretrained model in eval mode; see `load_pretrained` for arguments and errors."""
    return load_pretrained(path_or_hub_id, device=device).model


def fingerprint(model: SceneModel) -> str:
    """SHA-256 over a model's class, config and weights, as a hexadecimal string."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; wanted a torch module.")
    digest = hashlib.sha256(f"{type(model).__name__} {model.config}".encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pick_device(device: str | torch.device) -> torch.device:
    """Resolve "auto" to CUDA if there is any, else the CPU.

    Raises:
        ValueError: if the device is unknown, or a GPU is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; wanted 'auto', 'cpu' or 'cuda'.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {str(device)!r}, but PyTorch sees no GPU; try 'cpu'.")
    return chosen


def _find(path_or_hub_id: str | os.PathLike[str]) -> Path:
    path = Path(path_or_hub_id).expanduser()
    for folder in (path, path / "best", path / "last"):
        if (recover_folder(folder) / CONFIG).is_file():
            return folder
    if path.exists():
        raise ValueError(f"{path} holds no model: wanted a folder with {CONFIG} and {WEIGHTS}.")
    name = str(path_or_hub_id)
    if not _HUB_ID.fullmatch(name):
        raise ValueError(f"encoder {name!r} is neither a folder nor a Hub id of form 'owner/name'.")
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG]))
    except Exception as error:  # the Hub's client raises many kinds
        raise ValueError(
            f"encoder {name!r} is no folder here, and not to be had from the Hub: {error}"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config"), dict):
        raise ValueError(f"{path} is not the config of a genesis_rl model.")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} has format {metadata.get('format')!r}; wanted {FORMAT}.")
    if metadata.get("model") not in list(MODELS):  # it may be of a type that has no hash
        raise ValueError(
            f"{path} is of a model {metadata.get('model')!r}; wanted one of {', '.join(MODELS)}."
        )
    return metadata


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load a folder's model.safetensors into a model of the same shape.

    Raises:
        ValueError: if the file is missing or damaged, or an entry does not fit.
    """
    wanted = model.state_dict()
    state = read_tensors(
        folder / WEIGHTS, wanted, other="its config.json is of another model", shapes=CONFIG
    )
    model.load_state_dict(state)


def read_tensors(
    path: Path, wanted: Mapping[str, Tensor], *, other: str, shapes: str
) -> dict[str, Tensor]:
    """Read a safetensors file that must hold exactly the wanted entries, to the CPU.

    Args:
        path: the file.
        wanted: tensors of the names and shapes that it must hold.
        other: what other entries mean, for the message.
        shapes: what asks for the shapes, for the message.

    Raises:
        ValueError: if the file is missing or damaged, or an entry does not fit.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing.")
    try:
        state = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not safetensors: {error}") from error
    for name in sorted(wanted.keys() ^ state.keys()):
        where = "lacks" if name in wanted else "has an unknown"
        raise ValueError(f"{path} {where} entry {name}; {other}.")
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(state[name].shape)}; {shapes} wants "
                f"{tuple(value.shape)}."
            )
    return state


def as_tuple(value: Any) -> Any:
    """Turn a list into a tuple: JSON has the one where the configs have the other."""
    return tuple(value) if isinstance(value, list) else value


def _version() -> str:
    from genesis_rl import __version__

    return __version__
