"""Generated datasets, written whole or in shards on several machines.

An image depends only on the dataset's options, the split and its index, so the shards of a split
joined in order equal the split.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from genesis_rl.data.cache import check_split, open_or_make
from genesis_rl.data.multi_dsprites import MultiDSpritesConfig, write_multi_dsprites
from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.data.sprite_scenes import FreeScenes, SpriteScenesConfig, write_sprite_scenes
from genesis_rl.worlds.sprites import (
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
# Functions that return the datasets that are rendered with MuJoCo.
_RENDERED = {"rooms": ("genesis_rl.worlds.rooms.dataset", "rooms_dataset")}
#: Names of the generated datasets.
GENERATED = ("multi_dsprites", *_WORLDS, *_RENDERED)
#: Default number of images by split.
DEFAULT_SIZES = {"train": 50_000, "validation": 10_000, "test": 10_000}

_CHUNK = 4096  # images copied at a time
# Entries of meta.json that PackWriter adds.
_PACK_ENTRIES = ("format", "num_images", "image_size", "masks", "factors")
_SHARD = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class GeneratedDataset:
    """A dataset generated from its options.

    Attributes:
        name: one of `GENERATED`.
        meta: function of (split, images); returns the settings that determine the content of a
            split, as JSON data.
        write: function of (folder, split, first, count); writes images ``first`` to
            ``first + count`` of a split as a pack.
    """

    name: str
    meta: Callable[[str, int], dict[str, Any]]
    write: Callable[[Path, str, int, int], None]


def generated_dataset(name: str, **options: Any) -> GeneratedDataset:
    """Return a generated dataset by name.

    Args:
        name: one of `GENERATED`.
        **options: options of `genesis_rl.data.multi_dsprites.MultiDSpritesConfig`, or a seed and
            options of the world (`genesis_rl.worlds.sprites`, `FreeScenes`); for "rooms" those of
            `genesis_rl.worlds.rooms.dataset.rooms_dataset`.

    Raises:
        ValueError: for an unknown name, or an invalid option.
        TypeError: for an unknown option.
    """
    if name == "multi_dsprites":
        sprites = from_options(MultiDSpritesConfig, options)
        return GeneratedDataset(
            name,
            lambda split, count: {**sprites.meta(split), "num_images": count},
            lambda folder, split, first, count: write_multi_dsprites(
                folder, sprites, split, count, first=first
            ),
        )
    if name in _RENDERED:
        # Imported here because the renderers import this package.
        module, function = _RENDERED[name]
        dataset: GeneratedDataset = getattr(import_module(module), function)(**options)
        return dataset
    if name not in _WORLDS:
        raise ValueError(f"data must be one of {', '.join(GENERATED)}, got {name!r}.")
    seed = options.pop("seed", 0)
    world = from_options(_WORLDS[name], options)

    def config(count: int) -> SpriteScenesConfig:
        return SpriteScenesConfig(world, count, seed)

    return GeneratedDataset(
        name,
        lambda split, count: config(count).meta(split),
        lambda folder, split, first, count: write_sprite_scenes(
            folder, config(count), split, first=first
        ),
    )


def shard_folder(out: str | os.PathLike[str], split: str, shard: int, shards: int) -> Path:
    """Return the folder of a shard of a split."""
    return Path(out) / "shards" / split / f"shard-{shard:05d}-of-{shards:05d}"


def write_split(
    data: GeneratedDataset, out: str | os.PathLike[str], split: str, count: int
) -> Path:
    """Generate a split as the pack ``out/split`` if it does not exist.

    Returns:
        The pack's folder.

    Raises:
        ValueError: if the folder contains other data.
        OSError: if it cannot be written.
    """
    check_split(split)
    folder = Path(out) / split
    pack = open_or_make(folder, lambda path: data.write(path, split, 0, count))
    _check_same(pack, data.meta(split, count), "num_images")
    return folder


def write_shard(
    data: GeneratedDataset,
    out: str | os.PathLike[str],
    split: str,
    count: int,
    shard: int,
    shards: int,
) -> Path:
    """Generate one shard of a split if it does not exist.

    Args:
        data: the dataset.
        out: folder of the dataset.
        split: "train", "validation" or "test".
        count: images of the whole split.
        shard: index of the shard, from 0.
        shards: number of shards.

    Returns:
        The shard's folder.

    Raises:
        ValueError: for an invalid split, shard or number of images, or if the folder contains
            other data.
        OSError: if it cannot be written.
    """
    check_split(split)
    if not 0 <= shard < shards:
        raise ValueError(f"shard must be in 0..{shards - 1}, got {shard}.")
    if count < shards:
        raise ValueError(f"shards must be at most the {count} images, got {shards}.")
    folder = shard_folder(out, split, shard, shards)
    first, end = (count * i // shards for i in (shard, shard + 1))
    pack = open_or_make(folder, lambda path: data.write(path, split, first, end - first))
    _check_same(pack, data.meta(split, end - first))
    if len(pack) != end - first:
        raise ValueError(
            f"{folder} must have {end - first} of {count} images in {shards} shards, got "
            f"{len(pack)}. Choose another folder, or delete it."
        )
    return folder


def _check_same(pack: Pack, expected: dict[str, Any], *more: str) -> None:
    """Raise for an existing pack that was generated with other options."""
    plain = json.loads(json.dumps(expected))  # tuples become lists, as on disk
    for name, value in plain.items():
        stored = pack.meta.get(name)
        if (name not in _PACK_ENTRIES or name in more) and stored != value:
            raise ValueError(
                f"{pack.folder} must have {name} {value!r}, got {stored!r}. Choose another folder, "
                "or delete it."
            )


def join_shards(out: str | os.PathLike[str], split: str) -> Path:
    """Join the shards of a split in order as the pack ``out/split``.

    Returns:
        The pack's folder; the shards are kept.

    Raises:
        ValueError: if shards are missing, broken, or of different data or sizes, or the folder
            contains another pack.
        OSError: if the pack cannot be written.
    """
    check_split(split)
    directory = shard_folder(out, split, 0, 1).parent
    paths = {path.name: path for path in sorted(directory.glob("shard-*-of-*"))}
    counts = {int(match[2]) for name in paths if (match := _SHARD.fullmatch(name))}
    if len(counts) != 1:
        numbers = ", ".join(map(str, sorted(counts))) or "none"
        raise ValueError(
            f"{directory} must have the shards of one number of shards, got {numbers}."
        )
    (shards,) = counts
    folders = [shard_folder(out, split, i, shards) for i in range(shards)]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise ValueError(
            f"{directory} must have {shards} shards, but {len(missing)} are missing, first "
            f"{missing[0]}."
        )
    packs = [Pack.open(folder) for folder in folders]
    meta = {k: v for k, v in packs[0].meta.items() if k not in _PACK_ENTRIES}
    total = sum(map(len, packs))
    for i, pack in enumerate(packs):
        _check_same(pack, meta)
        if len(pack) != total * (i + 1) // shards - total * i // shards:
            raise ValueError(
                f"{pack.folder} has {len(pack)} images, no valid share of {total}: the shards "
                "belong to splits of different sizes."
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
