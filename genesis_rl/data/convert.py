"""Resumable conversion of original datasets to packs."""

import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import open_or_make
from genesis_rl.data.pack import Pack, ResumablePackWriter
from genesis_rl.perception.preprocessing import Preprocessing, Resize, as_nhwc_uint8, resize_labels
from genesis_rl.utils.log import ProgressBar

OnDamage = Literal["raise", "skip"]
_BATCH = 128  # records per write


class Record(NamedTuple):
    """One image of an original dataset.

    Attributes:
        image: (H, W, 3) uint8, original size or cropped to the used part.
        mask: (H, W) uint8 instance labels, 0 = background; None if the dataset has no masks.
        factors: ground truth by name, scalars and arrays; the same names and shapes in all records.
        name: file and record, for messages.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    factors: Mapping[str, npt.ArrayLike]
    name: str


class DamagedRecord(ValueError):  # noqa: N818  (readers yield it in place of a record)
    """A record that cannot be read; the message contains its name and the reason."""

    def __init__(self, name: str, reason: object) -> None:
        """Build the message from the file (and record) and the reason."""
        super().__init__(f"{name} is damaged: {reason}")


class RecordReader(Protocol):
    """Reader of a split of an original dataset.

    The constructor must not need the files: a converted pack is found by `meta` without them. A
    reader that skips hidden files has a property `hidden_files`, their number.
    """

    @property
    def meta(self) -> dict[str, Any]:
        """Settings that determine the content, as JSON data, with "dataset" and "split"."""
        ...

    @property
    def masks(self) -> bool:
        """Whether the records have masks."""
        ...

    def __len__(self) -> int:
        """Return the expected number of records, at least 1; an estimate for the progress bar."""
        ...

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the records in a fixed order, from number ``start`` on.

        The error of a damaged record is yielded in its place, not raised, and counts as a record.

        Raises:
            FileNotFoundError: if files are missing; the message contains the first one, its source
                and its destination.
        """
        ...


def missing_files(path: Path, origin: str, details: str = "") -> FileNotFoundError:
    """Return the error of a missing original file.

    Args:
        path: expected path.
        origin: address to download it from.
        details: appended to the message, for example the number of further missing files.
    """
    return FileNotFoundError(
        f"{path} is missing{details}: download it from {origin}, or set source to the folder of"
        " the original files"
    )


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
    Preprocessing(resize)  # validates it
    folder = Path(folder).expanduser()
    # As after reading: lists for tuples.
    key = json.loads(json.dumps({**reader.meta, "resize": resize, "limit": num_images}))

    def write(path: Path) -> None:
        _Conversion(reader, image_size, resize, num_images, on_damage).run(path, key)

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


class _Conversion:
    """One conversion of a split."""

    def __init__(
        self,
        reader: RecordReader,
        image_size: int,
        resize: Resize,
        num_images: int | None,
        on_damage: OnDamage,
    ) -> None:
        self.reader = reader
        self.image_size = image_size
        self.preprocessing = Preprocessing(resize)
        self.num_images = num_images
        self.on_damage = on_damage

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
