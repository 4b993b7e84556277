"""Probes of whole scenes on disk, to judge scenes that they were not trained on."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from genesis_rl.checkpoint import fingerprint, pick_device
from genesis_rl.checks import check_limits
from genesis_rl.files import new_folder, read_folder, read_json, write_json
from genesis_rl.probes.heads import Fit, Head, Question
from genesis_rl.slots import SceneModel, check_shape
from genesis_rl.weights import CONFIG, WEIGHTS, as_tuple, build, read_tensors

_FORMAT, _KIND = 1, "scene_probe"


@dataclasses.dataclass(frozen=True)
class SceneProbeConfig:
    """What a probe answers, from which slots."""

    question: str
    """what is asked"""
    classes: tuple[int, ...]
    """what the outputs stand for"""
    num_slots: int
    """K of the model whose slots it reads"""
    slot_width: int
    """their width, D_m + D_c"""
    hidden: int
    """units of its hidden layer"""
    encoder_fingerprint: str
    """of that model, see `genesis_rl.checkpoint.fingerprint`"""
    accuracy: float
    """on the test split"""

    def __post_init__(self) -> None:
        """Check values."""
        check_limits(self)


class SceneProbe:
    """A trained probe: the slots of whole scenes to the probabilities of a question's classes.

    Attributes:
        config: see `SceneProbeConfig`.
    """

    def __init__(self, config: SceneProbeConfig, head: Head) -> None:
        """Take a trained network; see also `load`."""
        self.config, self._head = config, head

    @torch.inference_mode()
    def __call__(self, slots: Tensor) -> Tensor:
        """Answer for scenes.

        Args:
            slots: (B, K, D_m + D_c), `genesis_rl.slots.Slots.features`.

        Returns:
            (B, classes), in [0, 1], each row sums to 1; on the probe's device.

        Raises:
            ValueError: for slots of another shape.
        """
        check_shape(slots, (None, self.config.num_slots, self.config.slot_width), "slots")
        device = self._head.hidden.weight.device
        logits: Tensor = self._head(slots.to(device, torch.float32).flatten(1))
        return logits.softmax(1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors and config.json into a folder; what lies there is replaced."""
        described = {"format": _FORMAT, "kind": _KIND, **dataclasses.asdict(self.config)}
        with new_folder(folder) as temporary:
            save_file(self._head.state_dict(), temporary / WEIGHTS)
            write_json(temporary / CONFIG, described)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        encoder_fingerprint: str | None = None,
        device: str | torch.device = "auto",
    ) -> Self:
        """Load what `save`, or pretrain/probe.py --heads, wrote.

        Args:
            folder: the folder of one question.
            encoder_fingerprint: of the model whose slots are to be judged; None: not checked.
            device: "auto" takes a GPU if there is one.

        Raises:
            ValueError: if no probe lies there, it is damaged, or reads another model's slots.
        """
        config, head = read_folder(
            Path(folder).expanduser(), lambda place: cls._read(place, encoder_fingerprint)
        )
        return cls(config, head.to(pick_device(device)).eval().requires_grad_(False))

    @classmethod
    def _read(cls, folder: Path, encoder_fingerprint: str | None) -> tuple[SceneProbeConfig, Head]:
        """Read the folder of one question, to the CPU."""
        config = _read_config(folder / CONFIG)
        if encoder_fingerprint not in (None, config.encoder_fingerprint):
            raise ValueError(
                f"{folder} was trained on the slots of another model: its fingerprint starts with "
                f"{config.encoder_fingerprint[:12]}, this one's with {encoder_fingerprint[:12]}."
            )
        width = config.num_slots * config.slot_width
        other = "its config.json is of another probe"
        head = build(lambda: Head(width, config.hidden, len(config.classes)), folder, other=other)
        state = read_tensors(folder / WEIGHTS, head.state_dict(), other=other, shapes=CONFIG)
        head.load_state_dict(state)
        return config, head


class Keeper(NamedTuple):
    """Where the probes of a model are kept.

    Attributes:
        folder: of all, one folder for each question.
        model: whose slots they read.
        moments: mean and standard deviation, (K (D_m + D_c),) each, by which its latents were
            standardised; None if they were not.
    """

    folder: Path
    model: SceneModel
    moments: tuple[Tensor, Tensor] | None = None

    def __call__(self, questions: Iterable[Question], fits: Mapping[str, Fit]) -> None:
        """Save the probe of each question."""
        for question in questions:
            fit = fits[question.name]
            if self.moments is not None:
                _take_in(fit.head, *self.moments)
            config = SceneProbeConfig(
                question=question.name,
                classes=tuple(int(value) for value in question.classes),
                num_slots=self.model.config.num_slots,
                slot_width=sum(self.model.latent_sizes),
                hidden=fit.head.hidden.out_features,
                encoder_fingerprint=fingerprint(self.model),
                accuracy=fit.score,
            )
            SceneProbe(config, fit.head).save(self.folder.expanduser() / question.name)


def _take_in(head: Head, mean: Tensor, scale: Tensor) -> None:
    """Have a network on standardised features take them as they are."""
    head.hidden.weight.div_(scale)
    head.hidden.bias.sub_(head.hidden.weight @ mean)


def _read_config(path: Path) -> SceneProbeConfig:
    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise ValueError(f"{path} is not the config of a scene probe.")
    if data.get("format") != _FORMAT:
        raise ValueError(f"{path} has format {data.get('format')!r}; wanted {_FORMAT}.")
    values: dict[str, Any] = {k: as_tuple(v) for k, v in data.items()}
    try:
        return SceneProbeConfig(**{k: v for k, v in values.items() if k not in ("format", "kind")})
    except TypeError as error:
        raise ValueError(f"{path} does not fit this version: {error}") from error
