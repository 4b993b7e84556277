"""Rendering of flat sprites: outlines, colours, anti-aliased frames and instance masks.

The frame is the unit square, with the origin at the bottom left, x to the right and y up. A
sprite's position is its centre, and its scale is its width as a share of the frame. Row 0 of an
image is at y = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

#: Colours by their CSS names, RGB in 0..255.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "lightgrey": (211, 211, 211),
    "darkslategrey": (47, 79, 79),
    "red": (255, 0, 0),
    "maroon": (128, 0, 0),
    "orange": (255, 165, 0),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
    "olive": (128, 128, 0),
    "lime": (0, 255, 0),
    "green": (0, 128, 0),
    "teal": (0, 128, 128),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "skyblue": (135, 206, 235),
    "purple": (128, 0, 128),
    "magenta": (255, 0, 255),
    "pink": (255, 192, 203),
}

Colour = str | Sequence[int]  # a name in COLOURS, or red, green, blue in 0..255
RGB = tuple[int, int, int]

_SUPERSAMPLING = 10  # sub-pixels per pixel and axis: outlines are drawn at 10x and area-averaged
_SHIFT = 8  # fractional bits of the vertices given to cv2.fillPoly


def rgb(colour: Colour) -> RGB:
    """Convert a colour's name or three numbers to RGB.

    Args:
        colour: a name in `COLOURS`, or red, green, blue, each an integer in 0..255.

    Returns:
        (red, green, blue), each in 0..255.

    Raises:
        ValueError: for an unknown name, or other than three such integers.
    """
    if isinstance(colour, str):
        if colour not in COLOURS:
            raise ValueError(f"colour must be RGB or one of {', '.join(COLOURS)}, got {colour!r}.")
        return COLOURS[colour]
    if not is_rgb(colour):
        raise ValueError(f"colour must be a name or three integers in 0..255, got {colour!r}.")
    red, green, blue = (int(level) for level in colour)
    return red, green, blue


def is_rgb(value: object) -> bool:
    """Return whether a value is three integers in 0..255."""
    return (
        isinstance(value, Sequence | np.ndarray)
        and len(value) == 3
        and all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in value)
        and all(0 <= int(v) <= 255 for v in value)
    )


def _regular(radii: Sequence[float], start: float) -> npt.NDArray[np.float64]:
    """Return a polygon with one vertex per radius, at equal angles from `start` (radians)."""
    angle = start + np.arange(len(radii)) * (2 * np.pi / len(radii))
    vertices = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.asarray(radii)[:, None]
    return np.asarray(vertices, np.float64)


def _fit_unit_width(vertices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centre a polygon's bounding box on the origin and scale its larger side to 1."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return np.asarray((vertices - (low + high) / 2) / (high - low).max(), np.float64)


#: Outlines of unit width, (P, 2) vertices as (x, y) with y up, centred on their bounding boxes.
OUTLINES: dict[str, npt.NDArray[np.float64]] = {
    "square": _fit_unit_width(_regular([1.0] * 4, np.pi / 4)),
    "triangle": _fit_unit_width(_regular([1.0] * 3, np.pi / 2)),
    "star_4": _fit_unit_width(_regular([1.0, 0.5] * 4, np.pi / 2)),
    "circle": _fit_unit_width(_regular([1.0] * 96, 0.0)),
}


def several(colours: Colour | Sequence[Colour]) -> list[RGB]:
    """Resolve one colour, or several, to a list of RGB.

    Raises:
        ValueError: for an empty list or an unknown colour.
    """
    if isinstance(colours, str) or is_rgb(colours):
        return [rgb(colours)]  # type: ignore[arg-type]
    if not isinstance(colours, Sequence) or not colours:
        raise ValueError(f"colours must be one colour or several, got {colours!r}.")
    return [rgb(colour) for colour in colours]  # type: ignore[arg-type]


def _heart() -> npt.NDArray[np.float64]:
    """Return the heart of dSprites: two lobes with tangents to the notch and to the tip."""
    x, y, radius = 4.72, 4.11, 5.07  # right lobe
    notch, tip = 6.04, -8.82
    around = []
    for point, side in ((notch, -1), (tip, 1)):
        distance = np.hypot(-x, point - y)
        around.append(np.arctan2(point - y, -x) + side * np.arccos(min(1.0, radius / distance)))
    start, end = around[0], around[1] - 2 * np.pi * (around[1] > around[0])  # clockwise
    angle = np.linspace(start, end, 48)
    right = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
    return np.vstack([[[0, notch]], right, [[0, tip]], right[::-1] * (-1, 1)])


#: Outlines of dSprites (Matthey et al., 2017) at scale 1, (P, 2) vertices as (x, y) with y up, in
#: pixels of a 64-pixel frame about the centre of rotation. Sizes and the heart's curve are fitted
#: to frames of the dataset.
DSPRITES_OUTLINES: dict[str, npt.NDArray[np.float64]] = {
    "square": OUTLINES["square"] * 19.26,
    "ellipse": _regular([1.0] * 96, 0.0) * (12.8, 7.19),
    "heart": _heart(),
}


def check_shapes(shapes: Sequence[str]) -> None:
    """Validate names of shapes.

    Raises:
        ValueError: for an unknown shape, or none.
    """
    if isinstance(shapes, str) or not shapes:
        raise ValueError(f"shapes must be a sequence of names, got {shapes!r}.")
    for shape in shapes:
        if shape not in OUTLINES:
            raise ValueError(f"shapes must be of {', '.join(OUTLINES)}, got {shape!r}.")


def scales(scale: float | Sequence[float], name: str) -> list[float]:
    """Resolve one scale, or several to sample from, to a list.

    Raises:
        ValueError: unless every scale is in (0, 1).
    """
    values = list(scale) if isinstance(scale, Sequence) else [scale]
    if not values or not all(isinstance(s, int | float) and 0 < s < 1 for s in values):
        raise ValueError(f"{name} must be in (0, 1), a share of the frame's width, got {scale}.")
    return [float(s) for s in values]


@dataclass(frozen=True, slots=True)
class Sprite:
    """One sprite of a scene.

    Attributes:
        shape: a name in `OUTLINES`.
        colour: RGB in 0..255.
        scale: width as a share of the frame.
        x: centre, 0 = left edge, 1 = right edge.
        y: centre, 0 = bottom edge, 1 = top edge.
    """

    shape: str
    colour: RGB
    scale: float
    x: float
    y: float


def coverage(
    outline: npt.NDArray[np.float64],
    size: tuple[int, int],
    centre: tuple[float, float],
    *,
    scale: float = 1.0,
    angle: float = 0.0,
    supersampling: int = _SUPERSAMPLING,
) -> npt.NDArray[np.uint8]:
    """Render a polygon and return the share of each pixel that it covers.

    Args:
        outline: (P, 2) vertices (x, y), y up.
        size: (H, W) of the result in pixels.
        centre: (row, column) of the outline's origin, in pixels from the top-left corner.
        scale: pixels per unit of the outline.
        angle: rotation about the outline's origin in radians, counter-clockwise.
        supersampling: sub-pixels per pixel and axis.

    Returns:
        (H, W) uint8: 0 = outside, 255 = wholly inside.
    """
    # fillPoly also fills pixels on the boundary, half a sub-pixel on each side.
    width = np.ptp(outline, axis=0).max() * scale * supersampling
    scale *= 1 - 1 / max(width, 2.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    column = centre[1] + outline @ (cos, -sin)
    row = centre[0] - outline @ (sin, cos)
    # fillPoly's integer coordinates are pixel centres, hence the half sub-pixel.
    vertices = np.stack([column, row], axis=1) * supersampling - 0.5
    points = np.rint(vertices * (1 << _SHIFT)).astype(np.int32)
    canvas = np.zeros((size[0] * supersampling, size[1] * supersampling), np.uint8)
    cv2.fillPoly(canvas, [points], 255, cv2.LINE_8, _SHIFT)
    reduced = cv2.resize(canvas, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, dtype=np.uint8)


@lru_cache(maxsize=8192)
def _drawing(
    shape: str, width: float, row_phase: int, column_phase: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], int]:
    """Render alpha (h, h, 1), interior (h, h) and half-extent of a sprite at a sub-pixel phase.

    The sprite's centre is (row_phase, column_phase) sub-pixels from the top-left corner of the
    pixel (half, half).
    """
    half = ceil(width / 2) + 1
    centre = (half + row_phase / _SUPERSAMPLING, half + column_phase / _SUPERSAMPLING)
    alpha = coverage(OUTLINES[shape], (2 * half + 1, 2 * half + 1), centre, scale=width)
    return alpha[..., None] * np.float32(1 / 255), alpha >= 128, half


class Stamp(NamedTuple):
    """A rendered sprite: its coverage of pixels and its position.

    Attributes:
        alpha: (h, h, 1) float32 in [0, 1], covered share of each pixel.
        inside: (h, h) bool, pixels of which at least half is covered.
        top: row of the stamp's first row in the frame; may be negative.
        left: column of the stamp's first column in the frame; may be negative.
    """

    alpha: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]
    top: int
    left: int


def stamp(sprite: Sprite, size: int) -> Stamp:
    """Render a sprite for a frame of `size` pixels, its position rounded to a tenth of a pixel.

    The arrays are cached and must not be modified.
    """
    row, row_phase = divmod(round((1 - sprite.y) * size * _SUPERSAMPLING), _SUPERSAMPLING)
    column, column_phase = divmod(round(sprite.x * size * _SUPERSAMPLING), _SUPERSAMPLING)
    alpha, inside, half = _drawing(sprite.shape, sprite.scale * size, row_phase, column_phase)
    return Stamp(alpha, inside, row - half, column - half)


def render(
    sprites: Sequence[Sprite],
    size: int,
    background: RGB = (0, 0, 0),
    *,
    image: npt.NDArray[np.uint8] | None = None,
    masks: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Render sprites in painter's order: a later sprite covers an earlier one.

    Positions are rounded to a tenth of a pixel, so that rendered sprites can be cached.

    Args:
        sprites: sprites from back to front.
        size: side of the frame in pixels.
        background: RGB in 0..255.
        image: (size, size, 3) uint8, the output array; None: a new one.
        masks: (size, size) uint8, the output array of instance labels: 0 = background, i + 1 where
            sprite i is visible and covers at least half of the pixel; None: no labels.

    Returns:
        The image, (size, size, 3) uint8.
    """
    frame = np.empty((size, size, 3), np.uint8) if image is None else image
    frame[:] = background
    if masks is not None:
        masks[:] = 0
    for label, sprite in enumerate(sprites, start=1):
        alpha, inside, top, left = stamp(sprite, size)
        bottom, right = top + len(alpha), left + len(alpha)
        if top < 0 or left < 0 or bottom > size or right > size:
            cut = (
                slice(max(0, -top), len(alpha) - max(0, bottom - size)),
                slice(max(0, -left), len(alpha) - max(0, right - size)),
            )
            alpha, inside = alpha[cut], inside[cut]
            top, left = max(top, 0), max(left, 0)
            bottom, right = min(bottom, size), min(right, size)
        patch = frame[top:bottom, left:right]
        blend = np.asarray(sprite.colour, np.float32) - patch
        blend *= alpha
        blend += patch
        blend += 0.5  # the cast below truncates
        patch[...] = blend
        if masks is not None:
            masks[top:bottom, left:right][inside] = label
    return frame
