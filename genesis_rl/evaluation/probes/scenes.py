"""Inputs of scene probes: the ShapeStacks tasks of the paper (section 4.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data import Pack
from genesis_rl.evaluation.probes.heads import ProbeTarget, standardise
from genesis_rl.evaluation.probes.latents import EncodedSample, Sample
from genesis_rl.models.blocks import coordinate_map

#: Factor of each task, one integer per image. ``stable`` is by construction, as in the paper;
#: ``simulated_stable``, by simulation, differs for some towers.
TASKS = {
    "stability": "stable",
    "height": "height",
    "view": "camera",
    "simulated_stability": "simulated_stable",
}

#: Factor with the ground truth of a scene, or the state of a simulator.
STATE = "state"
_CHUNK = 512


class ImageInputs:
    """Features of probes with one example per image: all slots, or the pixels."""

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Store the samples by split."""
        self._samples = samples

    def model_features(
        self, latents: Mapping[str, EncodedSample]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the concatenated latents of all slots, (n, K D) by split, and no extra scores."""
        slots = {s: torch.from_numpy(np.array(encoded.slots)) for s, encoded in latents.items()}
        return {split: part.flatten(1) for split, part in slots.items()}, {}

    def pixels(self, side: int) -> dict[str, Tensor]:
        """Return images area-averaged to ``side`` pixels, (n, 3 side side) in [0, 1], by split."""
        return {split: small_images(sample, side) for split, sample in self._samples.items()}


class SceneInputs(ImageInputs):
    """Targets and features of scene probes.

    Attributes:
        kind: "scenes".
        heads: an MLP, as in the paper.
        targets: one per task.
    """

    kind = "scenes"
    heads: tuple[str, ...] = ("mlp",)

    def __init__(self, samples: Mapping[str, Sample], tasks: Sequence[str]) -> None:
        """Read the labels from the packs' factors.

        Args:
            samples: the images by split; "train" and "test" at least.
            tasks: some of `TASKS`; none: all tasks with a factor in the training split.

        Raises:
            ValueError: if a split lacks the factor of a task, or the training split lacks a class
                of another split.
        """
        super().__init__(samples)
        factors = {split: sample.pack.factors for split, sample in samples.items()}
        chosen = tuple(tasks) or tuple(t for t in TASKS if TASKS[t] in factors["train"])
        if not chosen:
            raise ValueError(_missing_factor(samples["train"].pack, " or ".join(TASKS.values())))
        self.targets = [_task_target(task, samples, factors) for task in chosen]
        self._factors = factors

    def state(self) -> dict[str, Tensor] | None:
        """Return the standardised ground-truth state, (n, F) by split; None without that factor."""
        if any(STATE not in factors for factors in self._factors.values()):
            return None
        return standardise(
            {
                split: torch.from_numpy(factors[STATE][self._samples[split].rows])
                .float()
                .flatten(1)
                for split, factors in self._factors.items()
            }
        )

    def masks(self) -> dict[str, Tensor] | None:
        """Return standardised moments of the true masks, (n, F) by split; None without masks.

        These are the features of perfect masks, without depth and shading.
        """
        if any(sample.pack.masks is None for sample in self._samples.values()):
            return None
        moments = {split: mask_moments(sample) for split, sample in self._samples.items()}
        count = max(values.shape[1] for values in moments.values())
        return standardise(
            {
                split: F.pad(values, (0, 0, 0, count - values.shape[1])).flatten(1)
                for split, values in moments.items()
            }
        )


def mask_moments(sample: Sample) -> Tensor:
    """Compute moments of each object's true mask, (n, L, 7) float32, sorted from top to bottom.

    The columns are presence, mean row and column, their standard deviations, their covariance and
    the square root of the area, in halves of the image's side; 0 for missing objects.
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
        features = torch.cat([present, centre, spread, shared, size], 2) * present
        order = torch.where(area > 0, centre[..., :1], torch.inf).argsort(1)
        parts.append(features.gather(1, order.expand_as(features)))
    count = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, 0, 0, count - part.shape[1])) for part in parts])


def small_images(sample: Sample, side: int) -> Tensor:
    """Return images area-averaged to ``side`` pixels, (n, 3 side side) float32 in [0, 1]."""
    pack, rows = sample
    parts = []
    for first in range(0, len(rows), _CHUNK):
        images = torch.from_numpy(pack.images[rows[first : first + _CHUNK]]).permute(0, 3, 1, 2)
        parts.append(F.adaptive_avg_pool2d(images.float().div_(255), side).flatten(1))
    return torch.cat(parts)


def _task_target(
    task: str, samples: Mapping[str, Sample], factors: Mapping[str, Mapping[str, npt.NDArray[Any]]]
) -> ProbeTarget:
    name = TASKS[task]
    values: dict[str, npt.NDArray[np.int64]] = {}
    for split, sample in samples.items():
        if name not in factors[split]:
            raise ValueError(_missing_factor(sample.pack, name))
        values[split] = np.asarray(factors[split][name])[sample.rows].astype(np.int64)
        if values[split].ndim != 1:
            raise ValueError(
                f"factor {name!r} of {sample.pack.folder} must have one integer per image, "
                f"got shape {values[split].shape}."
            )
    return class_target(task, values)


def class_target(
    name: str, values: Mapping[str, npt.NDArray[np.int64]], names: Sequence[str] = ()
) -> ProbeTarget:
    """Return a classification target with the classes of the training split.

    Args:
        name: name of the target.
        values: (n,) integers by split.
        names: labels of the values from 0; none: the values themselves.

    Raises:
        ValueError: if there is only one class, or another split has a class that training lacks.
    """
    classes = np.unique(values["train"])
    for split, numbers in values.items():
        unseen = sorted(set(np.unique(numbers).tolist()) - set(classes.tolist()))
        if unseen:
            raise ValueError(
                f"{name} of the {split} split must have classes of the training images, got "
                f"{', '.join(map(str, unseen))}. Increase num_train or use other splits."
            )
    if len(classes) < 2:
        raise ValueError(
            f"{name} must have two classes in the training images, got {classes[0]} only."
        )
    return ProbeTarget(
        name,
        {s: torch.from_numpy(np.searchsorted(classes, v)) for s, v in values.items()},
        tuple(names[int(c)] if names else int(c) for c in classes),
    )


def _missing_factor(pack: Pack, required: str) -> str:
    has = ", ".join(pack.meta.get("factors", [])) or "none"
    return f"{pack.folder} must have the factor {required}, got {has}."
