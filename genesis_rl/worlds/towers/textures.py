"""Procedural textures of walls and floor, replaceable by files.

As in ShapeStacks, floor and walls have six textures each and share the first three. Each covers
20 x 20 m and has approximately the mean colour of the original texture of its number.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from genesis_rl.data.readers.media import decode_image, read_image_file
from genesis_rl.worlds.patterns import (
    Field,
    Image,
    colourise,
    encode_png,
    noise,
    stones,
    tile_grid,
    wood,
)
from genesis_rl.worlds.towers.world import TEXTURE_NUMBERS, texture_file

PLACES = ("floor", "wall")


def texture(place: str, number: int, size: int = 512) -> Image:
    """Render a texture, deterministically.

    Args:
        place: "floor" or "wall".
        number: 1 to 6, as in the original's file names.
        size: side in pixels, 16 to 4096.

    Returns:
        RGB image (size, size, 3) uint8.

    Raises:
        ValueError: for another place, number or size.
    """
    if place not in PLACES or number not in TEXTURE_NUMBERS:
        raise ValueError(
            f"place must be one of {PLACES} and number 1 to 6, got {place!r} and {number!r}."
        )
    if not 16 <= size <= 4096:
        raise ValueError(f"size must be from 16 to 4096, got {size}.")
    return _drawn(place if number > 3 else "floor", number, size)


def texture_files(folder: str | Path | None = None, size: int = 1024) -> dict[str, bytes]:
    """Return the files of the folder `textures/` that `assets_xml` refers to.

    Args:
        folder: folder with any of `floor/001.png` to `006.png` and `wall/001.png` to `006.png` (or
            .jpg) to replace the procedural ones, such as `mjcf/textures` of the original
            ShapeStacks.
        size: side of the textures in pixels.

    Returns:
        PNG files by name, such as "floor/001.png".

    Raises:
        FileNotFoundError: if the folder is missing.
        ValueError: if a file is not an image, or the folder has no textures.
    """
    images = {
        texture_file(place, number): texture(place, number, size)
        for place in PLACES
        for number in sorted(TEXTURE_NUMBERS)
    }
    if folder is not None:
        images |= _own(Path(folder), images, size)
    return {name: encode_png(image) for name, image in images.items()}


def _own(folder: Path, names: dict[str, Image], size: int) -> dict[str, Image]:
    if not folder.is_dir():
        raise FileNotFoundError(f"textures must be an existing folder, got {folder}.")
    images = {}
    for name in names:
        for path in (folder / name, (folder / name).with_suffix(".jpg")):
            if path.is_file():
                try:
                    image = decode_image(read_image_file(path))
                except ValueError as error:
                    raise ValueError(f"{path} cannot be read as an image: {error}") from error
                resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
                images[name] = np.asarray(resized, np.uint8)
                break
    if not images:
        raise ValueError(f"textures must contain one of {', '.join(names)}, got {folder}.")
    return images


@lru_cache(maxsize=32)
def _drawn(place: str, number: int, size: int) -> Image:
    draw, mean, contrast = _TEXTURES[place, number]
    rng = np.random.default_rng([ord(place[0]), number])
    pixels = colourise(draw(rng, size), mean, contrast)
    pixels.setflags(write=False)
    return pixels


def _bricks(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 24, 12, 0.5, 0.08, 0.5, 2.0)


def _concrete(rng: np.random.Generator, size: int) -> Field:
    return noise(rng, size, 4, 7)


def _slabs(rng: np.random.Generator, size: int) -> Field:
    """Render slabs of black, white, coloured and speckled stone."""
    rows = 8
    tile, edge = tile_grid(size, rows, rows)
    kind = rng.permutation(np.arange(rows * rows) % 4)[tile]
    speckles = np.where(noise(rng, size, 48, 2) > 0, 2.4, 0.3)
    field = np.where(kind == 3, speckles, np.array([2.8, 0.1, 1.0, 0.0])[kind])
    tint = np.array([[1, 1, 0.97], [1, 1, 1], [0.75, 1.05, 1.2], [1.05, 1.03, 0.9]])[kind]
    field = field[..., None] * tint + 0.15 * noise(rng, size, 8)[..., None]
    return np.where(edge[..., None] < 0.03, 0.0, field).astype(np.float32)


def _planks(rng: np.random.Generator, size: int) -> Field:
    return wood(rng, size, 20, 5)


def _boards(rng: np.random.Generator, size: int) -> Field:
    return wood(rng, size, 10, 2)


def _parquet(rng: np.random.Generator, size: int) -> Field:
    """Render squares of five staves each, every other one rotated by 90 degrees."""
    tile, edge = tile_grid(size, 12, 12)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size * 12
    turned = (tile // 12 + tile % 12) % 2 == 1
    position = np.where(turned, x, y) % 1 * 5
    stave = (tile * 5 + position.astype(np.int64)) % 720
    along = noise(rng, size, 64, 3, stretch=16)
    grain = np.where(turned, along.T, along)
    gap = (position % 1 < 0.06) | (edge < 0.02)
    field: Field = 0.7 * rng.standard_normal(720)[stave] + 0.4 * grain - 1.5 * gap
    return field.astype(np.float32)


def _plaster(rng: np.random.Generator, size: int) -> Field:
    veins: Field = np.abs(noise(rng, size, 12, 6))
    return veins + 0.3 * noise(rng, size, 3, 2)


def _blocks(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 10, 5, 0.5, 0.04, 0.6, -2.0)


def _tiles(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 16, 16, 0.0, 0.06, 0.5, -3.0)


Draw = Callable[[np.random.Generator, int], Field]

# Function, mean colour and standard deviation of each texture.
_TEXTURES: dict[tuple[str, int], tuple[Draw, tuple[int, int, int], float]] = {
    ("floor", 1): (_bricks, (122, 105, 83), 30),
    ("floor", 2): (_concrete, (121, 121, 121), 22),
    ("floor", 3): (_slabs, (89, 99, 97), 54),
    ("floor", 4): (_planks, (115, 97, 89), 24),
    ("floor", 5): (_boards, (157, 127, 91), 22),
    ("floor", 6): (_parquet, (113, 82, 53), 26),
    ("wall", 4): (_plaster, (120, 116, 112), 24),
    ("wall", 5): (_blocks, (129, 129, 129), 28),
    ("wall", 6): (_tiles, (80, 81, 78), 26),
}
