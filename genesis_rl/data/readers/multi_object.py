"""Readers of DeepMind's Multi-Object Datasets (Kabra et al., 2019): images, masks and factors.

Each dataset is one gzip-compressed TFRecord file. Instance labels are 0 for the background (in
Objects Room sky, floor and the two parts of the wall), then 1, 2, ... for the objects in the file's
order; later objects occlude earlier ones. Factors have one row per object, label 1 first, with the
file's names except `colour` and `angle`, plus `count`, the number of visible objects.

Splits are those of the GENESIS paper's code: the first 10,000 records are the test split, the next
10,000 validation, the rest training. The paper uses 60,000 records of Multi-dSprites, i.e.
`num_images=40_000` for training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.readers import DamagedRecord, FileReader, Record, missing_files
from genesis_rl.data.readers.tfrecord import (
    Example,
    Payload,
    floats,
    parse_example,
    pixels,
    read_records,
)
from genesis_rl.perception.preprocessing import as_nhwc_uint8
from genesis_rl.utils.checks import Count

_ORIGIN = "gs://multi-object-datasets"
_RENAMED = {"color": "colour", "orientation": "angle"}


class Format(NamedTuple):
    """Layout of a file.

    Attributes:
        file: path in the bucket.
        shape: shape of the images, (H, W, C).
        entities: masks per image, background first.
        backgrounds: number of background masks.
        records: number of records, for the progress bar.
        floats: features of float32, with the number of values per entity.
        codes: features of one byte per entity.
        entities_third: masks are (H, W, entities, 1), not (entities, H, W, 1).
        crop: side of the central square that is used.
        test_only: all records are the test split.
    """

    file: str
    shape: tuple[int, int, int]
    entities: int
    backgrounds: int = 1
    records: int = 1_000_000
    floats: tuple[tuple[str, int], ...] = ()
    codes: tuple[str, ...] = ()
    entities_third: bool = False
    crop: int | None = None
    test_only: bool = False


@dataclass(frozen=True)
class _MultiObject(FileReader):
    folder: Path
    """folder of the file, or of the bucket's content"""
    variant: str = "train"
    """variant of the dataset"""
    held_out: Count = 10_000
    """number of records in each of the test and validation splits"""

    _formats: ClassVar[dict[str, Format]]

    def __post_init__(self) -> None:
        """Validate values."""
        super().__post_init__()
        if self.variant not in self._formats:
            raise ValueError(
                f"variant must be one of {', '.join(self._formats)}, got {self.variant!r}."
            )
        if self._format.test_only and self.split != "test":
            raise ValueError(
                f"split must be 'test' for variant {self.variant!r}, got {self.split!r}."
            )

    def __len__(self) -> int:
        """Return the expected number of records."""
        first, last = self._range
        return max(1, (self._format.records if last is None else last) - first)

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the records from number ``start`` on.

        Raises:
            FileNotFoundError: if the file is missing.
        """
        file = Path(self._format.file)
        candidates = [self.folder / file.name, self.folder / file]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise missing_files(candidates[0], f"{_ORIGIN}/{file}")
        first, last = self._range
        left = None if last is None else max(0, last - first - start)
        for payload in islice(read_records([path], first + start), left):
            yield payload if isinstance(payload, DamagedRecord) else self._record(payload)

    @property
    def _format(self) -> Format:
        return self._formats[self.variant]

    @property
    def _range(self) -> tuple[int, int | None]:
        n = self.held_out
        if self._format.test_only:
            return 0, None
        return {"test": (0, n), "validation": (n, 2 * n), "train": (2 * n, None)}[self.split]

    def _record(self, payload: Payload) -> Record | DamagedRecord:
        form = self._format
        height, width, _ = form.shape
        try:
            example = parse_example(payload.data)
            image = as_nhwc_uint8(pixels(example, "image", form.shape), layout="HWC")[0]
            if form.entities_third:
                masks = pixels(example, "mask", (height, width, form.entities))
                masks = masks.transpose(2, 0, 1)
            else:
                masks = pixels(example, "mask", (form.entities, height, width))
            factors = self._factors(example)
        except ValueError as error:
            return DamagedRecord(payload.name, error)
        labels = np.zeros((height, width), np.uint8)
        for label, mask in enumerate(masks[form.backgrounds :], start=1):
            labels[mask > 0] = label
        square = _centre(height, width, form.crop)
        return Record(image[square], labels[square], factors, payload.name)

    def _factors(self, example: Example) -> dict[str, npt.NDArray[Any]]:
        form = self._format
        factors: dict[str, npt.NDArray[Any]] = {
            name: floats(example, name, (form.entities, size)) for name, size in form.floats
        }
        factors |= {name: pixels(example, name, (form.entities, 1)) for name in form.codes}
        objects = {
            _RENAMED.get(name, name): values[form.backgrounds :].squeeze(1)
            if values.shape[1] == 1
            else values[form.backgrounds :]
            for name, values in factors.items()
        }
        if "visibility" in objects:
            objects["count"] = np.array((objects["visibility"] > 0).sum(), np.uint8)
        return objects


def _centre(height: int, width: int, side: int | None) -> tuple[slice, slice]:
    """Return the slices of the central square of an image, or of the whole image."""
    if side is None:
        return slice(None), slice(None)
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side)


def _multi_dsprites(variant: str, entities: int, channels: int) -> Format:
    scalars = ("x", "y", "shape", "visibility", "orientation", "scale")
    return Format(
        f"multi_dsprites/multi_dsprites_{variant}.tfrecords",
        (64, 64, channels),
        entities,
        floats=(*((name, 1) for name in scalars), ("color", channels)),
        entities_third=True,
    )


@dataclass(frozen=True)
class MultiDSprites(_MultiObject):
    """Multi-dSprites: 1 to 4, 2 to 5 (on a grey background) or 2 to 3 (white on black) sprites."""

    variant: str = "colored_on_colored"
    """colored_on_colored, colored_on_grayscale or binarized"""

    name = "multi_dsprites_dm"
    _formats: ClassVar = {
        variant: _multi_dsprites(variant, entities, channels)
        for variant, entities, channels in (
            ("colored_on_colored", 5, 3),
            ("colored_on_grayscale", 6, 3),
            ("binarized", 4, 1),
        )
    }


def _room(file: str, entities: int, **options: Any) -> Format:
    return Format(f"objects_room/{file}.tfrecords", (64, 64, 3), entities, 4, **options)


@dataclass(frozen=True)
class ObjectsRoom(_MultiObject):
    """Objects Room: up to 3 objects in a room, indoor views."""

    variant: str = "train"
    """train, or the test sets empty_room, six_objects and identical_color"""

    name = "objects_room"
    _formats: ClassVar = {
        "train": _room("objects_room_train", 7),
        **{
            variant: _room(f"objects_room_test_{variant}", entities, records=922, test_only=True)
            for variant, entities in (
                ("empty_room", 4),
                ("six_objects", 10),
                ("identical_color", 10),
            )
        },
    }


@dataclass(frozen=True)
class ClevrWithMasks(_MultiObject):
    """CLEVR with masks: up to 10 objects; the central 192 x 192 of 240 x 320 pixels."""

    name = "clevr_with_masks"
    _formats: ClassVar = {
        "train": Format(
            "clevr_with_masks/clevr_with_masks_train.tfrecords",
            (240, 320, 3),
            11,
            records=100_000,
            floats=(
                *((name, 1) for name in ("x", "y", "z", "rotation", "visibility")),
                ("pixel_coords", 3),
            ),
            codes=("size", "material", "shape", "color"),
            crop=192,
        )
    }


@dataclass(frozen=True)
class Tetrominoes(_MultiObject):
    """Tetrominoes: 3 pieces of 17 shapes and 6 colours on 35 x 35 pixels."""

    name = "tetrominoes"
    _formats: ClassVar = {
        "train": Format(
            "tetrominoes/tetrominoes_train.tfrecords",
            (35, 35, 3),
            4,
            floats=(*((name, 1) for name in ("x", "y", "shape", "visibility")), ("color", 3)),
        )
    }
