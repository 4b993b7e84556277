"""Original data sets to packs: once, with a progress bar, going on after a kill."""

import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from genesis_rl.data.cache import open_or_make
from genesis_rl.data.pack import Pack
from genesis_rl.data.resume import ResumablePackWriter
from genesis_rl.data.sources import DamagedRecord, Record, Source
from genesis_rl.frames import Preprocessing, Resize, as_nhwc_uint8, resize_labels

OnDamage = Literal["raise", "skip"]

_BATCH = 128  # records that are written at once
_CHECKPOINT_SECONDS = 10.0


def convert(
    source: Source,
    folder: str | os.PathLike[str],
    *,
    image_size: int,
    resize: Resize = "stretch",
    num_images: int | None = None,
    on_damage: OnDamage = "raise",
) -> Pack:
    """Write a split of an original data set as a pack, or open the pack if it is there already.

    An interrupted conversion leaves a private folder, `.<name>.genesis_rl`, beside the folder; the
    next one goes on with it. meta.json has the source's meta and, under "damaged", how many records
    were left out.

    Args:
        source: what to read.
        folder: the pack's folder.
        image_size: side of the images in pixels. Images shrink by averaging areas, masks take the
            nearest pixel.
        resize: how other shapes come to a square, see `genesis_rl.frames.Preprocessing`. With
            "stretch" and "none" all images must have one size.
        num_images: at most this many, the first ones; None: all.
        on_damage: "raise" stops at a record that cannot be read, "skip" leaves it out.

    Returns:
        The pack.

    Raises:
        DamagedRecord: for a record that cannot be used, a ValueError that names file and record.
        ValueError: for a bad argument, if no record could be read, or if the folder holds a pack of
            something else or one from which damaged records were left out while ``on_damage`` is
            "raise".
        OSError: if original files are missing or the pack cannot be written.
    """
    if on_damage not in get_args(OnDamage):
        raise ValueError(f"on_damage is {on_damage!r}; wanted one of {get_args(OnDamage)}.")
    for name, value in (("image_size", image_size), ("num_images", num_images)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1.")
    Preprocessing(resize)  # checks it
    folder = Path(folder).expanduser()
    # As it will be read: lists for tuples.
    key = json.loads(json.dumps({**source.meta, "resize": resize, "limit": num_images}))

    def write(path: Path) -> None:
        _Conversion(source, image_size, resize, num_images, on_damage).run(path, key)

    pack = open_or_make(folder, write)
    found = {**{name: pack.meta.get(name) for name in key}, "image_size": pack.meta["image_size"]}
    for name, value in {**key, "image_size": [image_size, image_size]}.items():
        if found[name] != value:
            raise ValueError(
                f"{folder} holds another pack: its {name} is {found[name]!r}, wanted {value!r}"
            )
    _check_damage(pack.meta, on_damage, folder)
    return pack


def _check_damage(state: dict[str, Any], on_damage: OnDamage, folder: Path) -> None:
    damaged = state.get("damaged", 0)
    if damaged and on_damage == "raise":
        raise ValueError(
            f"{folder} was made without {damaged} damaged records: delete it and replace the"
            ' original files, or accept it with on_damage="skip"'
        )


class _Conversion:
    """One run from a source to a pack."""

    def __init__(
        self,
        source: Source,
        image_size: int,
        resize: Resize,
        num_images: int | None,
        on_damage: OnDamage,
    ) -> None:
        self.source = source
        self.image_size = image_size
        self.preprocessing = Preprocessing(resize)
        self.num_images = num_images
        self.on_damage = on_damage

    def run(self, folder: Path, key: dict[str, Any]) -> None:
        """Write the pack."""
        masks, size = self.source.masks, self.image_size
        writer = ResumablePackWriter(folder, None, size, masks=masks, meta=key)
        total = min(len(self.source), self.num_images or len(self.source))
        about = f"{key['dataset']}, {key['split']}"
        with writer, tqdm(total=total, desc=about, unit="img", disable=None) as bar:
            state = writer.state
            _check_damage(state, self.on_damage, folder)
            state.setdefault("read", 0)
            state.setdefault("damaged", 0)
            bar.update(writer.written)
            saved = time.monotonic()
            left = None if self.num_images is None else self.num_images - writer.written
            records = islice(self._sound(state), left)
            while batch := list(islice(records, _BATCH)):
                self._write(writer, batch)
                bar.update(len(batch))
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    writer.checkpoint()
                    saved = time.monotonic()
            if not writer.written:
                raise ValueError(
                    f"no image in {about} can be read, {state['damaged']} records are damaged"
                )
            writer.meta["damaged"] = state["damaged"]

    def _sound(self, state: dict[str, Any]) -> Iterator[Record]:
        """The records that can be used, counting those that cannot."""
        for record in self.source.records(state["read"]):
            sound = record if isinstance(record, DamagedRecord) else self._check(record, state)
            state["read"] += 1
            if not isinstance(sound, DamagedRecord):
                yield sound
            elif self.on_damage == "raise":
                raise sound
            else:
                state["damaged"] += 1

    def _check(self, record: Record, state: dict[str, Any]) -> Record | DamagedRecord:
        """The record, or what keeps it out of the pack."""
        height, width = record.image.shape[:2]
        how = self.preprocessing.resize
        first = state.setdefault("size", [height, width])
        if how in ("stretch", "none") and [height, width] != first:
            reason = (
                f"{height} x {width} pixels, but the first image has {first[0]} x {first[1]};"
                ' resize="crop" or "letterbox" takes images of different sizes'
            )
            return DamagedRecord(record.name, reason)
        self.preprocessing.check(height, width, self.image_size)
        if record.mask is not None and record.mask.shape != (height, width):
            reason = f"its mask has {record.mask.shape} pixels, its image {(height, width)}"
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
