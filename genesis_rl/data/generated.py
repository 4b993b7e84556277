"""Data sets that are drawn image by image, whole or in shards that other machines draw.

An image depends on the data set's options, the split and its own number alone, so shards of a
split, made anywhere and joined in order, are the split.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genesis_rl.data.cache import check_split, open_or_make
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
# What PackWriter itself says in meta.json.
_OF_A_PACK = ("format", "num_images", "image_size", "masks", "factors")
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


def write_split(data: Generated, out: str | os.PathLike[str], split: str, count: int) -> Path:
    """Draw a whole split as the pack ``out/split``, unless it is there.

    Returns:
        The pack's folder.

    Raises:
        ValueError: if the folder holds other data.
        OSError: if it cannot be written.
    """
    check_split(split)
    folder = Path(out) / split
    pack = open_or_make(folder, lambda path: data.write(path, split, 0, count))
    _check_same(pack, data.meta(split, count), "num_images")
    return folder


def write_shard(
    data: Generated, out: str | os.PathLike[str], split: str, count: int, shard: int, shards: int
) -> Path:
    """Draw one of a split's shards, unless it is there.

    Args:
        data: the data set.
        out: folder of all of it.
        split: "train", "validation" or "test".
        count: images of the whole split.
        shard: number of the shard, from 0.
        shards: how many there are.

    Returns:
        The shard's folder.

    Raises:
        ValueError: for a split, shard or number of images that cannot be, or if the folder holds
            other data.
        OSError: if it cannot be written.
    """
    check_split(split)
    if not 0 <= shard < shards:
        raise ValueError(f"shard is {shard}; wanted 0 to {shards - 1} (shards - 1).")
    if count < shards:
        raise ValueError(f"{count} images make no {shards} shards; wanted fewer shards.")
    folder = shard_folder(out, split, shard, shards)
    first, end = (count * i // shards for i in (shard, shard + 1))
    pack = open_or_make(folder, lambda path: data.write(path, split, first, end - first))
    _check_same(pack, data.meta(split, end - first))
    if len(pack) != end - first:
        raise ValueError(
            f"{folder} has {len(pack)} images; {count} images in {shards} shards make {end - first}"
            " here. Choose another folder, or delete it."
        )
    return folder


def _check_same(pack: Pack, wanted: dict[str, Any], *more: str) -> None:
    """Refuse a pack that was drawn with other options, before it is taken for the wanted one."""
    plain = json.loads(json.dumps(wanted))  # tuples become lists, as on disk
    for name, value in plain.items():
        mine = pack.meta.get(name)
        if (name not in _OF_A_PACK or name in more) and mine != value:
            raise ValueError(
                f"{pack.folder} has {name} {mine!r}, not {value!r}: choose another folder, or "
                "delete it."
            )


def join_shards(out: str | os.PathLike[str], split: str) -> Path:
    """Put the shards of a split together, in order, as the pack ``out/split``.

    Returns:
        The pack's folder; the shards are left to be deleted by whoever made them.

    Raises:
        ValueError: if there are none, one is missing or broken, they are of different data or
            sizes, or the folder holds another pack.
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
    meta = {k: v for k, v in packs[0].meta.items() if k not in _OF_A_PACK}
    total = sum(map(len, packs))
    for i, pack in enumerate(packs):
        _check_same(pack, meta)
        if len(pack) != total * (i + 1) // shards - total * i // shards:
            raise ValueError(
                f"{pack.folder} has {len(pack)} images, which is no share of {total}: the shards "
                "are of splits of different sizes."
            )
    joined = open_or_make(Path(out) / split, lambda path: _write(packs, path, total, meta))
    _check_same(joined, {**meta, "num_images": total}, "num_images")
    return joined.folder


def _write(packs: list[Pack], folder: Path, total: int, meta: dict[str, Any]) -> None:
    size = packs[0].images.shape[1]
    with PackWriter(folder, total, size, masks=packs[0].masks is not None, meta=meta) as writer:
        for pack in packs:
            factors = pack.factors
            for first in range(0, len(pack), _CHUNK):
                rows = slice(first, first + _CHUNK)
                masks = None if pack.masks is None else np.asarray(pack.masks[rows])
                parts = {name: values[rows] for name, values in factors.items()}
                writer.write(np.asarray(pack.images[rows]), masks, **parts)
