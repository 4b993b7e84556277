"""Data sets that are drawn image by image, whole or in shards that other machines draw.

An image depends on the data set's options, the split and its own number alone, so shards of a
split, made anywhere and joined in order, are the split.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genesis_rl.data.cache import check_split
from genesis_rl.data.multi_dsprites import MultiDSpritesConfig, write_multi_dsprites
from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.data.sprite_scenes import FreeScenes, SpriteScenesConfig, write_sprite_scenes
from genesis_rl.worlds import (
    ObjectComparisonWorld,
    ObjectGoalWorld,
    ObjectInteractionWorld,
    PropertyComparisonWorld,
    SpriteWorld,
    from_options,
)

_WORLDS: dict[str, type[SpriteWorld] | type[FreeScenes]] = {
    "object_goal": ObjectGoalWorld,
    "object_interaction": ObjectInteractionWorld,
    "object_comparison": ObjectComparisonWorld,
    "property_comparison": PropertyComparisonWorld,
    "sprite_scenes": FreeScenes,
}
#: Their names.
GENERATED = ("multi_dsprites", *_WORLDS)
#: Images of a split by default.
DEFAULT_SIZES = {"train": 50_000, "validation": 10_000, "test": 10_000}

_CHUNK = 4096  # images copied at a time
_SHARD = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Generated:
    """A data set that is drawn from its options.

    Attributes:
        name: of `GENERATED`.
        meta: everything that decides the content of a split, as JSON data, by (split, images).
        write: writes images ``first`` to ``first + count`` of a split as a pack, by (folder,
            split, first, count).
    """

    name: str
    meta: Callable[[str, int], dict[str, Any]]
    write: Callable[[Path, str, int, int], None]


def generated(name: str, **options: Any) -> Generated:
    """Look up a data set by its name.

    Args:
        name: of `GENERATED`.
        **options: those of `genesis_rl.data.multi_dsprites.MultiDSpritesConfig`, or a seed and
            those of the world whose scenes are drawn (`genesis_rl.worlds`, `FreeScenes`).

    Raises:
        ValueError: for an unknown name, or an option's bad value.
        TypeError: for an option that the data set does not have.
    """
    if name == "multi_dsprites":
        sprites = from_options(MultiDSpritesConfig, options)
        return Generated(
            name,
            lambda split, count: {**sprites.meta(split), "num_images": count},
            lambda folder, split, first, count: write_multi_dsprites(
                folder, sprites, split, count, first=first
            ),
        )
    if name not in _WORLDS:
        raise ValueError(f"data {name!r} is not drawn; wanted one of {', '.join(GENERATED)}.")
    seed = options.pop("seed", 0)
    world = from_options(_WORLDS[name], options)

    def config(count: int) -> SpriteScenesConfig:
        return SpriteScenesConfig(world, count, seed)

    return Generated(
        name,
        lambda split, count: config(count).meta(split),
        lambda folder, split, first, count: write_sprite_scenes(
            folder, config(count), split, first=first
        ),
    )


def shard_folder(out: str | os.PathLike[str], split: str, shard: int, shards: int) -> Path:
    """Where a shard of a split lies, below the folder of the data set."""
    return Path(out) / "shards" / split / f"shard-{shard:05d}-of-{shards:05d}"


def write_shard(
    data: Generated, out: str | os.PathLike[str], split: str, count: int, shard: int, shards: int
) -> Path | None:
    """Draw one of a split's shards, unless it is there.

    Args:
        data: the data set.
        out: folder of all of it.
        split: "train", "validation" or "test".
        count: images of the whole split.
        shard: number of the shard, from 0.
        shards: how many there are.

    Returns:
        The shard's folder; None if it was there.

    Raises:
        ValueError: for a split, shard or number of images that cannot be.
        OSError: if it cannot be written.
    """
    check_split(split)
    if not 0 <= shard < shards:
        raise ValueError(f"shard is {shard}; wanted 0 to {shards - 1} (shards - 1).")
    if count < shards:
        raise ValueError(f"{count} images make no {shards} shards; wanted fewer shards.")
    folder = shard_folder(out, split, shard, shards)
    if folder.is_dir():
        Pack.open(folder)  # or an error that says what is wrong with it
        return None
    first, end = (count * i // shards for i in (shard, shard + 1))
    folder.parent.mkdir(parents=True, exist_ok=True)
    data.write(folder, split, first, end - first)
    return folder


def join_shards(out: str | os.PathLike[str], split: str) -> Path:
    """Put the shards of a split together, in order, as the pack ``out/split``.

    Returns:
        The pack's folder; the shards are left to be deleted by whoever made them.

    Raises:
        ValueError: if there are none, one is missing or broken, or they are of different data.
        OSError: if the pack cannot be written.
    """
    check_split(split)
    place = shard_folder(out, split, 0, 1).parent
    found = {path.name: path for path in sorted(place.glob("shard-*-of-*"))}
    counts = {int(match[2]) for name in found if (match := _SHARD.fullmatch(name))}
    if len(counts) != 1:
        known = ", ".join(map(str, sorted(counts))) or "none"
        raise ValueError(f"{place} has shards of {known}; wanted all the shards of one number.")
    (shards,) = counts
    folders = [shard_folder(out, split, i, shards) for i in range(shards)]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise ValueError(f"{place} lacks {len(missing)} of {shards} shards, first {missing[0]}.")
    packs = [Pack.open(folder) for folder in folders]
    kinds = [{k: v for k, v in pack.meta.items() if k not in _OF_A_SHARD} for pack in packs]
    for folder, kind in zip(folders, kinds, strict=True):
        if kind != kinds[0]:
            raise ValueError(f"{folder} is of other data than {folders[0].name}.")
    target, total = Path(out) / split, sum(map(len, packs))
    size = packs[0].images.shape[1]
    meta = {k: v for k, v in kinds[0].items() if k not in _OF_A_PACK}
    with PackWriter(target, total, size, masks=packs[0].masks is not None, meta=meta) as writer:
        for pack in packs:
            _copy(pack, writer)
    return target


# What the meta.json of shards of the same data may differ in; and what PackWriter says itself.
_OF_A_SHARD = ("num_images", "first")
_OF_A_PACK = ("format", "num_images", "image_size", "masks", "factors")


def _copy(pack: Pack, writer: PackWriter) -> None:
    factors = pack.factors
    for first in range(0, len(pack), _CHUNK):
        rows = slice(first, first + _CHUNK)
        masks = None if pack.masks is None else np.asarray(pack.masks[rows])
        parts = {name: values[rows] for name, values in factors.items()}
        writer.write(np.asarray(pack.images[rows]), masks, **parts)
