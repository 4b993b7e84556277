"""Readers of the files of original datasets: their records, their protocol and their base."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import Split
from genesis_rl.utils.checks import Checked


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


@dataclass(frozen=True)
class FileReader(Checked):
    """Base of readers of a folder of files; a subclass defines ``name`` and the records."""

    folder: Path
    """folder of the files"""
    split: Split
    """train, validation or test"""

    name: ClassVar[str]

    @property
    def meta(self) -> dict[str, Any]:
        """Name and options of the dataset, which determine the content."""
        omitted = ("folder", "image_size")  # not part of the content
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in omitted}
        return {"dataset": self.name, **options}

    @property
    def masks(self) -> bool:
        """Whether the records have masks."""
        return True


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
