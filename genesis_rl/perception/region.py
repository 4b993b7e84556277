"""The region of a fixed camera's frames that changes."""

import math
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.perception.preprocessing import Crop

# Largest side at which frames are compared, and width of the lines that are ignored, in pixels of
# these frames.
_SIDE, _LINE = 480, 6
# Squared colour distance to the median above which a pixel differs, for colours in [0, 1].
_DIFFERENCE = 0.02
# Share of the frames whose changes may exceed the region on each of its sides, and the region's
# margin.
_EXCEEDING, _MARGIN = 0.02, 0.05


def reduced(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a frame (H, W, 3) at the size at which frames are compared."""
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cast("npt.NDArray[np.uint8]", cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def changing_region(frames: Sequence[npt.NDArray[np.uint8]], size: tuple[int, int]) -> Crop:
    """Return the square region in which frames differ from their median, with a margin.

    Lines of at most 1 % of the frame's larger side are ignored: they vanish at the image sizes of
    scene models. The region is no square where the frame is too small for it.

    Args:
        frames: N frames (h, w, 3) of one size, such as of `reduced`.
        size: height and width of the frames for which to return the region.
    """
    median = np.median(np.stack(frames), axis=0).astype(np.float32)
    line = max(1, round(_LINE * max(median.shape) / _SIDE)) + 1
    kernel = np.ones((line, line), np.uint8)
    changes = np.stack(
        [
            cv2.morphologyEx(
                (np.square((frame - median) / 255).sum(-1) > _DIFFERENCE).astype(np.uint8),
                cv2.MORPH_OPEN,
                kernel,
            )
            for frame in frames
        ]
    )
    return squared(region_of(changes.astype(np.bool_), size), size)


def region_of(changes: npt.NDArray[np.bool_], size: Sequence[int]) -> Crop:
    """Return the region of the changing pixels of most images, with a margin.

    Args:
        changes: whether a pixel differs, (N, h, w).
        size: height and width of the frames for which to return the region.

    Returns:
        (top, left, height, width); the whole frame if no pixel differs.
    """
    changes = changes[changes.reshape(len(changes), -1).any(1)]
    if not len(changes):
        return 0, 0, size[0], size[1]
    sides = []
    for axis, length in zip((2, 1), size, strict=True):
        rows = np.asarray(changes.any(axis))
        cells = rows.shape[1]
        low = np.quantile(rows.argmax(1), _EXCEEDING)
        high = np.quantile(cells - rows[:, ::-1].argmax(1), 1 - _EXCEEDING)
        margin = _MARGIN * (high - low)
        first = max(0, math.floor((low - margin) * length / cells))
        sides.append((first, min(length, math.ceil((high + margin) * length / cells)) - first))
    (top, height), (left, width) = sides
    return top, left, height, width


def squared(region: Crop, size: tuple[int, int]) -> Crop:
    """Enlarge a region to a square around it, as far as the frame (height, width) allows."""
    side = max(region[2:])
    sides = []
    for first, length, limit in zip(region[:2], region[2:], size, strict=True):
        longer = min(side, limit)
        start = first - (longer - length) // 2
        sides.append((min(max(0, start), limit - longer), longer))
    (top, height), (left, width) = sides
    return top, left, height, width
