"""Safe reading of HDF5 files, and the reader of the object-centric library's.

HDF5 follows references: external links and virtual datasets read other HDF5 files, external storage
reads any byte range of any file of the machine. Only self-contained files are opened here.

A file `<name>-full.hdf5` of the object-centric library (Dittadi et al., ICML 2022,
arXiv:2107.00637) has arrays of one row per image:

- `image`: (N, H, W, 3) uint8,
- `mask`: (N, H, W, 1) integers, the entity of every pixel, background first,
- `num_actual_objects`: (N, 1), `visibility` and further features: (N, E, ...), E entities.

Other numeric arrays with one row per image become factors, with num_actual_objects renamed to
`count` and color to `colour`. Rows of the background are removed from arrays with one row per
entity, so that row i belongs to label i + 1. Entities above 255 are renumbered, see
`genesis_rl.perception.preprocessing.as_labels`. The file `<name>-metadata.npy` is a pickle and
never opened.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from genesis_rl.data.readers import DamagedRecord, FileReader, Record, missing_files
from genesis_rl.perception.preprocessing import as_labels, as_nhwc_uint8
from genesis_rl.utils.checks import Count, one_of
from genesis_rl.utils.extras import require

_ORIGIN = "https://data-download.compute.dtu.dk/multi_object_datasets"
_BLOCK = 256  # rows per read
_LARGEST_ROW = 2**24  # bytes; rows of the library's files have less than a tenth
_RENAMED = {"color": "colour", "num_actual_objects": "count"}
_HELD_OUT = 5000  # images in each of validation and test, after the training images

#: Files by dataset, with the number of training images and of background entities.
FILES = {
    "clevr": ("clevr_10", 90_000, 1),
    "clevrtex": ("clevrtex", 40_000, 1),
    "multidsprites": ("multidsprites_colored_on_grayscale", 90_000, 1),
    "objects_room": ("objects_room_train", 90_000, 4),
    "shapestacks": ("shapestacks", 90_000, 1),
    "tetrominoes": ("tetrominoes", 90_000, 1),
}


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading if it is self-contained.

    Args:
        path: path of the file.

    Yields:
        The `h5py.File`.

    Raises:
        ValueError: if the file refers to another one; the message contains the entry.
        OSError: if it is not an HDF5 file or is truncated.
    """
    h5py = require("h5py")

    with h5py.File(path, "r") as file:
        try:
            _check_links(path, file)
        except (KeyError, RuntimeError) as error:  # raised by h5py for damaged files
            raise OSError(f"its entries cannot be read ({error})") from error
        yield file


def check_hdf5(path: Path) -> None:
    """Validate that an HDF5 file is self-contained; raises as `open_hdf5`."""
    with open_hdf5(path):
        pass


def _check_links(path: Path, file: Any) -> None:
    h5py = require("h5py")

    external: list[str] = []

    def check(name: bytes, info: Any) -> None:
        text = name.decode(errors="replace")
        if info.type == h5py.h5l.TYPE_SOFT:
            return  # a soft link stays within the file, and its target is checked separately
        if info.type != h5py.h5l.TYPE_HARD:
            external.append(f"{text} (an external link)")
            return
        item = file[name]
        if isinstance(item, h5py.Dataset) and item.external:
            external.append(f"{text} (stored in {item.external[0][0]})")
        elif isinstance(item, h5py.Dataset) and item.is_virtual:
            external.append(f"{text} (a virtual dataset)")

    file.id.links.visit(check, info=True)
    if external:
        raise ValueError(
            f"{path} must be self-contained, got entries that refer to other files: "
            f"{', '.join(external[:3])}. Copy them into the file, for example with h5repack."
        )


@dataclass(frozen=True)
class ObjectCentricHdf5(FileReader):
    """A dataset of the object-centric library."""

    data: Annotated[str, one_of(FILES)] = "clevr"
    """clevr, clevrtex, multidsprites, objects_room, shapestacks or tetrominoes"""
    num_train: Count | None = None
    """number of training images, followed in the file by 5,000 each for validation and test; None:
    90,000 (CLEVRTEX 40,000)"""

    name = "object_centric_library"

    def __len__(self) -> int:
        """Return the number of images of the split."""
        return len(self._range)

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the images from number ``start`` on.

        Raises:
            FileNotFoundError: if the file is missing.
            ValueError: if it refers to other files.
        """
        h5py = require("h5py")

        name = f"{FILES[self.data][0]}-full.hdf5"
        path = self.folder / name
        if not path.is_file():
            raise missing_files(path, f"{_ORIGIN}/{name}")
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open_hdf5(path))
            except OSError as error:  # not HDF5, or truncated
                yield DamagedRecord(str(path), error)
                return
            try:
                arrays = {
                    name: array
                    for name, array in file.items()
                    if isinstance(array, h5py.Dataset) and array.dtype.kind in "buif"
                }
                count = len(arrays["image"])
                arrays = {name: a for name, a in arrays.items() if a.shape[:1] == (count,)}
                if "mask" not in arrays:
                    raise KeyError(f"no mask of {count} rows")
                size = sum(
                    prod(array.shape[1:]) * array.dtype.itemsize for array in arrays.values()
                )
                if size > _LARGEST_ROW:
                    raise TypeError(f"an image and its factors have {size:,} bytes")
            except (OSError, RuntimeError, KeyError, TypeError) as error:
                yield DamagedRecord(str(path), f"its arrays cannot be read ({error})")
                return
            yield from self._read(path, arrays, self._range[start:])

    @property
    def _range(self) -> range:
        n = FILES[self.data][1] if self.num_train is None else self.num_train
        starts = {"train": 0, "validation": n, "test": n + _HELD_OUT}
        first = starts[self.split]
        return range(first, first + (n if self.split == "train" else _HELD_OUT))

    def _read(
        self, path: Path, arrays: dict[str, Any], rows: range
    ) -> Iterator[Record | DamagedRecord]:
        rows = rows[: max(0, len(arrays["image"]) - rows.start)]
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            try:
                values = _rows(arrays, block.start, block.stop)
            except (OSError, RuntimeError):  # find the damaged row
                for row in block:
                    yield self._try_row(path, arrays, row)
            else:
                for position, row in enumerate(block):
                    yield self._record(path, row, {n: v[position] for n, v in values.items()})

    def _try_row(self, path: Path, arrays: dict[str, Any], row: int) -> Record | DamagedRecord:
        try:
            values = _rows(arrays, row, row + 1)
        except (OSError, RuntimeError) as error:
            return DamagedRecord(f"{path}, record {row}", error)
        return self._record(path, row, {name: value[0] for name, value in values.items()})

    def _record(
        self, path: Path, row: int, values: dict[str, npt.NDArray[Any]]
    ) -> Record | DamagedRecord:
        backgrounds = FILES[self.data][2]
        name = f"{path}, record {row}"
        count = values["visibility"].shape[0] if "visibility" in values else 0
        try:
            # The white level of float images cannot be inferred from one record.
            image = as_nhwc_uint8(values.pop("image"), layout="HWC", white=1)[0]
            height, width = image.shape[:2]
            ids = values.pop("mask").reshape(height, width)
            if ids.dtype.kind in "ub":
                ids = ids.astype(np.int64)
            objects = np.where(ids < 0, ids, (ids - (backgrounds - 1)).clip(min=0))
            labels = as_labels(objects, num_rows=count - backgrounds + 1)
        except (TypeError, ValueError) as error:
            return DamagedRecord(name, error)
        factors = {
            _RENAMED.get(key, key): _scalar(
                value[backgrounds:] if value.ndim and len(value) == count > 1 else value
            )
            for key, value in values.items()
        }
        return Record(image, labels, factors, name)


def _rows(arrays: dict[str, Any], first: int, last: int) -> dict[str, npt.NDArray[Any]]:
    return {name: np.asarray(array[first:last]) for name, array in arrays.items()}


def _scalar(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Remove a last axis of length 1."""
    return value[..., 0] if value.ndim and value.shape[-1] == 1 else value
