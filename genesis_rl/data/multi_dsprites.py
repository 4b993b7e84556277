"""Coloured Multi-dSprites (Burgess et al., 2019; Appendix A of the GENESIS paper).

One to four sprites of dSprites (Matthey et al., 2017) on a plain background. Sprites and background
take one of five equally spaced levels in each colour channel.

Every labelled sprite is visible in the masks: scenes with a fully occluded sprite are rejected.
Colours are independent by default, as in the paper. A sprite may therefore have the colour of the
background (1 sprite in 125) or of a sprite it overlaps, and be visible in the masks but not in the
image. `unique_colours` gives the background and all sprites of an image different colours.
"""

import hashlib
import zipfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import check_split
from genesis_rl.data.pack import DAMAGE, PackWriter
from genesis_rl.utils.checks import Natural, check_fields
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.sprites.drawing import DSPRITES_OUTLINES, coverage

SHAPES = ("square", "ellipse", "heart")  # order of the classes in dSprites

#: Red, green or blue levels of sprites and backgrounds.
LEVELS = np.rint(np.linspace(0, 255, 5)).astype(np.uint8)

#: Values per factor in dSprites: shape, scale, orientation, column, row.
GRID = (3, 6, 40, 32, 32)

_FRAME = 64  # side of the dSprites frames, the unit of the outlines
_BATCH = 500
_REDRAWS = 1000


@dataclass(frozen=True)
class MultiDSpritesConfig:
    """Options of Multi-dSprites."""

    image_size: int = 64
    """side of the images in pixels: 32, 64 or 128 (rendered), 32 or 64 (from the .npz)"""
    min_objects: int = 1
    """fewest sprites in an image"""
    max_objects: int = 4
    """most sprites in an image"""
    unique_colours: bool = False
    """use different colours for the background and all sprites of an image"""
    seed: Natural = 0
    """seed of the images; an image depends only on (seed, split, index)"""
    dsprites_path: str | None = None
    """path of the dSprites .npz with the sprites; None: sprites are rendered"""

    def __post_init__(self) -> None:
        """Validate every option."""
        sizes = (32, 64, 128) if self.dsprites_path is None else (32, 64)
        if self.image_size not in sizes:
            raise ValueError(f"image_size must be one of {sizes}, got {self.image_size!r}.")
        if not 1 <= self.min_objects <= self.max_objects <= 10:
            raise ValueError(
                "min_objects and max_objects must satisfy 1 <= min_objects <= max_objects <= 10,"
                f" got {self.min_objects} and {self.max_objects}."
            )
        check_fields(self)

    def meta(self, split: str) -> dict[str, Any]:
        """Return the settings that determine the content of a split, as JSON data.

        Raises:
            ValueError: if the .npz cannot be read.
        """
        options = asdict(self)
        path = options.pop("dsprites_path")
        source = "drawn" if path is None else f"npz {_sha256(path)}"
        return {"dataset": "multi_dsprites", "split": split, "source": source, **options}


class Factors(NamedTuple):
    """Ground truth of one image with n sprites, in painter's order.

    Attributes:
        classes: (n, 5) indices on the grid of dSprites: shape, scale, orientation, column, row.
        colours: (n + 1, 3) indices into `LEVELS`, the background first.
    """

    classes: npt.NDArray[np.int64]
    colours: npt.NDArray[np.int64]


class RenderedSprites:
    """Sprites rendered from outlines; binary, as in dSprites."""

    def __init__(self, image_size: int) -> None:
        """Set the side of the frames in pixels."""
        self.grid = GRID
        self._size = image_size

    def mask(self, classes: npt.NDArray[np.int64], out: npt.NDArray[np.bool_]) -> None:
        """Draw a sprite.

        Args:
            classes: (5,) shape, scale, orientation, column, row.
            out: (image_size, image_size), filled with False; set to True where the sprite covers
                at least half of the pixel.
        """
        shape, scale, angle, column, row = factor_values(classes, self.grid)
        draw_dsprite(SHAPES[int(shape)], scale, angle, column, row, out)


def draw_dsprite(
    shape: str, scale: float, angle: float, column: float, row: float, out: npt.NDArray[np.bool_]
) -> None:
    """Draw a sprite of dSprites at continuous factors.

    Args:
        shape: "square", "ellipse" or "heart".
        scale: 0.5 to 1 in dSprites.
        angle: orientation in radians, counter-clockwise.
        column: centre relative to the frame, 0.25 to 0.75 in dSprites, rightwards.
        row: centre relative to the frame, downwards.
        out: (H, H), filled with False; set to True where the sprite covers at least half of the
            pixel.
    """
    size = len(out)
    outline, pixels = DSPRITES_OUTLINES[shape], scale * size / _FRAME
    half = ceil(_radius(shape) * pixels) + 1
    top, left = round(row * size) - half, round(column * size) - half
    centre = (row * size - top, column * size - left)
    patch = coverage(
        outline, (2 * half, 2 * half), centre, scale=pixels, angle=angle, supersampling=4
    )
    low, high = (max(top, 0), max(left, 0)), (min(top + 2 * half, size), min(left + 2 * half, size))
    inside = patch[low[0] - top : high[0] - top, low[1] - left : high[1] - left]
    out[low[0] : high[0], low[1] : high[1]] = inside >= 128


@lru_cache
def _radius(shape: str) -> float:
    return float(np.hypot(*DSPRITES_OUTLINES[shape].T).max())


class NpzSprites:
    """Sprites from the dSprites .npz, stored in memory as bits (380 MB)."""

    def __init__(self, path: str, image_size: int) -> None:
        """Read the frames.

        Args:
            path: path of the .npz, with `imgs` (N, 64, 64) uint8 of 0 and 1 and `latents_classes`
                (N, 6).
            image_size: 64, or 32 for every second pixel.

        Raises:
            ValueError: if the file is not such an .npz, or has an incomplete grid of factors.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                classes = np.asarray(file["latents_classes"])
            self.grid = _check_grid(classes)
            self._bits = _read_bits(path, len(classes))
        except DAMAGE as error:
            raise ValueError(
                f"{path} must be the .npz of dSprites, with imgs (N, 64, 64) uint8 and"
                f" latents_classes (N, 6) of a complete grid of factors ({error})."
            ) from error
        self._step = _FRAME // image_size

    def mask(self, classes: npt.NDArray[np.int64], out: npt.NDArray[np.bool_]) -> None:
        """Copy a sprite; arguments as for `RenderedSprites.mask`."""
        bits = self._bits[np.ravel_multi_index(tuple(classes), self.grid)]
        frame = np.unpackbits(bits).reshape(_FRAME, _FRAME)
        out[:] = frame[:: self._step, :: self._step]


def _check_grid(classes: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the values per factor; raise if the rows are not the complete grid in order."""
    if classes.ndim != 2 or classes.shape[1] != 6 or not len(classes):
        raise ValueError(f"latents_classes has shape {classes.shape}")
    grid = tuple(int(n) for n in classes.max(axis=0)[1:] + 1)
    if int(np.prod(grid)) != len(classes) or grid[0] != len(SHAPES):
        raise ValueError(f"{len(classes)} frames do not make a grid of {grid}")
    index = np.ravel_multi_index(tuple(classes[:, 1:].T), grid)
    if (index != np.arange(len(classes))).any():
        raise ValueError("the frames are not in the order of their factors")
    return grid


def _read_bits(path: str, n: int) -> npt.NDArray[np.uint8]:
    """Read `imgs` in pieces as (n, 512) bits; unpacked, it has 3 GB."""
    bits = np.empty((n, _FRAME * _FRAME // 8), np.uint8)
    with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(file)
        if shape != (n, _FRAME, _FRAME) or dtype != np.uint8 or fortran_order:
            raise ValueError(f"imgs is {dtype}{shape}")
        for first in range(0, n, 4096):
            count = min(4096, n - first)
            frames = np.frombuffer(file.read(count * _FRAME * _FRAME), np.uint8)
            bits[first : first + count] = np.packbits(frames.reshape(count, -1), axis=1)
    return bits


def factor_values(
    classes: npt.NDArray[np.int64], grid: tuple[int, ...] = GRID
) -> npt.NDArray[np.float64]:
    """Convert grid indices to values.

    Args:
        classes: (..., 5) indices: shape, scale, orientation, column, row.
        grid: values per factor.

    Returns:
        (..., 5): shape index; scale 0.5 to 1; orientation 0 to 2 pi; column and row of the centre
        relative to the frame from its top-left corner, 0.25 to 0.75.
    """
    steps = np.maximum(np.asarray(grid[1:]) - 1, 1)
    share = classes[..., 1:] / steps
    low, span = np.array([0.5, 0.0, 0.25, 0.25]), np.array([0.5, 2 * np.pi, 0.5, 0.5])
    return np.concatenate([classes[..., :1], low + span * share], axis=-1)


def _draw_factors(
    rng: np.random.Generator, config: MultiDSpritesConfig, grid: tuple[int, ...]
) -> Factors:
    n = int(rng.integers(config.min_objects, config.max_objects + 1))
    classes = (rng.random((n, 5)) * grid).astype(np.int64)
    while True:
        colours = rng.integers(len(LEVELS), size=(n + 1, 3))
        codes = {tuple(colour) for colour in colours.tolist()}
        if not config.unique_colours or len(codes) == n + 1:
            return Factors(classes, colours)


def _draw_image(
    rng: np.random.Generator,
    config: MultiDSpritesConfig,
    sprites: RenderedSprites | NpzSprites,
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
) -> Factors:
    """Sample scenes until all sprites are visible; fills `image` and `labels`."""
    for _ in range(_REDRAWS):
        factors = _draw_factors(rng, config, sprites.grid)
        labels[:] = 0
        for label, classes in enumerate(factors.classes, start=1):
            mask = np.zeros(labels.shape, np.bool_)
            sprites.mask(classes, mask)
            labels[mask] = label
        n = len(factors.classes)
        if np.bincount(labels.ravel(), minlength=n + 1)[1:].all():
            np.take(LEVELS[factors.colours], labels, axis=0, out=image)
            return factors
    raise ValueError(
        f"max_objects must allow scenes without fully occluded sprites, got none of {n} sprites in "
        f"{_REDRAWS} tries. Use fewer sprites."
    )


def write_multi_dsprites(
    folder: Path, config: MultiDSpritesConfig, split: str, num_images: int, *, first: int = 0
) -> None:
    """Write a split, or a shard of it, as a pack.

    Factors, with M = `max_objects` and zeros in unused rows: `count` (N,); `shape` (N, M) index
    into `SHAPES`; `scale` (N, M); `angle` (N, M) in radians; `x`, `y` (N, M) centres relative to
    the frame, y up; `colour` (N, M, 3) and `background` (N, 3) in 0..255. Sprite i of an image has
    label i + 1 in the masks.

    Args:
        folder: destination.
        config: options.
        split: "train", "validation" or "test".
        num_images: number of images to write.
        first: index of the first image in the split.

    Raises:
        ValueError: for an unknown split, num_images below 1, or an invalid .npz.
        OSError: if the folder cannot be written.
    """
    check_split(split)
    size, path = config.image_size, config.dsprites_path
    sprites = RenderedSprites(size) if path is None else NpzSprites(path, size)
    key = (config.seed, *split.encode())
    bar = ProgressBar(total=num_images, desc=f"Multi-dSprites, {split}", unit="img")
    with bar, PackWriter(folder, num_images, size, meta=config.meta(split)) as writer:
        for start in range(first, first + num_images, _BATCH):
            n = min(_BATCH, first + num_images - start)
            images = np.empty((n, size, size, 3), np.uint8)
            masks = np.empty((n, size, size), np.uint8)
            factors = [
                _draw_image(
                    np.random.default_rng((*key, start + i)), config, sprites, images[i], masks[i]
                )
                for i in range(n)
            ]
            writer.write(images, masks, **_stack(factors, config.max_objects, sprites.grid))
            bar.update(n)


def _stack(
    factors: list[Factors], max_objects: int, grid: tuple[int, ...]
) -> dict[str, npt.NDArray[Any]]:
    """Return arrays of one row per image, padded with zeros to `max_objects` sprites."""
    n = len(factors)
    values = np.zeros((n, max_objects, 5), np.float32)
    colour = np.zeros((n, max_objects, 3), np.uint8)
    for i, (classes, colours) in enumerate(factors):
        values[i, : len(classes)] = factor_values(classes, grid)
        values[i, : len(classes), 4] = 1 - values[i, : len(classes), 4]  # rows run down, y up
        colour[i, : len(classes)] = LEVELS[colours[1:]]
    return {
        "count": np.array([len(f.classes) for f in factors], np.uint8),
        "shape": values[..., 0].astype(np.uint8),
        "scale": values[..., 1],
        "angle": values[..., 2],
        "x": values[..., 3],
        "y": values[..., 4],
        "colour": colour,
        "background": np.stack([LEVELS[f.colours[0]] for f in factors]),
    }


def _sha256(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(
            f"dsprites_path must be a readable file, got {path}: {error.strerror}."
        ) from error
