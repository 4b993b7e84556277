"""Cache of datasets, safe for concurrent processes."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from genesis_rl.data.pack import Pack
from genesis_rl.utils.checks import one_of
from genesis_rl.utils.files import private_folder
from genesis_rl.utils.process import check_main_guard

SPLITS = ("train", "validation", "test")
Split = Annotated[str, one_of(SPLITS)]

_RENDERER = 1  # incremented when the same options render different pixels: invalidates old packs


def check_split(split: str) -> None:
    """Validate the name of a split.

    Raises:
        ValueError: if it is not "train", "validation" or "test".
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")


def split_folder(folder: Path, split: str) -> Path:
    """Return the folder of a split's pack, below a folder of splits or the folder itself.

    Raises:
        ValueError: if the folder contains other splits only.
    """
    present = [name for name in SPLITS if (folder / name).is_dir()]
    if present and split not in present:
        raise ValueError(
            f"split must be one of {', '.join(present)} in {folder}, got {split!r}. Create the pack"
            f" {folder / split}, or generate the data again with more images."
        )
    return folder / split if present else folder


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of all datasets: `root`, $GENESIS_RL_DATA or ~/.cache/genesis_rl.

    Raises:
        ValueError: if the user's home folder is unknown.
    """
    chosen = root or os.environ.get("GENESIS_RL_DATA") or "~/.cache/genesis_rl"
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"the home folder must be known for the datasets in {chosen}, but HOME is not set. Set"
            " the environment variable GENESIS_RL_DATA to a writable folder."
        ) from error


def pack_folder(root: Path, name: str, split: str, key: dict[str, Any]) -> Path:
    """Return the folder of a dataset's split below the root, named after a hash of ``key``.

    Args:
        root: folder of all datasets.
        name: name of the dataset.
        split: split of the dataset.
        key: settings that determine the content, as JSON data.
    """
    text = json.dumps({"renderer": _RENDERER, **key}, sort_keys=True)
    return root / name / f"{split}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def open_or_make(folder: Path, make: Callable[[Path], None]) -> Pack:
    """Open a pack, creating it first if its folder does not exist.

    Concurrent processes wait until the pack is complete.

    Args:
        folder: the pack's folder.
        make: function that writes the pack into a given folder.

    Returns:
        The opened pack.

    Raises:
        ValueError: if the folder exists and is not a complete pack.
        OSError: if the folder cannot be written.
        RuntimeError: in a rendering process that executes an unguarded main script again.
    """
    if folder.exists():
        return Pack.open(folder)
    check_main_guard()
    with ExitStack() as stack:
        try:
            stack.enter_context(private_folder(folder, wait=True))
        except OSError as error:
            advice = "set GENESIS_RL_DATA to a writable folder"
            message = f"cannot write {folder}: {error.strerror}; {advice}"
            raise type(error)(error.errno, message) from error
        if not folder.exists():
            make(folder)
    return Pack.open(folder)
