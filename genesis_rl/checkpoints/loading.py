"""Saving and loading of pretrained models, in the format of `genesis_rl.checkpoints.weights`."""

import hashlib
import os
import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import nn

from genesis_rl.checkpoints.hub import DownloadOptions
from genesis_rl.checkpoints.weights import (
    CONFIG,
    WEIGHTS,
    Classes,
    Pretrained,
    as_tuple,
    load_weights,
    read_model,
    read_tensors,
    write_model,
)
from genesis_rl.models import MODELS
from genesis_rl.models.distilled import Distilled, DistilledConfig
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.slots import SceneModel
from genesis_rl.utils.process import pick_device

__all__ = [
    "CLASSES",
    "CONFIG",
    "WEIGHTS",
    "Pretrained",
    "as_tuple",
    "fingerprint",
    "load",
    "load_pretrained",
    "load_weights",
    "pick_device",
    "read_tensors",
    "save_pretrained",
]


#: Classes that can be saved and loaded: registered models and distilled students.
CLASSES: Classes = ChainMap({Distilled.model_name: (DistilledConfig, Distilled)}, MODELS)

# Omitted from fingerprints: defaults of newer settings, so that saved models keep theirs.
_YOUNGER_DEFAULTS = (
    ", prior='autoregressive'",
    ", posterior_sigma_bias=0.5",
    ", component_decoder='broadcast'",
    ", mask_decoder='deconvolution'",
    ", mask_broadcast_channels=32",
    ", halvings=3",
)
# Newer than the first students, whose fingerprints include all fields of their teacher's config.
_YOUNGEST_DEFAULTS = {
    "posterior_passes": 1,
    "prior_components": 1,
    "prior_flow_layers": 0,
    "background": "none",
    "background_channels": (16, 32, 48, 64),
    "background_size": 256,
    "foreground_threshold": 0.08,
    "posterior": "lstm",
    "object_size": 0.32,
    "seed_threshold": 0.4,
    "hue_distance": 0.5,
    "shadow_brightness": 1.0,
    "highlight_opacity": 0.0,
    "least_area": 0.03,
    "background_displacement": 0,
    "merge_hue_distance": 0.0,
    "merge_distance": 0.0,
    "slot_order": "top_down",
    "attention_channels": 32,
    "window_size": 64,
    "local_decoder_size": 64,
}

# Settings that fingerprints include by their first names.
_FIRST_NAMES = {"posterior_sigma_min": "posterior_sigma_floor"}


def save_pretrained(
    model: SceneModel,
    folder: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Save a model of one of `CLASSES`; see `genesis_rl.checkpoints.weights.write_model`.

    Raises:
        ValueError: if the model is of another class.
        OSError: if the folder cannot be written.
    """
    names = [name for name, (_, cls) in CLASSES.items() if type(model) is cls]
    if not names or not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be one of {', '.join(CLASSES)}, got a {type(model).__name__}."
        )
    write_model(model, folder, name=names[0], preprocessing=preprocessing, extra=extra, dtype=dtype)


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    **options: Unpack[DownloadOptions],
) -> Pretrained:
    """Load a model of one of `CLASSES`; see `genesis_rl.checkpoints.weights.read_model`."""
    return read_model(path_or_hub_id, CLASSES, device=device, **options)


def load(
    path_or_hub_id: str | os.PathLike[str],
    device: str | torch.device = "auto",
    **options: Unpack[DownloadOptions],
) -> SceneModel:
    """Load a pretrained model in eval mode.

    Args:
        path_or_hub_id: a pretrained model folder; a run directory (its best checkpoint is loaded);
            a name of `genesis_rl.checkpoints.weights.shipped`, the package's models; or the id of a
            repository on the Hugging Face Hub, "owner/name".
        device: "auto" selects a GPU if available.
        **options: revision, token, cache_dir, force_download and local_files_only, for the Hub.

    Raises:
        ValueError: if no model is found, or it is damaged or of another class.
    """
    return load_pretrained(path_or_hub_id, device=device, **options).model


def fingerprint(model: SceneModel) -> str:
    """Return the SHA-256 of a model's class, config and weights as a hexadecimal string."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got a {type(model).__name__}.")
    config = str(model.config)
    for name, first in _FIRST_NAMES.items():
        config = config.replace(name, first)
    youngest = [
        text for k, v in _YOUNGEST_DEFAULTS.items() for text in (f", {k}={v!r}", f", {k!r}: {v!r}")
    ]
    for default in (*_YOUNGER_DEFAULTS, *youngest):
        config = re.sub(re.escape(default) + r"(?=[,)}])", "", config)
    digest = hashlib.sha256(f"{type(model).__name__} {config}".encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
