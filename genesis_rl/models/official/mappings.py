"""Mappings from the authors' state dicts to those of this package, by model."""

import torch

from genesis_rl.models.blocks import GATED_STRIDES, GatedDecoder, UNet
from genesis_rl.models.genesis import Genesis, GenesisS
from genesis_rl.models.genesis_v2 import GenesisV2
from genesis_rl.models.monet import Monet
from genesis_rl.models.official.entries import (
    Entries,
    columns_channel_last,
    rows_channel_last,
    untranspose_kernel,
)
from genesis_rl.models.vae import DcVae, Vae


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
