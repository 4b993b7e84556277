"""Safe reading of untrusted HDF5 files.

HDF5 follows references: external links and virtual datasets read other HDF5 files, external storage
reads any byte range of any file of the machine. Only self-contained files are opened here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genesis_rl.utils.extras import require


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
