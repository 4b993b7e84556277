"""Patterns of procedural textures: noise, stones, wood, and their colours."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
#: (S, S) brightness or (S, S, 3) colour, floats in arbitrary units.
Field = npt.NDArray[Any]


def colourise(field: Field, mean: tuple[int, int, int], contrast: float) -> Image:
    """Convert a field to an image of a given mean colour.

    Args:
        field: (S, S) brightness or (S, S, 3) colour.
        mean: RGB in 0..255.
        contrast: standard deviation of the field in the image, in 0..255, before clipping.

    Returns:
        RGB image (S, S, 3) uint8.
    """
    if field.ndim == 2:
        field = field[..., None] * np.asarray(mean, np.float32) / np.mean(mean)
    image = (field - field.mean((0, 1))) / field.std()
    target = np.asarray(mean, np.float32)
    shift = np.zeros(3, np.float32)
    step = max(1, len(field) // 128)
    some = image[::step, ::step]
    for _ in range(8):  # correct the mean, which clipping changes
        shift += target - np.clip(target + shift + contrast * some, 0, 255).mean((0, 1))
    pixels: Image = np.rint(np.clip(target + shift + contrast * image, 0, 255)).astype(np.uint8)
    return pixels


def encode_png(image: Image) -> bytes:
    """Encode an RGB image (H, W, 3) as PNG."""
    return bytes(cv2.imencode(".png", image[..., ::-1])[1])


def noise(
    rng: np.random.Generator, size: int, cells: int, octaves: int = 4, stretch: int = 1
) -> Field:
    """Sample smooth noise (size, size): a sum of grids, each of twice the resolution of the last.

    Args:
        rng: random generator.
        size: side in pixels.
        cells: cells along the side of the coarsest grid.
        octaves: number of grids; each has half the amplitude of the last.
        stretch: aspect ratio of structures, along the rows by across.
    """
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        rows = cells * 2**octave
        columns = max(rows // stretch, 1)
        grid = rng.standard_normal((rows, columns)).astype(np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def tile_grid(
    size: int, rows: int, columns: int, *, bond: float = 0.0
) -> tuple[npt.NDArray[np.int64], Field]:
    """Compute a grid of tiles, with every second row shifted by a share `bond` of a tile.

    Returns:
        The index of each pixel's tile, and the distance from the tile's edge in heights of a row.
    """
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    row = np.minimum((y * rows).astype(np.int64), rows - 1)
    along = (x * columns + bond * (row % 2)) % columns
    column = along.astype(np.int64)
    across = y * rows - row
    aspect = rows / columns
    inside = along - column
    edge = np.minimum(np.minimum(across, 1 - across), aspect * np.minimum(inside, 1 - inside))
    return row * columns + column, edge.astype(np.float32)


def stones(
    rng: np.random.Generator,
    size: int,
    rows: int,
    columns: int,
    bond: float,
    joint: float,
    spread: float,
    depth: float,
) -> Field:
    """Render tiles of different brightness, with joints.

    Args:
        rng: random generator.
        size: side in pixels.
        rows: number of rows of tiles.
        columns: number of tiles per row.
        bond: shift of every second row, as a share of a tile.
        joint: half width of the joints, as a share of a row's height.
        spread: standard deviation of the tiles' brightness.
        depth: how much darker the joints are; lighter if negative.
    """
    tile, edge = tile_grid(size, rows, columns, bond=bond)
    brightness = rng.standard_normal(rows * columns).astype(np.float32)[tile]
    return spread * brightness - depth * (edge < joint) + 0.4 * noise(rng, size, 16)


def wood(rng: np.random.Generator, size: int, rows: int, columns: int) -> Field:
    """Render boards of different brightness with grain, in rows of a number of columns."""
    tile, edge = tile_grid(size, rows, columns, bond=0.37)
    brightness = rng.standard_normal(rows * columns).astype(np.float32)[tile]
    grain = noise(rng, size, 64, 3, stretch=16)
    return 0.8 * brightness + 0.5 * grain - 2.0 * (edge < 0.04)
