"""What is asked of a whole scene: the ShapeStacks tasks of the paper (section 4.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.blocks import coordinate_map
from genesis_rl.data import Pack
from genesis_rl.probes.heads import Question, standardise
from genesis_rl.probes.latents import Latents, Sample

#: Tasks by name: the factor that has the answers, one integer per image. Stability is by
#: construction, as the paper's; physics disagrees on some towers.
TASKS = {
    "stability": "stable",
    "height": "height",
    "view": "camera",
    "simulated_stability": "simulated_stable",
}

_STATE = "state"  # factor with the scene's ground truth, if there is one
_CHUNK = 512


class SceneStudy:
    """Questions about scenes, with the features that may answer them.

    Attributes:
        kind: "scenes".
        heads: what answers: an MLP, as in the paper.
        questions: one per task.
    """

    kind = "scenes"
    heads: tuple[str, ...] = ("mlp",)

    def __init__(self, samples: Mapping[str, Sample], tasks: Sequence[str]) -> None:
        """Read the answers off the packs' factors.

        Args:
            samples: the images by split; "train" and "test" at least.
            tasks: some of `TASKS`; none: all that the factors tell.

        Raises:
            ValueError: if a split does not have the factor of a task, or the training split lacks
                a class of the others.
        """
        self._samples = samples
        factors = {split: sample.pack.factors for split, sample in samples.items()}
        chosen = tuple(tasks) or tuple(t for t in TASKS if TASKS[t] in factors["train"])
        if not chosen:
            raise ValueError(_lacking(samples["train"].pack, " or ".join(TASKS.values())))
        self.questions = [_question(task, samples, factors) for task in chosen]
        self._factors = factors

    def of_model(
        self, latents: Mapping[str, Latents]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """All slots' latents side by side, (n, K D) by split, and no further figures."""
        flat = {s: torch.from_numpy(np.array(found.slots)) for s, found in latents.items()}
        return {split: slots.flatten(1) for split, slots in flat.items()}, {}

    def pixels(self, side: int) -> dict[str, Tensor]:
        """The images at ``side`` pixels by averaging areas, (n, 3 side side) in [0, 1]."""
        return {split: small_images(sample, side) for split, sample in self._samples.items()}

    def state(self) -> dict[str, Tensor] | None:
        """The scenes' ground truth, (n, F), standardised; None if the packs have none."""
        if any(_STATE not in factors for factors in self._factors.values()):
            return None
        return standardise(
            {
                split: torch.from_numpy(factors[_STATE][self._samples[split].rows])
                .float()
                .flatten(1)
                for split, factors in self._factors.items()
            }
        )

    def masks(self) -> dict[str, Tensor] | None:
        """Moments of the true masks, (n, F), standardised; None if the packs have none.

        What perfect masks contain of a scene without its depth and shading.
        """
        if any(sample.pack.masks is None for sample in self._samples.values()):
            return None
        moments = {split: mask_moments(sample) for split, sample in self._samples.items()}
        count = max(found.shape[1] for found in moments.values())
        return standardise(
            {
                split: F.pad(found, (0, 0, 0, count - found.shape[1])).flatten(1)
                for split, found in moments.items()
            }
        )


def mask_moments(sample: Sample) -> Tensor:
    """Moments of every object's true mask, (n, L, 7) float32, objects from the top down.

    Presence, mean row and column, standard deviations of both, their covariance, and the root of
    the area, in halves of the image's side; all 0 where there is no object.
    """
    pack, rows = sample
    if pack.masks is None:
        raise ValueError(f"{pack.folder} must have masks, got none.")
    parts = []
    for first in range(0, len(rows), _CHUNK):
        labels = torch.from_numpy(pack.masks[rows[first : first + _CHUNK]]).long()
        owned = F.one_hot(labels.flatten(1))[:, :, 1:].transpose(1, 2).float()
        row, col = coordinate_map(labels.shape[1])[0].flatten(1)
        terms = torch.stack([torch.ones_like(row), row, col, row * row, col * col, row * col], 1)
        total = owned @ terms
        area = total[..., :1]
        mean = total / area.clamp_min(1)
        centre, square, product = mean[..., 1:3], mean[..., 3:5], mean[..., 5:]
        spread = (square - centre.square()).clamp_min(0).sqrt()
        shared = product - centre.prod(2, keepdim=True)
        size = (4 * area / labels[0].numel()).sqrt()
        present = (area > 0).float()
        found = torch.cat([present, centre, spread, shared, size], 2) * present
        order = torch.where(area > 0, centre[..., :1], torch.inf).argsort(1)
        parts.append(found.gather(1, order.expand_as(found)))
    count = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, count - part.shape[1])) for part in parts])


def small_images(sample: Sample, side: int) -> Tensor:
    """Images at ``side`` pixels by averaging areas, (n, 3 side side) float32 in [0, 1]."""
    pack, rows = sample
    parts = []
    for first in range(0, len(rows), _CHUNK):
        images = torch.from_numpy(pack.images[rows[first : first + _CHUNK]]).permute(0, 3, 1, 2)
        parts.append(F.adaptive_avg_pool2d(images.float().div_(255), side).flatten(1))
    return torch.cat(parts)


def _question(
    task: str, samples: Mapping[str, Sample], factors: Mapping[str, Mapping[str, npt.NDArray[Any]]]
) -> Question:
    name = TASKS[task]
    values: dict[str, npt.NDArray[np.int64]] = {}
    for split, sample in samples.items():
        if name not in factors[split]:
            raise ValueError(_lacking(sample.pack, name))
        values[split] = np.asarray(factors[split][name])[sample.rows].astype(np.int64)
        if values[split].ndim != 1:
            raise ValueError(
                f"factor {name!r} of {sample.pack.folder} has shape {values[split].shape}; wanted "
                "one integer per image."
            )
    return class_question(task, values)


def class_question(
    name: str, values: Mapping[str, npt.NDArray[np.int64]], names: Sequence[str] = ()
) -> Question:
    """Ask for a class; its classes are those of the training split.

    Args:
        name: what is asked.
        values: (n,) integers by split.
        names: names of the values from 0; none: the values stand for themselves.

    Raises:
        ValueError: if there is only one class, or another split has one that training lacks.
    """
    classes = np.unique(values["train"])
    for split, numbers in values.items():
        unseen = sorted(set(np.unique(numbers).tolist()) - set(classes.tolist()))
        if unseen:
            raise ValueError(
                f"{name} has {', '.join(map(str, unseen))} among the images of the {split} split "
                "but not among those trained on; take more training images, or other splits."
            )
    if len(classes) < 2:
        raise ValueError(f"{name} is {classes[0]} on every training image; wanted two classes.")
    return Question(
        name,
        {s: torch.from_numpy(np.searchsorted(classes, v)) for s, v in values.items()},
        tuple(names[int(c)] if names else int(c) for c in classes),
    )


def _lacking(pack: Pack, wanted: str) -> str:
    has = ", ".join(pack.meta.get("factors", [])) or "none"
    return f"{pack.folder} has no factor {wanted}; it has {has}."
