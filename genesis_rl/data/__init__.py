"""Data sets: generated, or converted from original files, once; kept as memory-mapped packs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genesis_rl.data.cache import (
    SPLITS,
    check_split,
    data_root,
    open_or_make,
    pack_folder,
    split_folder,
)
from genesis_rl.data.multi_dsprites import MultiDSpritesConfig, write_multi_dsprites
from genesis_rl.data.originals import ORIGINALS
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

__all__ = [
    "DATASETS",
    "SPLITS",
    "Pack",
    "PackWriter",
    "data_root",
    "open_dataset",
]


def open_dataset(
    name: str | os.PathLike[str],
    split: str = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Pack:
    """Open a split of a data set; what is missing is generated or converted first.

    Packs are kept under the root in a folder named after a hash of everything that decides their
    content. Two processes may ask for the same one at once.

    Args:
        name: one of `DATASETS`, or the path of a pack (or of a folder that holds one per split,
            named after it).
        split: "train", "validation" or "test".
        root: where packs are kept; $GENESIS_RL_DATA or ~/.cache/genesis_rl by default.
        **options: the data set's own, see `DATASETS`.

    Returns:
        The pack.

    Raises:
        ValueError: for an unknown name or split, an option's bad value, or a broken pack.
        TypeError: for an option that the data set does not have.
        OSError: if the pack cannot be written or original files are missing; says which files,
            where to get them and where they go.

    Example:
        >>> open_dataset("object_goal", "validation", num_images=500, image_size=32)
    """
    check_split(split)
    if isinstance(name, str) and name in DATASETS:
        return DATASETS[name](data_root(root), split, **options)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"unknown data set {str(name)!r}: use one of {', '.join(DATASETS)}"
            " or the folder of a pack"
        )
    if options:
        raise TypeError(f"a pack on disk takes no options, got {', '.join(options)}")
    return Pack.open(split_folder(folder, split))


def _scenes(name: str, world_class: type[SpriteWorld] | type[FreeScenes]) -> Callable[..., Pack]:
    def open_scenes(
        root: Path, split: str, *, num_images: int | None = None, seed: int = 0, **options: Any
    ) -> Pack:
        count = (50_000 if split == "train" else 10_000) if num_images is None else num_images
        config = SpriteScenesConfig(from_options(world_class, options), count, seed)
        folder = pack_folder(root, name, split, config.meta(split))
        return open_or_make(folder, lambda path: write_sprite_scenes(path, config, split))

    return open_scenes


def _multi_dsprites(
    root: Path, split: str, *, num_images: int | None = None, **options: Any
) -> Pack:
    config = from_options(MultiDSpritesConfig, options)
    count = (50_000 if split == "train" else 10_000) if num_images is None else num_images
    key = {**config.meta(split), "num_images": count}
    folder = pack_folder(root, "multi_dsprites", split, key)
    return open_or_make(folder, lambda path: write_multi_dsprites(path, config, split, count))


#: Data sets by name:
#: "multi_dsprites", options num_images (50,000 for training, 10,000 otherwise) and those of
#: `genesis_rl.data.multi_dsprites.MultiDSpritesConfig`;
#: "object_goal", "object_interaction", "object_comparison" and "property_comparison", scenes of
#: `genesis_rl/ObjectGoal-v0` and so on with the agent (and what it can move) anywhere it may stand;
#: options num_images (50,000 for training, 10,000 otherwise), seed, and those of
#: `genesis_rl.worlds.ObjectGoalWorld` and so on;
#: "sprite_scenes", the published pretraining scenes of the relational tasks; options num_images,
#: seed, and those of `genesis_rl.data.sprite_scenes.FreeScenes`;
#: and those of `genesis_rl.data.originals.ORIGINALS`, which are read from original files.
DATASETS: dict[str, Callable[..., Pack]] = {
    "multi_dsprites": _multi_dsprites,
    "object_goal": _scenes("object_goal", ObjectGoalWorld),
    "object_interaction": _scenes("object_interaction", ObjectInteractionWorld),
    "object_comparison": _scenes("object_comparison", ObjectComparisonWorld),
    "property_comparison": _scenes("property_comparison", PropertyComparisonWorld),
    "sprite_scenes": _scenes("sprite_scenes", FreeScenes),
    **ORIGINALS,
}
