"""Conversion of original datasets to packs, resumable, and the registry of their readers."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from genesis_rl.data.cache import SPLITS, data_root, open_or_make, pack_folder
from genesis_rl.data.pack import Pack, ResumablePackWriter
from genesis_rl.data.readers import DamagedRecord, Record, RecordReader
from genesis_rl.data.readers.gqn import GqnRooms
from genesis_rl.data.readers.hdf5 import ObjectCentricHdf5
from genesis_rl.data.readers.media import ImageFolder, VideoFolder
from genesis_rl.data.readers.multi_object import (
    ClevrWithMasks,
    MultiDSprites,
    ObjectsRoom,
    Tetrominoes,
)
from genesis_rl.data.readers.shapestacks import ShapeStacks
from genesis_rl.perception.preprocessing import Preprocessing, Resize, as_nhwc_uint8, resize_labels
from genesis_rl.utils.checks import parse_object
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.sprites import from_options

OnDamage = Literal["raise", "skip"]
_BATCH = 128  # records per write
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


def convert(
    reader: RecordReader,
    folder: str | os.PathLike[str],
    *,
    image_size: int,
    resize: Resize = "stretch",
    num_images: int | None = None,
    on_damage: OnDamage = "raise",
) -> Pack:
    """Convert a split of an original dataset to a pack, or open the pack if it exists.

    An interrupted conversion leaves a private folder, `.<name>.genesis_rl`, next to the pack's
    folder and is resumed by the next call. meta.json contains the reader's meta, the number of
    skipped records ("damaged") and of skipped hidden files ("hidden").

    Args:
        reader: reader of the split.
        folder: the pack's folder.
        image_size: side of the images in pixels. Images are downsampled by area averaging, masks by
            nearest neighbour.
        resize: conversion of other shapes to a square, see
            `genesis_rl.perception.preprocessing.Preprocessing`. With "stretch" and "none" all
            images must have one size.
        num_images: largest number of images, the first ones; None: all.
        on_damage: "raise" stops at an unreadable record, "skip" skips it.

    Returns:
        The pack.

    Raises:
        DamagedRecord: for an unreadable record; a ValueError with file and record.
        ValueError: for an invalid argument, if no record could be read, or if the folder contains a
            different pack, or one with skipped records while ``on_damage`` is "raise".
        OSError: if original files are missing or the pack cannot be written.
    """
    if on_damage not in get_args(OnDamage):
        raise ValueError(f"on_damage must be one of {get_args(OnDamage)}, got {on_damage!r}.")
    for name, value in (("image_size", image_size), ("num_images", num_images)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    preprocessing = Preprocessing(resize)
    folder = Path(folder).expanduser()
    # As after reading: lists for tuples.
    key = json.loads(json.dumps({**reader.meta, "resize": resize, "limit": num_images}))

    def write(path: Path) -> None:
        _Conversion(reader, image_size, preprocessing, num_images, on_damage).run(path, key)

    pack = open_or_make(folder, write)
    stored = {**{name: pack.meta.get(name) for name in key}, "image_size": pack.meta["image_size"]}
    for name, value in {**key, "image_size": [image_size, image_size]}.items():
        if stored[name] != value:
            raise ValueError(f"{name} of {folder} must be {value!r}, got {stored[name]!r}.")
    _check_damage(pack.meta, on_damage, folder)
    return pack


def _check_damage(state: dict[str, Any], on_damage: OnDamage, folder: Path) -> None:
    damaged = state.get("damaged", 0)
    if damaged and on_damage == "raise":
        raise ValueError(
            f"{folder} was created with {damaged} damaged records skipped: delete it and replace"
            ' the original files, or accept it with on_damage="skip"'
        )


@dataclass(frozen=True)
class _Conversion:
    """One conversion of a split."""

    reader: RecordReader
    image_size: int
    preprocessing: Preprocessing
    num_images: int | None
    on_damage: OnDamage

    def run(self, folder: Path, key: dict[str, Any]) -> None:
        """Write the pack."""
        masks, size = self.reader.masks, self.image_size
        writer = ResumablePackWriter(folder, None, size, masks=masks, meta=key)
        total = min(len(self.reader), self.num_images or len(self.reader))
        about = f"{key['dataset']}, {key['split']}"
        with writer, ProgressBar(total=total, desc=about, unit="img") as bar:
            state = writer.state
            _check_damage(state, self.on_damage, folder)
            state.setdefault("read", 0)
            state.setdefault("damaged", 0)
            bar.update(writer.written)
            left = None if self.num_images is None else self.num_images - writer.written
            records = islice(self._valid(state), left)
            while batch := list(islice(records, _BATCH)):
                self._write(writer, batch)
                bar.update(len(batch))
                writer.checkpoint_regularly()
            if not writer.written:
                raise ValueError(
                    f"no image of {about} can be read, {state['damaged']} records are damaged"
                )
            writer.meta["damaged"] = state["damaged"]
            writer.meta["hidden"] = getattr(self.reader, "hidden_files", 0)

    def _valid(self, state: dict[str, Any]) -> Iterator[Record]:
        """Yield the valid records and count the damaged ones."""
        for record in self.reader.records(state["read"]):
            checked = record if isinstance(record, DamagedRecord) else self._check(record, state)
            state["read"] += 1
            if not isinstance(checked, DamagedRecord):
                yield checked
            elif self.on_damage == "raise":
                raise checked
            else:
                state["damaged"] += 1

    def _check(self, record: Record, state: dict[str, Any]) -> Record | DamagedRecord:
        """Return the record, or its error."""
        height, width = record.image.shape[:2]
        resize = self.preprocessing.resize
        first = state.setdefault("size", [height, width])
        if resize in ("stretch", "none") and [height, width] != first:
            reason = (
                f"{height} x {width} pixels, but the first image has {first[0]} x {first[1]};"
                ' resize="crop" and "letterbox" accept images of different sizes'
            )
            return DamagedRecord(record.name, reason)
        self.preprocessing.check(height, width, self.image_size)
        if record.mask is not None and record.mask.shape != (height, width):
            reason = f"its mask has shape {record.mask.shape}, its image {(height, width)}"
            return DamagedRecord(record.name, reason)
        return record

    def _write(self, writer: ResumablePackWriter, batch: list[Record]) -> None:
        size, preprocessing = self.image_size, self.preprocessing
        images = [
            as_nhwc_uint8(record.image, layout="HWC", image_size=size, preprocessing=preprocessing)
            for record in batch
        ]
        masks = [
            resize_labels(record.mask, size, preprocessing)
            for record in batch
            if record.mask is not None
        ]
        factors = {
            name: np.stack([np.asarray(record.factors[name]) for record in batch])
            for name in batch[0].factors
        }
        writer.write(np.concatenate(images), np.stack(masks) if masks else None, **factors)


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
    return parse_object("data_options", text)
