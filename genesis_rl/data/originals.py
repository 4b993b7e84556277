"""Registry of the readers of original files, whose datasets are converted to packs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from genesis_rl.data.cache import SPLITS, data_root, pack_folder
from genesis_rl.data.convert import OnDamage, RecordReader, convert
from genesis_rl.data.pack import Pack
from genesis_rl.data.readers.gqn import GqnRooms
from genesis_rl.data.readers.media import ImageFolder, VideoFolder
from genesis_rl.data.readers.multi_object import (
    ClevrWithMasks,
    MultiDSprites,
    ObjectsRoom,
    Tetrominoes,
)
from genesis_rl.data.readers.ocl_hdf5 import ObjectCentricHdf5
from genesis_rl.data.readers.shapestacks import ShapeStacks
from genesis_rl.perception.preprocessing import Resize
from genesis_rl.worlds.sprites import from_options

#: Readers of original datasets by name, with the default side of the images. A reader is a
#: dataclass with the fields `folder`, `split` and its own options.
READERS: dict[str, tuple[type[RecordReader], int]] = {
    "shapestacks": (ShapeStacks, 64),
    "gqn": (GqnRooms, 64),
    "multi_dsprites_dm": (MultiDSprites, 64),
    "objects_room": (ObjectsRoom, 64),
    "clevr_with_masks": (ClevrWithMasks, 128),
    "tetrominoes": (Tetrominoes, 32),
    "object_centric_library": (ObjectCentricHdf5, 64),
    "images": (ImageFolder, 64),
    "videos": (VideoFolder, 64),
}


def open_original(
    name: str,
    root: Path,
    split: str,
    *,
    source: str | Path | None = None,
    out: Path | None = None,
    image_size: int | None = None,
    resize: Resize = "stretch",
    num_images: int | None = None,
    on_damage: OnDamage = "raise",
    **options: Any,
) -> Pack:
    """Open a split of a dataset, converting it first if its pack does not exist.

    Args:
        name: one of `READERS`.
        root: folder of all datasets.
        split: "train", "validation" or "test".
        source: folder of the original files; None: <root>/<name>/original.
        out: folder of the pack; None: a folder below the root named after a hash of the settings.
        image_size: side of the images in pixels; None: the dataset's default.
        resize: see `genesis_rl.data.convert.convert`.
        num_images: largest number of images, the first ones; None: all.
        on_damage: "raise" or "skip".
        **options: options of the reader.

    Raises:
        TypeError: for an unknown option.
        ValueError, OSError: as `genesis_rl.data.convert.convert`.
    """
    kind, default_size = READERS[name]
    size = default_size if image_size is None else image_size
    source_path = None if source is None else Path(source).expanduser().resolve()
    folder = root / name / "original" if source_path is None else source_path
    if hasattr(kind, "image_size"):  # the reader resizes as its dataset prescribes
        options["image_size"] = size
    reader = from_options(kind, {"folder": folder, "split": split, **options})
    if out is None:
        # The default folder is not part of the key, so that the root can be moved.
        key = {**reader.meta, "source": source_path and str(source_path), "size": size}
        out = pack_folder(root, name, split, key | {"resize": resize, "limit": num_images})
    return convert(
        reader, out, image_size=size, resize=resize, num_images=num_images, on_damage=on_damage
    )


#: Functions that open the datasets, with the options of `open_original`.
ORIGINALS: dict[str, Callable[..., Pack]] = {name: partial(open_original, name) for name in READERS}


@dataclass(frozen=True)
class ConvertConfig:
    """Settings of a conversion."""

    data: str
    """name of the dataset"""
    out: Path | None = None
    """output folder with one pack per split, valid as `data` of open_dataset and training; None:
    the cache of open_dataset"""
    source: Path | None = None
    """folder of the original files; None: <root>/<data>/original with the root $GENESIS_RL_DATA or
    ~/.cache/genesis_rl"""
    split: Literal["all", "train", "validation", "test"] = "all"
    """splits to convert"""
    image_size: int | None = None
    """side of the images in pixels; None: the dataset's default"""
    resize: Resize = "stretch"
    """conversion to squares; "crop" and "letterbox" accept images of different sizes"""
    num_images: int | None = None
    """largest number of images per split, the first ones; None: all"""
    skip_damaged: bool = False
    """skip and count unreadable records instead of stopping"""
    data_options: str = "{}"
    """options of the dataset as JSON, e.g. '{"variant": "six_objects"}'"""

    def __post_init__(self) -> None:
        """Validate the dataset and its options; the other values are validated at their use."""
        if self.data not in READERS:
            raise ValueError(f"data must be one of {', '.join(READERS)}, got {self.data!r}.")
        parse_options(self.data_options)


def convert_splits(config: ConvertConfig) -> dict[str, Pack]:
    """Convert the splits of a dataset that do not exist yet.

    Returns:
        The packs by split.

    Raises:
        ValueError, TypeError, OSError: as `open_original`.
    """
    packs = {}
    options = parse_options(config.data_options)
    for split in SPLITS if config.split == "all" else (config.split,):
        packs[split] = open_original(
            config.data,
            data_root(),
            split,
            source=config.source,
            out=None if config.out is None else config.out / split,
            image_size=config.image_size,
            resize=config.resize,
            num_images=config.num_images,
            on_damage="skip" if config.skip_damaged else "raise",
            **options,
        )
    return packs


def parse_options(text: str) -> dict[str, Any]:
    """Parse a dataset's options from JSON.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"data_options must be JSON, got {text!r}: {error}.") from error
    if not isinstance(options, dict):
        raise ValueError(f"data_options must be a JSON object, got {text!r}.")
    return cast("dict[str, Any]", options)
