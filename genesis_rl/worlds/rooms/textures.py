"""Procedural textures of the walls and the floor of a room, and sets of them.

The training set has as many textures as the original, in its colours: five of walls and three of
floors. The test set has other colours and other patterns.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from genesis_rl.worlds.patterns import Field, Image, colourise, noise, stones, tile_grid, wood

Place = Literal["wall", "floor"]
TextureSet = Literal["train", "test", "all"]

#: Names of the textures by set and place.
TEXTURES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "wall": ("red", "green", "cerise", "orange", "yellow"),
        "floor": ("yellow", "white", "blue"),
    },
    "test": {"wall": ("turquoise", "violet", "grey"), "floor": ("green", "brown")},
}
TEXTURES["all"] = {
    place: TEXTURES["train"][place] + TEXTURES["test"][place] for place in ("wall", "floor")
}


@lru_cache(maxsize=32)
def room_texture(place: Place, name: str, size: int = 256) -> Image:
    """Render a texture, deterministically.

    Args:
        place: "wall" (a wall shows it twice, side by side) or "floor".
        name: a name of `TEXTURES["all"][place]`.
        size: side in pixels, 16 to 4096.

    Returns:
        RGB image (size, size, 3) uint8, read-only.

    Raises:
        ValueError: for another place, name or size.
    """
    if (place, name) not in _TEXTURES:
        names = {p: ", ".join(TEXTURES["all"][p]) for p in ("wall", "floor")}
        raise ValueError(
            f"name must be one of {names['wall']} for walls and {names['floor']} for floors, "
            f"got {name!r} for {place!r}."
        )
    if not 16 <= size <= 4096:
        raise ValueError(f"size must be from 16 to 4096, got {size}.")
    draw, mean, contrast = _TEXTURES[place, name]
    rng = np.random.default_rng([ord(place[0]), *name.encode()])
    image = colourise(draw(rng, size), mean, contrast)
    image.setflags(write=False)
    return image


def _bricks(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 12, 8, 0.5, 0.1, 0.5, -2.0)


def _large_bricks(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 6, 6, 0.5, 0.07, 0.5, 2.0)


def _tiles(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 5, 9, 0.0, 0.05, 0.8, -2.0)


def _floor_tiles(rng: np.random.Generator, size: int) -> Field:
    return stones(rng, size, 9, 9, 0.0, 0.06, 0.5, 2.5)


def _planks(rng: np.random.Generator, size: int) -> Field:
    return wood(rng, size, 16, 4)


def _upright_boards(rng: np.random.Generator, size: int) -> Field:
    return wood(rng, size, 10, 1).T


def _plaster(rng: np.random.Generator, size: int) -> Field:
    return noise(rng, size, 4, 6)


def _stripes(rng: np.random.Generator, size: int) -> Field:
    x = np.mgrid[:size, :size][1].astype(np.float32) / size
    stripes: Field = np.sign(np.sin(2 * np.pi * 6 * x))
    return stripes + 0.3 * noise(rng, size, 12)


def _chequers(rng: np.random.Generator, size: int) -> Field:
    tile, _ = tile_grid(size, 10, 10)
    return 2.0 * ((tile // 10 + tile % 10) % 2) + 0.3 * noise(rng, size, 16)


def _waves(rng: np.random.Generator, size: int) -> Field:
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    heights: Field = np.sin(2 * np.pi * (6 * y + 0.3 * np.sin(2 * np.pi * 3 * x)))
    return heights + 0.3 * noise(rng, size, 16)


Draw = Callable[[np.random.Generator, int], Field]

# Function, mean colour and standard deviation of each texture.
_TEXTURES: dict[tuple[str, str], tuple[Draw, tuple[int, int, int], float]] = {
    ("wall", "red"): (_bricks, (170, 62, 52), 24),
    ("wall", "green"): (_large_bricks, (74, 140, 70), 24),
    ("wall", "cerise"): (_tiles, (190, 60, 120), 24),
    ("wall", "orange"): (_upright_boards, (208, 124, 50), 24),
    ("wall", "yellow"): (_plaster, (205, 184, 84), 24),
    ("floor", "yellow"): (_planks, (188, 162, 98), 22),
    ("floor", "white"): (_floor_tiles, (196, 196, 190), 22),
    ("floor", "blue"): (_plaster, (84, 110, 160), 22),
    ("wall", "turquoise"): (_stripes, (74, 168, 164), 24),
    ("wall", "violet"): (_chequers, (128, 90, 170), 24),
    ("wall", "grey"): (_waves, (138, 138, 142), 24),
    ("floor", "green"): (_chequers, (110, 150, 104), 22),
    ("floor", "brown"): (_waves, (128, 92, 66), 22),
}
