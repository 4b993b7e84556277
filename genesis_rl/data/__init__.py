"""Datasets, generated or converted from original files and stored as memory-mapped packs."""

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
from genesis_rl.data.convert import ORIGINALS
from genesis_rl.data.generated import DEFAULT_SIZES, GENERATED, generated_dataset
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
    """Open a split of a dataset, generating or converting it first if it does not exist.

    Packs are stored under the root in a folder named after a hash of their settings. Concurrent
    calls for the same pack are safe.

    Args:
        name: one of `DATASETS`, or the path of a pack or of a folder with one pack per split.
        split: "train", "validation" or "test".
        root: folder of all packs; $GENESIS_RL_DATA or ~/.cache/genesis_rl by default.
        **options: options of the dataset, see `DATASETS`.

    Returns:
        The pack.

    Raises:
        ValueError: for an unknown name or split, an invalid option, or a broken pack.
        TypeError: for an unknown option.
        OSError: if the pack cannot be written or original files are missing; the message lists
            them with their source and destination.

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
                f"data must be a pack, got {str(name)!r}: {folder.absolute()} does not exist."
                " Relative paths start in the current folder: change to the original folder, or"
                " pass an absolute path (--data)."
            )
        raise ValueError(
            f"data must be one of {', '.join(DATASETS)} or the folder of a pack, got {str(name)!r}."
        )
    if options:
        raise TypeError(f"options must be empty for a pack, got {', '.join(options)}.")
    return Pack.open(split_folder(folder, split))


def _opener(name: str) -> Callable[..., Pack]:
    def open_generated(
        root: Path, split: str, *, num_images: int | None = None, **options: Any
    ) -> Pack:
        data = generated_dataset(name, **options)
        count = DEFAULT_SIZES[split] if num_images is None else num_images
        folder = pack_folder(root, name, split, data.meta(split, count))
        return open_or_make(folder, lambda path: data.write(path, split, 0, count))

    return open_generated


def _rendered(module: str, function: str) -> Callable[..., Pack]:
    def open_rendered(root: Path, split: str, **options: Any) -> Pack:
        # Imported here because the renderers import this package.
        pack: Pack = getattr(importlib.import_module(module), function)(root, split, **options)
        return pack

    return open_rendered


#: Datasets by name:
#: "multi_dsprites", options num_images (50,000 for training, 10,000 otherwise) and those of
#: `genesis_rl.data.multi_dsprites.MultiDSpritesConfig`;
#: "object_goal", "object_interaction", "object_comparison" and "property_comparison", scenes of
#: `genesis_rl/ObjectGoal-v0` etc. with the agent (and movable objects) at random positions;
#: options num_images (50,000 for training, 10,000 otherwise), seed, and those of
#: `genesis_rl.worlds.sprites.ObjectGoalWorld` etc.;
#: "sprite_scenes", the published pretraining scenes of the relational tasks; options num_images,
#: seed, and those of `genesis_rl.data.sprite_scenes.FreeScenes`;
#: "rooms", views of rooms as in GQN; options num_images (50,000 for training, 10,000 otherwise) and
#: those of `genesis_rl.worlds.rooms.dataset.RoomScenes`;
#: "towers", rendered towers as in ShapeStacks, options
#: `genesis_rl.worlds.towers.record.open_towers`; "fetch", rendered scenes of multi-object Fetch,
#: options `genesis_rl.worlds.tabletop.dataset.open_fetch`; and
#: `genesis_rl.data.convert.ORIGINALS`, read from original files.
DATASETS: dict[str, Callable[..., Pack]] = {
    **{name: _opener(name) for name in GENERATED},
    "towers": _rendered("genesis_rl.worlds.towers.record", "open_towers"),
    "fetch": _rendered("genesis_rl.worlds.tabletop.dataset", "open_fetch"),
    **ORIGINALS,
}
