"""What a reader of an original data set offers to the converter."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Record(NamedTuple):
    """One image of a data set, as its files hold it.

    Attributes:
        image: (H, W, 3) uint8, at its original size or cut to the part that is used.
        mask: (H, W) uint8 instance labels, 0 = background; None if the data set has no masks.
        factors: ground truth by name, scalars and arrays; the same names and shapes in all records.
        name: which file, and which record of it, for messages.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    factors: Mapping[str, npt.ArrayLike]
    name: str


class DamagedRecord(ValueError):  # noqa: N818  (it takes a record's place before it is an error)
    """A record that cannot be used; tells which and why."""

    def __init__(self, name: str, reason: object) -> None:
        """Name the file (and the record of it) and what is wrong."""
        super().__init__(f"{name} is damaged: {reason}")


class Source(Protocol):
    """A split of an original data set.

    Making one must not need the files: a converted pack is found by `meta` when they are gone. One
    that leaves out hidden files has a property `hidden_files`, their number.
    """

    @property
    def meta(self) -> dict[str, Any]:
        """Everything that decides the content, as JSON data, with "dataset" and "split"."""
        ...

    @property
    def masks(self) -> bool:
        """Whether the records have masks."""
        ...

    def __len__(self) -> int:
        """How many records to expect, for the progress bar; at least one, need not be exact."""
        ...

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Read the records in an order that never changes, from number ``start`` on.

        A record that cannot be read counts like any other: the error is yielded, not raised, in
        its place, so that reading can go on behind it.

        Raises:
            FileNotFoundError: if files are missing; says which, where to get them and where they
                go.
        """
        ...


def missing(path: Path, origin: str, what: str = "") -> FileNotFoundError:
    """Say that an original file is not there.

    Args:
        path: where it was looked for.
        origin: address that it can be fetched from.
        what: further words, for example on how many files are missing.
    """
    return FileNotFoundError(
        f"{path} is missing{what}: fetch it from {origin}, or name the folder that holds the"
        " original files (option source)"
    )
