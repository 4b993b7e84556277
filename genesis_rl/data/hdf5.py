"""HDF5 files that refer to nothing outside of themselves.

HDF5 reads whatever a file refers to: external links and virtual data sets name other HDF5 files,
external storage any byte range of any file of the machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading, after checking that it is self-contained.

    Args:
        path: the file.

    Yields:
        The `h5py.File`.

    Raises:
        ValueError: if the file refers to another one, naming the entry and what it refers to.
        OSError: if it is no HDF5 file or cut short.
    """
    import h5py

    with h5py.File(path, "r") as file:
        try:
            _check_links(path, file)
        except (KeyError, RuntimeError) as error:  # what h5py raises for damage
            raise OSError(f"its entries cannot be read ({error})") from error
        yield file


def check_hdf5(path: Path) -> None:
    """Check that an HDF5 file that another library will read is self-contained; errors as above."""
    with open_hdf5(path):
        pass


def _check_links(path: Path, file: Any) -> None:
    import h5py

    found: list[str] = []

    def check(name: bytes, info: Any) -> None:
        text = name.decode(errors="replace")
        if info.type == h5py.h5l.TYPE_SOFT:
            return  # a soft link stays within the file, and what it names is checked by itself
        if info.type != h5py.h5l.TYPE_HARD:
            found.append(f"{text} (an external link)")
            return
        item = file[name]
        if isinstance(item, h5py.Dataset) and item.external:
            found.append(f"{text} (stored in {item.external[0][0]})")
        elif isinstance(item, h5py.Dataset) and item.is_virtual:
            found.append(f"{text} (a virtual data set)")

    file.id.links.visit(check, info=True)
    if found:
        raise ValueError(
            f"{path} must hold its own data, got entries that refer to other files: "
            f"{', '.join(found[:3])}; copy them into the file, for example by h5repack."
        )
