"""Data sets: generated, or converted from original files, once; kept as memory-mapped packs."""

import importlib
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
from genesis_rl.data.generated import DEFAULT_SIZES, GENERATED, generated
from genesis_rl.data.originals import ORIGINALS
from genesis_rl.data.pack import Pack, PackWriter

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
        if len(folder.parts) > 1 and not folder.is_absolute():
            raise ValueError(
                f"data {str(name)!r} must be a pack, but {folder.absolute()} does not exist. A"
                " relative path starts in the current folder: go to the folder in which it was"
                " given, or give the whole path (--data)."
            )
        raise ValueError(
            f"unknown data set {str(name)!r}: use one of {', '.join(DATASETS)}"
            " or the folder of a pack"
        )
    if options:
        raise TypeError(f"a pack on disk takes no options, got {', '.join(options)}")
    return Pack.open(split_folder(folder, split))


def _drawn(name: str) -> Callable[..., Pack]:
    def open_drawn(
        root: Path, split: str, *, num_images: int | None = None, **options: Any
    ) -> Pack:
        data = generated(name, **options)
        count = DEFAULT_SIZES[split] if num_images is None else num_images
        folder = pack_folder(root, name, split, data.meta(split, count))
        return open_or_make(folder, lambda path: data.write(path, split, 0, count))

    return open_drawn


def _open_towers(root: Path, split: str, **options: Any) -> Pack:
    # The renderer builds on packs, so it is imported only when its images are asked for.
    module = importlib.import_module("genesis_rl.towers.dataset")
    pack: Pack = module.open_towers(root, split, **options)
    return pack


#: Data sets by name:
#: "multi_dsprites", options num_images (50,000 for training, 10,000 otherwise) and those of
#: `genesis_rl.data.multi_dsprites.MultiDSpritesConfig`;
#: "object_goal", "object_interaction", "object_comparison" and "property_comparison", scenes of
#: `genesis_rl/ObjectGoal-v0` and so on with the agent (and what it can move) anywhere it may stand;
#: options num_images (50,000 for training, 10,000 otherwise), seed, and those of
#: `genesis_rl.worlds.ObjectGoalWorld` and so on;
#: "sprite_scenes", the published pretraining scenes of the relational tasks; options num_images,
#: seed, and those of `genesis_rl.data.sprite_scenes.FreeScenes`;
#: "towers", ShapeStacks' towers rendered here, options `genesis_rl.towers.dataset.open_towers`;
#: and those of `genesis_rl.data.originals.ORIGINALS`, which are read from original files.
DATASETS: dict[str, Callable[..., Pack]] = {
    **{name: _drawn(name) for name in GENERATED},
    "towers": _open_towers,
    **ORIGINALS,
}
