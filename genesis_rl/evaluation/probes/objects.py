"""Inputs of property and state probes: object properties or the simulator's state, and latents."""

from collections.abc import Mapping
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
from genesis_rl.evaluation.probes.scenes import STATE, ImageInputs, class_target
from genesis_rl.worlds.sprites import STATE_COLUMNS
from genesis_rl.worlds.sprites.drawing import OUTLINES

_CHUNK = 512
_VALUES, _CLASSES = {"scale": "size"}, ("size", "shape", "material")  # factors by name

Arrays = dict[str, npt.NDArray[Any]]


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


class ObjectInputs:
    """Targets and features of property probes; all visible objects count, for every model.

    Attributes:
        kind: "properties".
        heads: ridge regression and an MLP.
        targets: ``position``, ``size``, ``colour``, ``shape`` and ``material``, those that the
            factors contain and that vary.
    """

    kind = "properties"
    heads: tuple[str, ...] = ("linear", "mlp")

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Read the objects from the packs' masks and factors.

        Args:
            samples: the images by split; "train" and "test" at least.

        Raises:
            ValueError: if the packs have no masks or no object factors, or nothing varies.
        """
        self._samples = samples
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

    def masks(self) -> None:
        """Return None: ``pixels`` contains the true masks."""

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
            pixels = torch.from_numpy(pack.images[image]).permute(0, 3, 1, 2).float().div_(255)
            cut = torch.cat([pixels * mask, mask.float()], dim=1)
            parts.append(F.adaptive_avg_pool2d(cut, side).flatten(1))
        return torch.cat(parts)


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
    parts = []
    for first in range(0, len(sample.rows), _CHUNK):
        part = masks[sample.rows[first : first + _CHUNK]]
        parts.append(np.stack([(part == i + 1).any((1, 2)) for i in range(most)], axis=1))
    image, row = np.nonzero(np.concatenate(parts))
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


class StateInputs(ImageInputs):
    """Targets and features of state probes.

    Attributes:
        kind: "state".
        heads: ridge regression and an MLP on the concatenated slots, and attention over slots.
        targets: ``state_i`` for each column i of the factor `STATE` that varies.
    """

    kind = "state"
    heads: tuple[str, ...] = ("linear", "mlp", "attention")

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Read the states from the packs' factors.

        Args:
            samples: the images by split; "train" and "test" at least.

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

    def masks(self) -> None:
        """Return None: true masks are not needed."""

    def state(self) -> None:
        """Return None: the state is the target."""


def has_states(factors: Mapping[str, object]) -> bool:
    """Return whether factors contain a state vector per image."""
    return getattr(factors.get(STATE), "ndim", 0) == 2
