"""Saved scene probes: classifiers of whole scenes from slots."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from genesis_rl.checkpoints.loading import fingerprint, pick_device
from genesis_rl.checkpoints.weights import (
    CONFIG,
    WEIGHTS,
    as_tuple,
    build,
    read_tensors,
    rename_old_keys,
    write_module,
)
from genesis_rl.evaluation.probes.heads import FittedProbe, Head, ProbeTarget
from genesis_rl.slots import SceneModel, check_shape
from genesis_rl.utils.checks import Checked
from genesis_rl.utils.files import new_folder, read_folder, read_json

_FORMAT, _KIND = 1, "scene_probe"


@dataclasses.dataclass(frozen=True)
class SceneProbeConfig(Checked):
    """Target, input shape and encoder of a scene probe."""

    target: str
    """name of the target"""
    classes: tuple[int, ...]
    """labels of the outputs"""
    num_slots: int
    """number of slots K of the encoder"""
    slot_width: int
    """width of a slot, D_m + D_c"""
    hidden: int
    """units of the hidden layer"""
    encoder_fingerprint: str
    """fingerprint of the encoder, see `genesis_rl.checkpoints.loading.fingerprint`"""
    accuracy: float
    """accuracy on the test split, 0 to 1"""


class SceneProbe:
    """A trained classifier of scenes from their slots.

    Attributes:
        config: see `SceneProbeConfig`.
    """

    def __init__(self, config: SceneProbeConfig, head: Head) -> None:
        """Wrap a trained network; see also `load`."""
        self.config, self._head = config, head

    @torch.inference_mode()
    def __call__(self, slots: Tensor) -> Tensor:
        """Predict class probabilities of scenes.

        Args:
            slots: (B, K, D_m + D_c), `genesis_rl.slots.Slots.features`.

        Returns:
            (B, classes) in [0, 1], rows sum to 1; on the probe's device.

        Raises:
            ValueError: for slots of another shape.
        """
        check_shape(slots, (None, self.config.num_slots, self.config.slot_width), "slots")
        device = self._head.hidden.weight.device
        logits: Tensor = self._head(slots.to(device, torch.float32).flatten(1))
        return logits.softmax(1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save model.safetensors and config.json into a folder, replacing its content."""
        described = {"format": _FORMAT, "kind": _KIND, **dataclasses.asdict(self.config)}
        with new_folder(folder) as temporary:
            write_module(self._head, temporary, described)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        encoder_fingerprint: str | None = None,
        device: str | torch.device = "auto",
    ) -> Self:
        """Load a probe that `save` or pretrain/probe.py --heads wrote.

        Args:
            folder: folder of one probe.
            encoder_fingerprint: required fingerprint of the probe's encoder; None: any.
            device: "auto" selects a GPU if available.

        Raises:
            ValueError: if the folder contains no probe or a damaged one, or the probe is for
                another encoder.
        """
        config, head = read_folder(
            Path(folder).expanduser(), lambda path: cls._read(path, encoder_fingerprint)
        )
        return cls(config, head.to(pick_device(device)).eval().requires_grad_(False))

    @classmethod
    def _read(cls, folder: Path, encoder_fingerprint: str | None) -> tuple[SceneProbeConfig, Head]:
        """Read the folder of one probe, to the CPU."""
        config = _read_config(folder / CONFIG)
        if encoder_fingerprint not in (None, config.encoder_fingerprint):
            raise ValueError(
                f"the encoder of {folder} must have fingerprint {encoder_fingerprint[:12]}..., "
                f"got {config.encoder_fingerprint[:12]}...."
            )
        width = config.num_slots * config.slot_width
        other = "its config.json belongs to another probe"
        head = build(lambda: Head(width, config.hidden, len(config.classes)), folder, other=other)
        state = read_tensors(folder / WEIGHTS, head.state_dict(), other=other, shapes=CONFIG)
        head.load_state_dict(state)
        return config, head


class SceneProbeWriter(NamedTuple):
    """Writer of a model's scene probes.

    Attributes:
        folder: parent folder, with one subfolder per target.
        model: the encoder.
        moments: mean and standard deviation, (K (D_m + D_c),) each, of standardised latents; None
            if the latents were not standardised.
    """

    folder: Path
    model: SceneModel
    moments: tuple[Tensor, Tensor] | None = None

    def save(self, targets: Iterable[ProbeTarget], fits: Mapping[str, FittedProbe]) -> None:
        """Save the probe of each target."""
        for target in targets:
            fit = fits[target.name]
            if self.moments is not None:
                _fold_standardisation(fit.head, *self.moments)
            config = SceneProbeConfig(
                target=target.name,
                classes=tuple(int(value) for value in target.classes),
                num_slots=self.model.config.num_slots,
                slot_width=sum(self.model.latent_sizes),
                hidden=fit.head.hidden.out_features,
                encoder_fingerprint=fingerprint(self.model),
                accuracy=fit.score,
            )
            SceneProbe(config, fit.head).save(self.folder.expanduser() / target.name)


def _fold_standardisation(head: Head, mean: Tensor, scale: Tensor) -> None:
    """Fold the standardisation of the features into the first layer, in place."""
    head.hidden.weight.div_(scale)
    head.hidden.bias.sub_(head.hidden.weight @ mean)


def _read_config(path: Path) -> SceneProbeConfig:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise ValueError(f"{path} must be the config of a scene probe.")
    if data.get("format") != _FORMAT:
        raise ValueError(f"{path}: format must be {_FORMAT}, got {data.get('format')!r}.")
    values: dict[str, Any] = {k: as_tuple(v) for k, v in rename_old_keys(data).items()}
    try:
        return SceneProbeConfig(**{k: v for k, v in values.items() if k not in ("format", "kind")})
    except TypeError as error:
        raise ValueError(f"{path} does not fit this version: {error}") from error
