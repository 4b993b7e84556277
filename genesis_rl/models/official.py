"""Checkpoints of the authors' code (github.com/applied-ai-lab/genesis) turned into ours.

The mapping was worked out from the names and shapes of a state dict. Three kinds of entries change
form: a convolution over a whole map is a Linear here, a stride-1 transposed convolution an ordinary
one, and the two norms of a gated layer are one; the bias under a batch norm goes into its running
mean, which leaves the function as it is.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genesis_rl.blocks import GATED_STRIDES
from genesis_rl.models.genesis import Genesis, GenesisConfig, GenesisS, GenesisSConfig

OfficialModel = Literal["genesis", "genesis_s"]


def load_official(
    checkpoint: str | os.PathLike[str] | Mapping[str, Tensor],
    model: OfficialModel = "genesis",
    *,
    image_size: int = 64,
    num_slots: int = 5,
    **config: Any,
) -> Genesis | GenesisS:
    """Turn a checkpoint of the authors' code into a model of ours.

    Args:
        checkpoint: path of a file written by their training script, or its state dict.
        model: "genesis" or "genesis_s" (their ``two_stage=False``).
        image_size: side of the images it was trained on: 32, 64 or 128 px.
        num_slots: K, their ``K_steps``.
        **config: other fields of the model's config, where the checkpoint is not of default shape.

    Returns:
        The model in eval mode, on the CPU, in the checkpoint's precision.

    Raises:
        ValueError: if the file cannot be read safely, or an entry is missing or of another shape.
    """
    state = _read(checkpoint)
    dtype = next(iter(state.values())).dtype if state else torch.float32
    built: Genesis | GenesisS
    if model == "genesis":
        built = Genesis(GenesisConfig(image_size=image_size, num_slots=num_slots, **config))
    elif model == "genesis_s":
        built = GenesisS(GenesisSConfig(image_size=image_size, num_slots=num_slots, **config))
    else:
        raise ValueError(f"model is {model!r}; wanted 'genesis' or 'genesis_s'.")
    built = built.to(dtype)
    taker = _Taker(state)
    ours = _convert(taker, built)
    taker.finish()
    for name, value in built.state_dict().items():
        if name not in ours:
            raise ValueError(f"the checkpoint gives no value for {name}.")
        if ours[name].shape != value.shape:
            raise ValueError(
                f"checkpoint entries for {name} have shape {tuple(ours[name].shape)}; a {model} of "
                f"{image_size} px wants {tuple(value.shape)}."
            )
    built.load_state_dict(ours)
    return built.eval()


def _read(checkpoint: str | os.PathLike[str] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    state: Any
    if isinstance(checkpoint, str | os.PathLike):
        path = Path(checkpoint)
        if not path.is_file():
            raise ValueError(f"checkpoint {path} is not a file.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise ValueError(
                f"checkpoint {path} is damaged or not plain tensors: {error}"
            ) from error
    else:
        state = checkpoint
    entries: Mapping[str, Any] = state.get("model_state_dict", state)
    return {
        name.removeprefix("module."): value
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


class _Taker:
    """Hands out entries by name and knows in the end which nobody asked for."""

    # Constants that older releases saved: pixel deviations and coordinate maps.
    _IGNORED = ("std", "g_1", "g_2", "num_batches_tracked")

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = dict(state)
        self.taken: set[str] = set()

    def __call__(self, name: str) -> Tensor:
        if name not in self.state:
            raise ValueError(f"the checkpoint has no entry {name}; is it of another model?")
        self.taken.add(name)
        return self.state[name]

    def finish(self) -> None:
        left = [
            name
            for name in self.state
            if name not in self.taken and name.split(".")[-1] not in self._IGNORED
        ]
        if left:
            raise ValueError(f"the checkpoint has entries of no known use, first {left[0]}.")


def _convert(take: _Taker, model: Genesis | GenesisS) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}

    def copy(
        name: str, source: str, change: Callable[[Tensor], Tensor] = lambda weight: weight
    ) -> None:
        ours[f"{name}.weight"] = change(take(f"{source}.weight"))
        ours[f"{name}.bias"] = take(f"{source}.bias")

    core = "att_process.core"
    strides = GATED_STRIDES[model.config.image_size]
    _gated_layers(ours, take, "encoder.convs", f"{core}.q_z_nn", 0, flip=[False] * 5)
    # (out, C, h, w) over the whole map -> Linear over (row, column, channel).
    copy("encoder.head", f"{core}.q_z_nn.5.conv", lambda w: w.permute(0, 2, 3, 1).flatten(1))
    for part in ("weight", "bias"):
        ours[f"first_posterior.{part}"] = torch.cat(
            [take(f"{core}.q_z_mean.{part}"), take(f"{core}.q_z_var.0.{part}")]
        )
    # (latent, C, h, w), transposed -> Linear to (row, column, channel); one bias per channel.
    ours["mask_decoder.stem.weight"] = (
        take(f"{core}.p_x_nn.0.conv.weight").permute(2, 3, 1, 0).flatten(0, 2)
    )
    ours["mask_decoder.stem.bias"] = take(f"{core}.p_x_nn.0.conv.bias").repeat(
        model.mask_decoder.side**2
    )
    stride_1 = [stride == 1 for stride in reversed(strides)]
    _gated_layers(ours, take, "mask_decoder.convs", f"{core}.p_x_nn", 1, flip=stride_1)
    copy("mask_decoder.head", f"{core}.p_x_mean")
    for name, source in (("posterior_lstm", "att_process.lstm"), ("prior_lstm", "prior_lstm")):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            ours[f"{name}.{part}"] = take(f"{source}.{part}_l0")
    copy("posterior_head", "att_process.linear")
    copy("prior_head", "prior_linear")

    decoder = "decoder.seq"
    if isinstance(model, Genesis):
        decoder = "comp_vae.decoder_module.seq"
        encoder = "comp_vae.encoder_module.module"
        channels = model.config.component_encoder_channels
        for i in range(len(channels)):
            copy(f"component_encoder.convs.{2 * i}", f"{encoder}.{2 * i}")
        after = 2 * len(channels) + 1  # a flatten layer lies between
        copy(
            "component_encoder.hidden",
            f"{encoder}.{after}",
            lambda w: _channel_last_columns(w, channels[-1]),
        )
        copy("component_encoder.head", f"{encoder}.{after + 2}")
        for i in (0, 2, 4):
            copy(f"component_prior.{i}", f"prior_mlp.{i}")
    copy("component_decoder.first", f"{decoder}.1")
    for i in range(3):
        copy(f"component_decoder.body.{2 * i + 1}", f"{decoder}.{2 * i + 3}")
    copy("component_decoder.head", f"{decoder}.9")
    return ours


def _channel_last_columns(weight: Tensor, channels: int) -> Tensor:
    """Reorder a Linear's inputs from (channel, row, column) to (row, column, channel)."""
    return weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1)


def _gated_layers(
    ours: dict[str, Tensor],
    take: _Taker,
    name: str,
    source: str,
    first: int,
    *,
    flip: list[bool],
) -> None:
    """Convert the five gated layers of the encoder or the decoder.

    ``flip`` says which are stride-1 transposed convolutions: those become ordinary ones with the
    kernel turned round.
    """
    for i, turned in enumerate(flip):
        theirs, mine = f"{source}.{i + first}", f"{name}.{i}"
        weight = take(f"{theirs}.conv.weight")
        ours[f"{mine}.conv.weight"] = weight.transpose(0, 1).flip(2, 3) if turned else weight
        for part in ("weight", "bias", "running_mean", "running_var"):
            ours[f"{mine}.norm.{part}"] = torch.cat(
                [take(f"{theirs}.{half}.{part}") for half in ("h_norm", "g_norm")]
            )
        ours[f"{mine}.norm.running_mean"] -= take(f"{theirs}.conv.bias")
        ours[f"{mine}.norm.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
