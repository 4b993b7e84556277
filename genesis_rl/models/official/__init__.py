"""Conversion of checkpoints of the authors' code (github.com/applied-ai-lab/genesis).

The mapping was derived from the names and shapes of a state dict. Some entries change form: a
convolution over a whole map is a Linear here, flattened maps are in (row, column, channel) order, a
stride-1 transposed convolution is an ordinary one, and the two norms of a gated layer are one. A
bias before a batch norm is subtracted from its running mean, which is equivalent.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from genesis_rl.models.base import BaseModel
from genesis_rl.models.genesis import Genesis, GenesisS
from genesis_rl.models.genesis_config import GenesisConfig, GenesisSConfig
from genesis_rl.models.genesis_v2 import GenesisV2, GenesisV2Config
from genesis_rl.models.monet import Monet, MonetConfig
from genesis_rl.models.official.entries import Entries, read_checkpoint
from genesis_rl.models.official.mappings import (
    convert_genesis,
    convert_genesis_v2,
    convert_monet,
    convert_vae,
)
from genesis_rl.models.vae import BdVae, BdVaeConfig, DcVae, DcVaeConfig, VaeConfig

OfficialModel = Literal["genesis", "genesis_s", "monet", "bd_vae", "dc_vae", "genesis_v2"]

_KINDS: dict[str, tuple[type[Any], type[Any], Callable[[Entries, Any], None]]] = {
    "genesis": (GenesisConfig, Genesis, convert_genesis),
    "genesis_s": (GenesisSConfig, GenesisS, convert_genesis),
    "monet": (MonetConfig, Monet, convert_monet),
    "bd_vae": (BdVaeConfig, BdVae, convert_vae),
    "dc_vae": (DcVaeConfig, DcVae, convert_vae),
    "genesis_v2": (GenesisV2Config, GenesisV2, convert_genesis_v2),
}

__all__ = ["OfficialModel", "load_official"]


def load_official(
    checkpoint: str | os.PathLike[str] | Mapping[str, Tensor],
    model: OfficialModel = "genesis",
    *,
    image_size: int = 64,
    num_slots: int = 5,
    **config: Any,
) -> BaseModel:
    """Convert a checkpoint of the authors' code to a model of this package.

    Args:
        checkpoint: path of a file written by their training script, or its state dict.
        model: "genesis", "genesis_s" (their ``two_stage=False``), "monet", "bd_vae" (their VAE with
            ``broadcast_decoder=True``), "dc_vae" or "genesis_v2".
        image_size: side of the training images: 32, 64 or 128 px.
        num_slots: K, their ``K_steps``; not used for a VAE.
        **config: other fields of the model's config that differ from their defaults.

    Returns:
        The model in eval mode, on the CPU, in the checkpoint's dtype.

    Raises:
        ValueError: if the file cannot be read as plain tensors, or entries do not fit the model.
    """
    if model not in _KINDS:
        raise ValueError(
            f"model must be one of {', '.join(get_args(OfficialModel))}, got {model!r}."
        )
    config_class, model_class, convert = _KINDS[model]
    if not issubclass(config_class, VaeConfig):
        config["num_slots"] = num_slots
    state = read_checkpoint(checkpoint)
    dtype = next(iter(state.values())).dtype if state else torch.float32
    built: BaseModel = model_class(config_class(image_size=image_size, **config)).to(dtype)
    entries = Entries(state)
    convert(entries, built)
    entries.finish()
    for name, value in built.state_dict().items():
        if name not in entries.converted:
            raise ValueError(f"checkpoint must contain the entries of {name}, got none.")
        if entries.converted[name].shape != value.shape:
            raise ValueError(
                f"checkpoint entries {entries.sources[name]}, converted to {name}, must have shape "
                f"{tuple(value.shape)} for a {model} of {image_size} px and this config, got "
                f"{tuple(entries.converted[name].shape)}."
            )
    built.load_state_dict(entries.converted)
    return built.eval()
