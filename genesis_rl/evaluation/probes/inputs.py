"""Inputs of probes: targets and features of scenes, objects and simulator states."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genesis_rl.data import Pack
from genesis_rl.data.multi_dsprites import SHAPES
from genesis_rl.evaluation.metrics.factor_network import require_masks
from genesis_rl.evaluation.probes.heads import LEAST_STD, ProbeTarget, standardise
from genesis_rl.evaluation.probes.latents import EncodedSample, Sample
from genesis_rl.models.blocks import coordinate_map
from genesis_rl.worlds.sprites import STATE_COLUMNS
from genesis_rl.worlds.sprites.drawing import OUTLINES

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
_CHUNK = 512  # objects at a time
_VALUES, _CLASSES = {"scale": "size"}, ("size", "shape", "material")  # factors by name

Arrays = dict[str, npt.NDArray[Any]]


class ProbeInputs:
    """Prediction targets of a dataset, and the features by split to predict them from.

    By default there is one example per image: all slots, or the pixels.

    Attributes:
        kind: name of the targets.
        heads: names of the probes.
        targets: the targets, with values of every split.
    """

    kind: str
    heads: tuple[str, ...]
    targets: list[ProbeTarget]

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Store the samples by split; "train" and "test" at least."""
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

    def state(self) -> dict[str, Tensor] | None:
        """Return the standardised ground truth, (n, F) by split; None if unavailable."""
        return None

    def masks(self) -> dict[str, Tensor] | None:
        """Return moments of the true masks, (n, F) by split; None if unavailable."""
        return None


class SceneInputs(ProbeInputs):
    """Targets and features of scene probes: one target per task, predicted by an MLP (paper)."""

    kind = "scenes"
    heads = ("mlp",)

    def __init__(self, samples: Mapping[str, Sample], tasks: Sequence[str]) -> None:
        """Read the labels from the packs' factors.

        Args:
            samples: the images by split.
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


class StateInputs(ProbeInputs):
    """Targets and features of state probes: ``state_i`` for each column i of `STATE` that varies.

    Ridge regression and an MLP predict them from the concatenated slots, attention from the set.
    """

    kind = "state"
    heads = ("linear", "mlp", "attention")

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Read the states from the packs' factors.

        Raises:
            ValueError: if a pack has no states, or they do not vary.
        """
        super().__init__(samples)
        values: dict[str, Tensor] = {}
        for split, (pack, rows) in samples.items():
            if not has_states(pack.factors):
                raise ValueError(
                    f"{pack.folder} must have the factor {STATE!r} of shape (images, d), got "
                    f"{', '.join(pack.factors) or 'no factors'}."
                )
            values[split] = torch.from_numpy(pack.factors[STATE][rows]).float()
        columns = (values["train"].std(0) > LEAST_STD).nonzero()[:, 0].tolist()
        if not columns:
            raise ValueError(f"the factor {STATE!r} must vary, got constant states.")
        self.targets = [
            ProbeTarget(f"state_{i}", standardise({s: v[:, i : i + 1] for s, v in values.items()}))
            for i in columns
        ]


def has_states(factors: Mapping[str, object]) -> bool:
    """Return whether factors contain a state vector per image."""
    return getattr(factors.get(STATE), "ndim", 0) == 2


class Properties(NamedTuple):
    """Ground-truth properties of a pack's objects; row i of an image is label i + 1 of its mask.

    Attributes:
        values: (N, M, d) numbers by name.
        classes: (N, M) class indices by name.
        names: labels of the class indices by name, where known.
    """

    values: Arrays
    classes: Arrays
    names: Mapping[str, tuple[str, ...]]


class Objects(NamedTuple):
    """The n visible objects of a sample, sorted by image.

    Attributes:
        image: (n,) index of the image in the sample.
        label: (n,) label in its mask, from 1.
    """

    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]


class ObjectInputs(ProbeInputs):
    """Targets and features of property probes; all visible objects count, for every model.

    Targets are ``position``, ``size``, ``colour``, ``shape`` and ``material``, those that the
    factors contain and that vary. The pixels contain the true masks.
    """

    kind = "properties"
    heads = ("linear", "mlp")

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Read the objects from the packs' masks and factors.

        Raises:
            ValueError: if the packs have no masks or no object factors, or nothing varies.
        """
        super().__init__(samples)
        truth = {split: properties(sample.pack) for split, sample in samples.items()}
        most = truth["train"].values["position"].shape[1]
        self._objects = {split: _visible(sample, most) for split, sample in samples.items()}
        for split, objects in self._objects.items():
            if not len(objects.image):
                raise ValueError(f"the {split} images must show objects, got none.")
        self.targets = []
        for name in truth["train"].values:
            values = {s: self._of_objects(s, truth[s].values[name]).float() for s in samples}
            if bool((values["train"].std(0) > LEAST_STD).any()):
                self.targets.append(ProbeTarget(name, standardise(values)))
        for name in truth["train"].classes:
            classes = {s: self._of_objects(s, truth[s].classes[name]).numpy() for s in samples}
            if len(np.unique(classes["train"])) > 1:
                names = truth["train"].names.get(name, ())
                self.targets.append(class_target(name, classes, names))
        if not self.targets:
            raise ValueError("objects must differ in a property, got identical ones.")

    def model_features(
        self, latents: Mapping[str, EncodedSample]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the latents (objects, D) of the slot matched to each object, by split.

        Returns:
            The latents, and ``match_iou``, the mean IoU of the test objects and their slots.
        """
        slots = {
            split: match(encoded.iou, self._objects[split]) for split, encoded in latents.items()
        }
        features = {
            split: torch.from_numpy(encoded.slots[self._objects[split].image, slots[split]])
            for split, encoded in latents.items()
        }
        tested = self._objects["test"]
        iou = latents["test"].iou[tested.image, slots["test"], tested.label - 1]
        return features, {"match_iou": float(iou.mean())}

    def pixels(self, side: int) -> dict[str, Tensor]:
        """Return each object's pixels and its true mask, (objects, 4 side side) by split."""
        return {s: self._cut_out(s, side) for s in self._samples}

    def state(self) -> dict[str, Tensor]:
        """Return the target values, (objects, F), as an upper bound of the probes' scores."""
        return {
            split: torch.cat(
                [
                    F.one_hot(t.values[split], t.outputs).float() if t.classes else t.values[split]
                    for t in self.targets
                ],
                dim=1,
            )
            for split in self._samples
        }

    def _of_objects(self, split: str, rows: npt.NDArray[Any]) -> Tensor:
        """Select the objects' rows of an array (N, M, ...)."""
        objects = self._objects[split]
        image = self._samples[split].rows[objects.image]
        return torch.from_numpy(rows[image, objects.label - 1])

    def _cut_out(self, split: str, side: int) -> Tensor:
        pack, rows = self._samples[split]
        masks, objects = require_masks(pack), self._objects[split]
        parts = []
        for first in range(0, len(objects.image), _CHUNK):
            part = slice(first, first + _CHUNK)
            image = rows[objects.image[part]]
            mask = torch.from_numpy(masks[image] == objects.label[part, None, None])[:, None]
            cut = torch.cat([pack.tensor(image) * mask, mask.float()], dim=1)
            parts.append(F.adaptive_avg_pool2d(cut, side).flatten(1))
        return torch.cat(parts)


def mask_moments(sample: Sample) -> Tensor:
    """Compute moments of each object's true mask, (n, L, 7) float32, sorted from top to bottom.

    The columns are presence, mean row and column, their standard deviations, their covariance and
    the square root of the area, in halves of the image's side; 0 for missing objects.
    """
    pack = sample.pack
    if pack.masks is None:
        raise ValueError(f"{pack.folder} must have masks, got none.")
    parts = []
    for rows in sample.chunks():
        labels = torch.from_numpy(pack.masks[rows]).long()
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
    parts = (sample.pack.tensor(rows) for rows in sample.chunks())
    return torch.cat([F.adaptive_avg_pool2d(images, side).flatten(1) for images in parts])


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


def match(iou: npt.NDArray[np.float32], objects: Objects) -> npt.NDArray[np.int64]:
    """Match objects to slots one-to-one so that the sum of IoUs in each image is the largest.

    If an image has more objects than slots, each unmatched object shares the slot of its largest
    IoU.

    Args:
        iou: (n, K, L), see `EncodedSample`.
        objects: objects of the n images.

    Returns:
        Slot index of each object, (objects,).
    """
    slots: npt.NDArray[np.int64] = iou[objects.image, :, objects.label - 1].argmax(1)
    starts = np.flatnonzero(np.diff(objects.image, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(slots)), strict=True):
        labels = objects.label[start:end]
        rows, columns = linear_sum_assignment(
            iou[objects.image[start]][:, labels - 1].T, maximize=True
        )
        slots[start + rows] = columns
    return slots


def properties(pack: Pack) -> Properties:
    """Read the properties of objects from a pack's factors.

    Raises:
        ValueError: if no factors describe objects.
    """
    factors = pack.factors
    if {"x", "y"} <= factors.keys():
        names = {"shape": SHAPES} if pack.meta.get("dataset") == "multi_dsprites" else {}
        return _by_name(factors)._replace(names=names)
    if "state" in factors:
        return _sprites(factors["state"])
    has = ", ".join(factors) or "none"
    raise ValueError(f"{pack.folder} must have the factors state, or x and y, got {has}.")


def _visible(sample: Sample, most: int) -> Objects:
    """Return the objects of a sample with at least one pixel in the masks."""
    masks = require_masks(sample.pack)
    parts = (masks[rows] for rows in sample.chunks())
    shown = [np.stack([(part == i + 1).any((1, 2)) for i in range(most)], 1) for part in parts]
    image, row = np.nonzero(np.concatenate(shown))
    return Objects(image, row + 1)


def _sprites(state: npt.NDArray[Any]) -> Properties:
    """Read properties from the state of sprite scenes, see `scene_state`."""
    if state.ndim != 3 or state.shape[2] != len(STATE_COLUMNS):
        raise ValueError(
            f"factor 'state' must have shape (images, objects, {len(STATE_COLUMNS)}), "
            f"got {state.shape}."
        )
    values = {"position": state[..., :2], "size": state[..., 2:3], "colour": state[..., 3:6]}
    shape = state[..., [STATE_COLUMNS.index(name) for name in OUTLINES]].argmax(-1)
    return Properties(values, {"shape": shape}, {"shape": tuple(OUTLINES)})


def _by_name(factors: Arrays) -> Properties:
    """Read properties from factors with a row per object, as in the Multi-Object Datasets."""
    rows = {name: v.reshape(*v.shape[:2], -1) for name, v in factors.items() if v.ndim > 1}
    axes = [rows[name] for name in ("x", "y", "z") if name in rows]
    values = {"position": np.concatenate(axes, axis=2)}
    values |= {_VALUES[name]: rows[name] for name in _VALUES if name in rows}
    classes = {name: rows[name][..., 0].astype(np.int64) for name in _CLASSES if name in rows}
    if "colour" in rows:
        if rows["colour"].shape[2] == 1:
            classes["colour"] = rows["colour"][..., 0].astype(np.int64)
        else:
            values["colour"] = rows["colour"]
    return Properties(values, classes, {})
