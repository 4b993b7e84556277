"""What is asked of single slots: position, size, colour and shape of the object each one took."""

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
from genesis_rl.metrics.targets import require_masks
from genesis_rl.probes.heads import Question, standardise
from genesis_rl.probes.latents import Latents, Sample
from genesis_rl.probes.scenes import class_question
from genesis_rl.sprites import OUTLINES
from genesis_rl.worlds import STATE_COLUMNS

_CHUNK = 512
_LEAST_STD = 1e-6  # of what is regressed; below, it counts as constant
_VALUES, _CLASSES = {"scale": "size"}, ("size", "shape", "material")  # factors by name

Arrays = dict[str, npt.NDArray[Any]]


class Properties(NamedTuple):
    """Ground truth of the objects of a pack; row i of an image is label i + 1 of its mask.

    Attributes:
        values: (N, M, d) numbers by name.
        classes: (N, M) integers by name.
        names: what the integers from 0 stand for, by name, where that is known.
    """

    values: Arrays
    classes: Arrays
    names: Mapping[str, tuple[str, ...]]


class Objects(NamedTuple):
    """The n objects that are to be seen in the images of a sample, image by image.

    Attributes:
        image: (n,) which image of the sample.
        label: (n,) label in its mask, from 1.
    """

    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]


class ObjectStudy:
    """Questions about objects, with the features of each that may answer them.

    Every object that can be seen counts, for every model the same.

    Attributes:
        kind: "properties".
        heads: what answers: ridge regression and an MLP.
        questions: ``position``, ``size``, ``colour``, ``shape`` and ``material``, as far as the
            factors tell and they vary.
    """

    kind = "properties"
    heads: tuple[str, ...] = ("linear", "mlp")

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        """Read the objects off the packs' masks and factors.

        Args:
            samples: the images by split; "train" and "test" at least.

        Raises:
            ValueError: if the packs have no masks or no such factors, or nothing varies.
        """
        self._samples = samples
        truth = {split: properties(sample.pack) for split, sample in samples.items()}
        most = truth["train"].values["position"].shape[1]
        self._objects = {split: _seen(sample, most) for split, sample in samples.items()}
        for split, objects in self._objects.items():
            if not len(objects.image):
                raise ValueError(f"the images of the {split} split show no objects.")
        self.questions = []
        for name in truth["train"].values:
            values = {s: self._of_objects(s, truth[s].values[name]).float() for s in samples}
            if bool((values["train"].std(0) > _LEAST_STD).any()):
                self.questions.append(Question(name, standardise(values)))
        for name in truth["train"].classes:
            classes = {s: self._of_objects(s, truth[s].classes[name]).numpy() for s in samples}
            if len(np.unique(classes["train"])) > 1:
                names = truth["train"].names.get(name, ())
                self.questions.append(class_question(name, classes, names))
        if not self.questions:
            raise ValueError("all objects are the same; wanted some that differ.")

    def of_model(
        self, latents: Mapping[str, Latents]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The latents of the slot that took each object, (objects, D) by split.

        Returns:
            The latents, and ``match_iou``, the mean overlap of the test objects with their slots.
        """
        slots = {split: match(found.iou, self._objects[split]) for split, found in latents.items()}
        features = {
            split: torch.from_numpy(found.slots[self._objects[split].image, slots[split]])
            for split, found in latents.items()
        }
        tested = self._objects["test"]
        iou = latents["test"].iou[tested.image, slots["test"], tested.label - 1]
        return features, {"match_iou": float(iou.mean())}

    def pixels(self, side: int) -> dict[str, Tensor]:
        """Each object cut out by its true mask, which comes along: (objects, 4 side side)."""
        return {s: self._cut_out(s, side) for s in self._samples}

    def masks(self) -> None:
        """Nothing: ``pixels`` shows every object by its true mask."""

    def state(self) -> dict[str, Tensor]:
        """The answers themselves, (objects, F): what a probe makes of features that have it all."""
        return {
            split: torch.cat(
                [
                    F.one_hot(q.answers[split], q.outputs).float()
                    if q.classes
                    else q.answers[split]
                    for q in self.questions
                ],
                dim=1,
            )
            for split in self._samples
        }

    def _of_objects(self, split: str, rows: npt.NDArray[Any]) -> Tensor:
        """Take the objects' rows of an array (N, M, ...)."""
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
    """Give every object a slot: one each, with the largest sum of overlaps in its image.

    Where there are more objects than slots, those left over share the slot that overlaps each
    most.

    Args:
        iou: (n, K, L) as of `Latents`.
        objects: of the n images.

    Returns:
        Slot of each object, shape (objects,).
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
    """Read what a pack's factors tell of its objects.

    Raises:
        ValueError: if they do not tell, naming those that there are.
    """
    factors = pack.factors
    if {"x", "y"} <= factors.keys():
        names = {"shape": SHAPES} if pack.meta.get("dataset") == "multi_dsprites" else {}
        return _by_name(factors)._replace(names=names)
    if "state" in factors:
        return _sprites(factors["state"])
    has = ", ".join(factors) or "none"
    raise ValueError(f"{pack.folder} has no factors of objects (state, or x and y); it has {has}.")


def _seen(sample: Sample, most: int) -> Objects:
    """The objects of a sample with a pixel in the masks."""
    masks = require_masks(sample.pack)
    parts = []
    for first in range(0, len(sample.rows), _CHUNK):
        part = masks[sample.rows[first : first + _CHUNK]]
        parts.append(np.stack([(part == i + 1).any((1, 2)) for i in range(most)], axis=1))
    image, row = np.nonzero(np.concatenate(parts))
    return Objects(image, row + 1)


def _sprites(state: npt.NDArray[Any]) -> Properties:
    """Properties from the state of sprite scenes, see `genesis_rl.worlds.scene_state`."""
    if state.ndim != 3 or state.shape[2] != len(STATE_COLUMNS):
        raise ValueError(
            f"factor 'state' has shape {state.shape}; wanted (images, objects, "
            f"{len(STATE_COLUMNS)}), as sprite scenes have it."
        )
    values = {"position": state[..., :2], "size": state[..., 2:3], "colour": state[..., 3:6]}
    shape = state[..., [STATE_COLUMNS.index(name) for name in OUTLINES]].argmax(-1)
    return Properties(values, {"shape": shape}, {"shape": tuple(OUTLINES)})


def _by_name(factors: Arrays) -> Properties:
    """Properties from factors with a row per object, as the Multi-Object Datasets have them."""
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
