"""Conversion of checkpoints of the authors' code (github.com/applied-ai-lab/genesis).

The mapping was derived from the names and shapes of a state dict. Some entries change form: a
convolution over a whole map is a Linear here, flattened maps are in (row, column, channel) order, a
stride-1 transposed convolution is an ordinary one, and the two norms of a gated layer are one. A
bias before a batch norm is subtracted from its running mean, which is equivalent.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from genesis_rl.models.base import BaseModel
from genesis_rl.models.blocks import GATED_STRIDES, GatedDecoder, UNet
from genesis_rl.models.genesis import Genesis, GenesisS
from genesis_rl.models.genesis_config import GenesisConfig, GenesisSConfig
from genesis_rl.models.genesis_v2 import GenesisV2, GenesisV2Config
from genesis_rl.models.monet import Monet, MonetConfig
from genesis_rl.models.vae import BdVae, BdVaeConfig, DcVae, DcVaeConfig, Vae, VaeConfig

Change = Callable[[Tensor], Tensor]
OfficialModel = Literal["genesis", "genesis_s", "monet", "bd_vae", "dc_vae", "genesis_v2"]


def read_checkpoint(checkpoint: str | os.PathLike[str] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name; see `load_official` for arguments and errors."""
    state: Any
    if isinstance(checkpoint, str | os.PathLike):
        path = Path(checkpoint)
        if not path.is_file():
            raise ValueError(f"checkpoint must be a file, got {path}.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise ValueError(
                f"checkpoint must contain plain tensors, got {path}: {error}"
            ) from error
    else:
        state = checkpoint
    entries: Mapping[str, Any] = state.get("model_state_dict", state)
    return {
        name.removeprefix("module."): value
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


class Entries:
    """Converter of an authors' state dict, which records the entries used.

    Attributes:
        converted: the converted state dict.
        sources: the authors' name, or names, of each converted entry.
    """

    # Constants saved by older releases: pixel standard deviations and coordinate maps.
    _IGNORED = ("std", "g_1", "g_2", "num_batches_tracked")

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.converted: dict[str, Tensor] = {}
        self.sources: dict[str, str] = {}
        self._original = dict(state)
        self._used: set[str] = set()

    def take(self, source: str) -> Tensor:
        """Return one of the authors' entries, and mark it as used; ValueError if it is missing."""
        if source not in self._original:
            raise ValueError(
                f"checkpoint must contain an entry {source}, got none. Check the model argument."
            )
        self._used.add(source)
        return self._original[source]

    def put(self, name: str, source: str, change: Change | None = None) -> None:
        """Convert one entry by ``change`` and store it as ``name``."""
        value = self.take(source)
        if change is not None:
            try:
                value = change(value)
            except (RuntimeError, IndexError) as error:
                raise ValueError(
                    f"checkpoint entry {source} must have the shape of a {name} of this config, "
                    f"got {tuple(value.shape)}."
                ) from error
        self.converted[name] = value
        self.sources[name] = source

    def join(self, name: str, sources: list[str]) -> None:
        """Concatenate several entries along the first dimension and store them as ``name``."""
        parts = [self.take(source) for source in sources]
        try:
            self.converted[name] = torch.cat(parts)
        except RuntimeError as error:
            shapes = " and ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(
                f"checkpoint entries {' and '.join(sources)} must have shapes that agree but for "
                f"the first dimension, got {shapes}."
            ) from error
        self.sources[name] = " and ".join(sources)

    def layer(
        self, name: str, source: str, weight: Change | None = None, bias: Change | None = None
    ) -> None:
        """Convert the weight and bias of a layer."""
        self.put(f"{name}.weight", f"{source}.weight", weight)
        self.put(f"{name}.bias", f"{source}.bias", bias)

    def lstm(self, name: str, source: str) -> None:
        """Convert a single-layer LSTM to an LSTM cell."""
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.put(f"{name}.{part}", f"{source}.{part}_l0")

    def finish(self) -> None:
        """Raise ValueError if entries are unused, except for constants."""
        unused = [
            name
            for name in self._original
            if name not in self._used and name.split(".")[-1] not in self._IGNORED
        ]
        if unused:
            raise ValueError(f"checkpoint must contain only entries of the model, got {unused[0]}.")


def columns_channel_last(channels: int) -> Change:
    """Return a map of a Linear's inputs from (channel, row, column) to (row, column, channel)."""
    return lambda weight: weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1)


def rows_channel_last(channels: int) -> Change:
    """Return a map of a Linear's outputs from (channel, row, column) to (row, column, channel)."""
    return lambda weight: weight.unflatten(0, (channels, -1)).transpose(0, 1).flatten(0, 1)


def untranspose_kernel(weight: Tensor) -> Tensor:
    """Convert the kernel of a stride-1 transposed convolution to that of an ordinary one."""
    return weight.transpose(0, 1).flip(2, 3)


def convert_genesis(entries: Entries, model: Genesis | GenesisS) -> None:
    """Convert GENESIS or GENESIS-S (their ``two_stage=False``)."""
    core = "att_process.core"
    _gated_encoder(entries, "encoder", f"{core}.q_z_nn", norm=True)
    _mean_and_sigma(entries, "first_posterior", core)
    side, mask_decoder = model.config.image_size, model.mask_decoder
    if not isinstance(mask_decoder, GatedDecoder):
        raise ValueError(
            "mask_decoder must be 'deconvolution' in a model of the authors, got "
            f"{model.config.mask_decoder!r}."
        )
    _gated_decoder(entries, "mask_decoder", core, mask_decoder, side, norm=True)
    entries.lstm("posterior_lstm", "att_process.lstm")
    entries.layer("posterior_head", "att_process.linear")
    entries.lstm("prior_lstm", "prior_lstm")
    entries.layer("prior_head", "prior_linear")
    if isinstance(model, Genesis):
        for i in (0, 2, 4):
            entries.layer(f"component_prior.{i}", f"prior_mlp.{i}")
        _component_encoder(entries, model.config.component_encoder_channels)
        _broadcast_decoder(entries, "component_decoder", "comp_vae.decoder_module.seq")
    else:
        _broadcast_decoder(entries, "component_decoder", "decoder.seq")


def convert_monet(entries: Entries, model: Monet) -> None:
    """Convert MONet."""
    core = "att_process.core"
    _unet(entries, "attention", core, model.attention)
    entries.layer("attention_head", f"{core}.final_conv")
    _component_encoder(entries, model.config.component_encoder_channels)
    _broadcast_decoder(entries, "component_decoder", "comp_vae.decoder_module.seq")


def convert_vae(entries: Entries, model: Vae) -> None:
    """Convert BD-VAE or DC-VAE."""
    _gated_encoder(entries, "encoder", "vae.q_z_nn", norm=False)
    _mean_and_sigma(entries, "posterior_head", "vae")
    if isinstance(model, DcVae):
        side = model.config.image_size
        _gated_decoder(entries, "decoder", "vae", model.decoder, side, norm=False)
    else:
        _broadcast_decoder(entries, "decoder.0", "vae.p_x_nn.1.seq")
        entries.layer("decoder.2", "vae.p_x_mean")


def convert_genesis_v2(entries: Entries, model: GenesisV2) -> None:
    """Convert GENESIS-V2."""
    _unet(entries, "encoder", "encoder", model.encoder)
    _conv_norm(entries, "segment_head", "seg_head")
    entries.put("log_sigma", "att_process.log_sigma")
    entries.put("embedding.conv.weight", "att_process.colour_head.conv.weight")
    entries.take("att_process.colour_head.conv.bias")  # cancels in every difference
    entries.put("embedding.gate", "att_process.colour_head.gate.gate")
    _conv_norm(entries, "feature_head.0", "feat_head.0")
    entries.layer("feature_head.1", "feat_head.1")
    for i in (0, 1, 3):
        entries.layer(f"posterior_head.{i}", f"z_head.{i}")
    for i in range(4):
        for part in (0, 1):  # convolution, norm
            entries.layer(f"decoder.layers.{3 * i + part}", f"decoder_module.{3 * i + part + 1}")
    entries.layer("decoder.head", "decoder_module.13")
    entries.lstm("prior_lstm", "prior_lstm")
    entries.layer("prior_head", "prior_linear")


# ---- parts common to models ------------------------------------------------------------------


def _mean_and_sigma(entries: Entries, name: str, core: str) -> None:
    for part in ("weight", "bias"):
        entries.join(f"{name}.{part}", [f"{core}.q_z_mean.{part}", f"{core}.q_z_var.0.{part}"])


def _gated_encoder(entries: Entries, name: str, source: str, *, norm: bool) -> None:
    for i in range(5):
        _gated_layer(entries, f"{name}.convs.{i}", f"{source}.{i}", norm=norm, stride_1_up=False)
    # (out, C, h, w) over the whole map -> Linear over (row, column, channel).
    entries.layer(
        f"{name}.head", f"{source}.5.conv", lambda weight: weight.permute(0, 2, 3, 1).flatten(1)
    )


def _gated_decoder(
    entries: Entries, name: str, core: str, decoder: GatedDecoder, image_size: int, *, norm: bool
) -> None:
    # (latent, C, h, w), transposed -> Linear to (row, column, channel); one bias per channel.
    entries.layer(
        f"{name}.stem",
        f"{core}.p_x_nn.0.conv",
        lambda weight: weight.permute(2, 3, 1, 0).flatten(0, 2),
        lambda bias: bias.repeat(decoder.side**2),
    )
    for i, stride in enumerate(reversed(GATED_STRIDES[image_size])):
        _gated_layer(
            entries,
            f"{name}.convs.{i}",
            f"{core}.p_x_nn.{i + 1}",
            norm=norm,
            stride_1_up=stride == 1,
        )
    entries.layer(f"{name}.head", f"{core}.p_x_mean")


def _gated_layer(
    entries: Entries, name: str, source: str, *, norm: bool, stride_1_up: bool
) -> None:
    """Convert a gated layer; ``stride_1_up``: from a transposed convolution of stride 1."""
    entries.put(
        f"{name}.conv.weight", f"{source}.conv.weight", untranspose_kernel if stride_1_up else None
    )
    if not norm:
        entries.put(f"{name}.conv.bias", f"{source}.conv.bias")
        return
    for part in ("weight", "bias", "running_mean", "running_var"):
        halves = [f"{source}.{half}.{part}" for half in ("h_norm", "g_norm")]
        entries.join(f"{name}.norm.{part}", halves)
    entries.converted[f"{name}.norm.running_mean"] -= entries.take(f"{source}.conv.bias")
    entries.converted[f"{name}.norm.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)


def _component_encoder(entries: Entries, channels: tuple[int, ...]) -> None:
    encoder = "comp_vae.encoder_module.module"
    for i in range(len(channels)):
        entries.layer(f"component_encoder.convs.{2 * i}", f"{encoder}.{2 * i}")
    after = 2 * len(channels) + 1  # after a flatten layer
    entries.layer(
        "component_encoder.hidden", f"{encoder}.{after}", columns_channel_last(channels[-1])
    )
    entries.layer("component_encoder.head", f"{encoder}.{after + 2}")


def _broadcast_decoder(entries: Entries, name: str, source: str) -> None:
    entries.layer(f"{name}.first", f"{source}.1")
    for i in range(3):
        entries.layer(f"{name}.body.{2 * i + 1}", f"{source}.{2 * i + 3}")
    entries.layer(f"{name}.head", f"{source}.9")


def _conv_norm(entries: Entries, name: str, source: str) -> None:
    entries.put(f"{name}.0.weight", f"{source}.0.weight")
    entries.layer(f"{name}.1", f"{source}.1")


def _unet(entries: Entries, name: str, source: str, unet: UNet) -> None:
    for path in ("down", "up"):
        for i in range(len(unet.down)):
            _conv_norm(entries, f"{name}.{path}.{i}", f"{source}.{path}.{i}")
    channels = unet.bottom_shape[-1]
    entries.layer(f"{name}.mlp.0", f"{source}.mlp.1", columns_channel_last(channels))
    entries.layer(f"{name}.mlp.2", f"{source}.mlp.3")
    to_rows = rows_channel_last(channels)
    entries.layer(f"{name}.mlp.4", f"{source}.mlp.5", to_rows, to_rows)


_KINDS: dict[str, tuple[type[Any], type[Any], Callable[[Entries, Any], None]]] = {
    "genesis": (GenesisConfig, Genesis, convert_genesis),
    "genesis_s": (GenesisSConfig, GenesisS, convert_genesis),
    "monet": (MonetConfig, Monet, convert_monet),
    "bd_vae": (BdVaeConfig, BdVae, convert_vae),
    "dc_vae": (DcVaeConfig, DcVae, convert_vae),
    "genesis_v2": (GenesisV2Config, GenesisV2, convert_genesis_v2),
}


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
