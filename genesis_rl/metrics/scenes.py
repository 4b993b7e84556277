"""Are imagined scenes valid, and are they new? Judged on frames, by the masks that go with them.

What a scene shows is read off its frame (the decoded picture) and its segments (each pixel's
largest mask). The segment that holds most of the frame's border is the background, as are segments
of its colour; specks are left out; every other segment is an object. An object is valid if it has
one colour, is one compact piece, and is not cut by the border. A scene is valid if all its objects
are, and it has as many as a training image may have.

The same judgement of real images by their true masks is the ceiling: where it is low (textured
objects, objects cut by the border), the criteria do not fit the data. Real Multi-dSprites scenes
are valid to 97 % (some sprites are cut in two by others), real Object Comparison scenes to 100 %.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.metrics.inputs import Array, as_label_tensor, as_tensor
from genesis_rl.slots import check_shape

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True)
class SceneCriteria:
    """What makes a segment an object, and an object valid; colours in [0, 1]."""

    least_area: float = 0.005
    """least share of the frame's pixels; a smaller segment is a speck and counts nowhere"""
    background_difference: float = 0.1
    """least difference in a channel between an object's and the background's median colours"""
    colour_deviation: float = 0.1
    """largest standard deviation of a channel over the object's pixels inside its outline, where
    colours blend with what lies behind"""
    connected: float = 0.8
    """least share of the object's pixels in its largest connected piece"""
    solidity: float = 0.5
    """least share of its convex hull that this piece fills"""
    border: float = 0.25
    """largest share of the object's pixels on the frame's border, where a whole one may lie"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted 0 to 1.")


class Verdicts(NamedTuple):
    """What B scenes show.

    Attributes:
        objects: (B,) int64, number of objects.
        one_colour: (B,) bool, whether each object has one colour; True without objects, as the
            next two.
        whole: whether each is one compact piece.
        inside: whether the border cuts none.
    """

    objects: npt.NDArray[np.int64]
    one_colour: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]

    def valid(self, counts: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Whether all objects are valid and their number lies from ``counts[0]`` to the other."""
        return self.in_range(counts) & self.one_colour & self.whole & self.inside

    def in_range(self, counts: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Whether the number of objects lies in a range, both ends included."""
        return (counts[0] <= self.objects) & (self.objects <= counts[1])


def judge(images: Array, labels: Array, criteria: SceneCriteria | None = None) -> Verdicts:
    """Judge scenes.

    Args:
        images: frames, (B, 3, H, W), float in [0, 1].
        labels: segments, integers (B, H, W): `genesis_rl.metrics.segment` of the masks, or true
            masks.
        criteria: see `SceneCriteria`.

    Raises:
        TypeError: if the labels are not integers, or one is no tensor and no NumPy array.
        ValueError: if the shapes do not fit.
    """
    images, labels = as_tensor(images, "images"), as_label_tensor(labels, "labels")
    check_shape(images, (None, 3, None, None), "images")
    check_shape(labels, (len(images), *images.shape[2:]), "labels")
    frames = images.detach().float().permute(0, 2, 3, 1).cpu().numpy()
    segments = labels.cpu().numpy()
    criteria = criteria or SceneCriteria()
    found = [
        [_judge_object(frame, mask, criteria) for mask in objects_of(frame, segment, criteria)]
        for frame, segment in zip(frames, segments, strict=True)
    ]
    table = [[all(column) for column in zip(*scene, strict=True)] or [True] * 3 for scene in found]
    columns = np.array(table, np.bool_).reshape(-1, 3).T
    return Verdicts(np.array([len(scene) for scene in found], np.int64), *columns)


def objects_of(
    frame: npt.NDArray[np.float32], segments: npt.NDArray[np.integer], criteria: SceneCriteria
) -> list[npt.NDArray[np.bool_]]:
    """The masks (H, W) of a scene's objects: its segments but the background's and specks."""
    ring = np.concatenate([segments[0], segments[-1], segments[1:-1, 0], segments[1:-1, -1]])
    values, counts = np.unique(ring, return_counts=True)
    background = segments == values[counts.argmax()]
    colour = np.median(frame[background], axis=0)
    objects = []
    for value in np.unique(segments):
        mask = segments == value
        if mask.mean() < criteria.least_area:
            continue
        difference = np.abs(np.median(frame[mask], axis=0) - colour).max()
        if difference >= criteria.background_difference:  # which the background never has
            objects.append(mask)
    return objects


def _judge_object(
    frame: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], criteria: SceneCriteria
) -> tuple[bool, bool, bool]:
    """Whether an object has one colour, is whole, and is not cut by the border."""
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
