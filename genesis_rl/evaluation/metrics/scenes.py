"""Validity of sampled scenes, from their frames and masks.

A scene is given by its frame (the decoded image) and its segments (each pixel's largest mask). The
segment with most of the frame's border is the background, as are segments of its colour; very small
segments are ignored; every other segment is an object. An object is valid if it has one colour, is
one compact piece, and is not cut by the border. A scene is valid if all its objects are, and their
number occurs in training images.

The validity of real images with true masks is the upper bound. Where it is low (textured objects,
objects cut by the border), the criteria do not fit the data. 97 % of real Multi-dSprites scenes are
valid (some sprites are cut in two by others), and 100 % of real Object Comparison scenes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.evaluation.metrics.inputs import Array, as_label_tensor, as_tensor
from genesis_rl.slots import check_shape

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True)
class SceneCriteria:
    """Criteria for objects and valid objects; colours in [0, 1]."""

    min_area: float = 0.005
    """smallest share of the frame's pixels; smaller segments are ignored"""
    background_difference: float = 0.1
    """smallest difference in a channel between an object's and the background's median colours"""
    colour_deviation: float = 0.1
    """largest standard deviation of a channel over the object's pixels, without its outline, where
    colours are blended"""
    connected: float = 0.8
    """smallest share of the object's pixels in its largest connected piece"""
    solidity: float = 0.5
    """smallest share of its convex hull that this piece fills"""
    border: float = 0.25
    """largest share of the object's pixels on the frame's border"""

    def __post_init__(self) -> None:
        """Validate values."""
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")


class SceneValidity(NamedTuple):
    """Validity of B scenes by criterion.

    Attributes:
        objects: (B,) int64, number of objects.
        one_colour: (B,) bool, whether every object has one colour; True without objects.
        whole: (B,) bool, whether every object is one compact piece; True without objects.
        inside: (B,) bool, whether the border cuts no object; True without objects.
    """

    objects: npt.NDArray[np.int64]
    one_colour: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]

    def valid(self, counts: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return whether all objects are valid and their number is in the range ``counts``."""
        return self.in_range(counts) & self.one_colour & self.whole & self.inside

    def in_range(self, counts: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return whether the number of objects is in a range, both ends included."""
        return (counts[0] <= self.objects) & (self.objects <= counts[1])


def evaluate_scenes(
    images: Array, labels: Array, criteria: SceneCriteria | None = None
) -> SceneValidity:
    """Evaluate the validity of scenes.

    Args:
        images: frames, (B, 3, H, W), float in [0, 1].
        labels: segments, integers (B, H, W): `genesis_rl.evaluation.metrics.segment` of the masks,
            or true masks.
        criteria: see `SceneCriteria`.

    Raises:
        TypeError: if an argument is not a tensor or NumPy array, or the labels are not integers.
        ValueError: if a shape is wrong.
    """
    images, labels = as_tensor(images, "images"), as_label_tensor(labels, "labels")
    check_shape(images, (None, 3, None, None), "images")
    check_shape(labels, (len(images), *images.shape[2:]), "labels")
    frames = images.detach().float().permute(0, 2, 3, 1).cpu().numpy()
    segments = labels.cpu().numpy()
    criteria = criteria or SceneCriteria()
    objects = [
        [_evaluate_object(frame, mask, criteria) for mask in objects_of(frame, segment, criteria)]
        for frame, segment in zip(frames, segments, strict=True)
    ]
    table = [
        [all(column) for column in zip(*scene, strict=True)] or [True] * 3 for scene in objects
    ]
    columns = np.array(table, np.bool_).reshape(-1, 3).T
    return SceneValidity(np.array([len(scene) for scene in objects], np.int64), *columns)


def objects_of(
    frame: npt.NDArray[np.float32], segments: npt.NDArray[np.integer], criteria: SceneCriteria
) -> list[npt.NDArray[np.bool_]]:
    """Return the masks (H, W) of a scene's objects."""
    ring = np.concatenate([segments[0], segments[-1], segments[1:-1, 0], segments[1:-1, -1]])
    values, counts = np.unique(ring, return_counts=True)
    background = segments == values[counts.argmax()]
    colour = np.median(frame[background], axis=0)
    objects = []
    for value in np.unique(segments):
        mask = segments == value
        if mask.mean() < criteria.min_area:
            continue
        difference = np.abs(np.median(frame[mask], axis=0) - colour).max()
        if difference >= criteria.background_difference:  # False for the background
            objects.append(mask)
    return objects


def _evaluate_object(
    frame: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], criteria: SceneCriteria
) -> tuple[bool, bool, bool]:
    """Return whether an object has one colour, is whole, and is not cut by the border."""
    area = int(mask.sum())
    inner = cv2.erode(mask.astype(np.uint8), _CROSS) > 0
    colours = frame[inner if inner.any() else mask]
    one_colour = float(colours.std(0).max()) <= criteria.colour_deviation
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    piece = int(stats[largest, cv2.CC_STAT_AREA])
    points = np.argwhere(pieces == largest)[:, None, ::-1].astype(np.int32)
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(points), 1)
    whole = piece >= criteria.connected * area and piece >= criteria.solidity * int(hull.sum())
    on_border = area - int(mask[1:-1, 1:-1].sum())
    return one_colour, whole, on_border <= criteria.border * area
