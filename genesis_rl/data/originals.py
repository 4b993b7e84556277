"""Data sets that are read from their original files, converted to packs once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from genesis_rl.data.cache import SPLITS, data_root, pack_folder
from genesis_rl.data.convert import OnDamage, convert
from genesis_rl.data.gqn import GqnRooms
from genesis_rl.data.media import ImageFolder, VideoFolder
from genesis_rl.data.multi_object import ClevrWithMasks, MultiDSprites, ObjectsRoom, Tetrominoes
from genesis_rl.data.ocl_hdf5 import ObjectCentricHdf5
from genesis_rl.data.pack import Pack
from genesis_rl.data.shapestacks import ShapeStacks
from genesis_rl.data.sources import Source
from genesis_rl.frames import Resize
from genesis_rl.worlds import from_options

#: Readers of original data sets by name, with the side of the images by default. A reader is a
#: dataclass that is made of `folder`, `split` and its own options.
READERS: dict[str, tuple[type[Source], int]] = {
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
    """Open a split of a data set, converting it first if its pack is not there.

    Args:
        name: one of `READERS`.
        root: folder of all data sets.
        split: "train", "validation" or "test".
        source: folder of the original files; None: <root>/<name>/original.
        out: folder of the pack; None: one below the root, named after everything that decides the
            content.
        image_size: side of the images in pixels; None: the data set's usual one.
        resize: see `genesis_rl.data.convert.convert`, which also tells the errors.
        num_images: at most this many, the first ones; None: all.
        on_damage: "raise" or "skip".
        **options: the reader's own.

    Raises:
        TypeError: for an option that the reader does not have.
    """
    kind, usual_size = READERS[name]
    size = usual_size if image_size is None else image_size
    place = None if source is None else Path(source).expanduser().resolve()
    folder = root / name / "original" if place is None else place
    if hasattr(kind, "image_size"):  # a reader that resizes by the data set's own rule
        options["image_size"] = size
    reader = from_options(kind, {"folder": folder, "split": split, **options})
    if out is None:
        # The default place is not part of the key, so that the root may be moved.
        key = {**reader.meta, "source": place and str(place), "size": size}
        out = pack_folder(root, name, split, key | {"resize": resize, "limit": num_images})
    return convert(
        reader, out, image_size=size, resize=resize, num_images=num_images, on_damage=on_damage
    )


#: Functions that open the data sets, for `genesis_rl.data.DATASETS`; options as `open_original`.
ORIGINALS: dict[str, Callable[..., Pack]] = {name: partial(open_original, name) for name in READERS}


@dataclass(frozen=True)
class ConvertConfig:
    """What to convert, and where to."""

    data: str
    """name of the data set, as open_dataset takes it"""
    out: Path | None = None
    """folder for the packs, one per split, which open_dataset and training take as data; None: in
    the root, where open_dataset looks when it is asked for the same"""
    source: Path | None = None
    """folder of the original files; None: <root>/<data>/original, the root being $GENESIS_RL_DATA
    or ~/.cache/genesis_rl"""
    split: Literal["all", "train", "validation", "test"] = "all"
    """which of the splits"""
    image_size: int | None = None
    """side of the images in pixels; None: the data set's usual one"""
    resize: Resize = "stretch"
    """how images that are no squares become squares; "crop" and "letterbox" take mixed sizes"""
    num_images: int | None = None
    """at most this many images per split, the first ones"""
    skip_damaged: bool = False
    """leave out records that cannot be read instead of stopping, and count them"""
    data_options: str = "{}"
    """the data set's own options as JSON, e.g. '{"variant": "six_objects"}'"""

    def __post_init__(self) -> None:
        """Check values; the others are checked where they are used."""
        if self.data not in READERS:
            raise ValueError(f"data is {self.data!r}; wanted one of {', '.join(READERS)}.")
        parse_options(self.data_options)


def convert_splits(config: ConvertConfig) -> dict[str, Pack]:
    """Convert the splits of a data set, those that are there already excepted.

    Returns:
        The packs by split.

    Raises:
        ValueError, TypeError, OSError: as `genesis_rl.data.convert.convert` and the reader do.
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
    """Read a data set's options from JSON.

    Raises:
        ValueError: if the text is no JSON object.
    """
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"data_options is {text!r}, which is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"data_options is {text!r}; wanted a JSON object.")
    return cast("dict[str, Any]", options)
