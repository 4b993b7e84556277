"""Where data sets are kept, and how two processes share the work."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from genesis_rl.data.pack import Pack
from genesis_rl.files import private_folder

SPLITS = ("train", "validation", "test")

_RENDERER = 1  # raised when the same options give other pixels, so that old packs are not reused


def check_split(split: str) -> None:
    """Refuse anything but "train", "validation" and "test".

    Raises:
        ValueError: naming the split and the known ones.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")


def split_folder(folder: Path, split: str) -> Path:
    """Folder of a split's pack within a folder that holds one per split, or is a pack itself.

    Raises:
        ValueError: if it holds packs of other splits only.
    """
    present = [name for name in SPLITS if (folder / name).is_dir()]
    if present and split not in present:
        raise ValueError(
            f"{folder} has no split {split!r}, only {', '.join(present)}: put a pack into"
            f" {folder / split}, or make the data again with more in it"
        )
    return folder / split if present else folder


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Folder of the generated data sets: `root`, $GENESIS_RL_DATA or ~/.cache/genesis_rl.

    Raises:
        ValueError: if it lies in a home folder that is not known.
    """
    chosen = root or os.environ.get("GENESIS_RL_DATA") or "~/.cache/genesis_rl"
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"the folder of the data sets, {chosen}, must lie in a known home folder, but HOME is"
            " not set and the user has none. Set the environment variable GENESIS_RL_DATA to a"
            " folder that can be written."
        ) from error


def pack_folder(root: Path, name: str, split: str, key: dict[str, Any]) -> Path:
    """Folder of a data set's split below the root, named after a hash of what decides its content.

    Args:
        root: folder of all data sets.
        name: of the data set.
        split: of the data set.
        key: everything that decides the content, as JSON data.
    """
    text = json.dumps({"renderer": _RENDERER, **key}, sort_keys=True)
    return root / name / f"{split}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def open_or_make(folder: Path, make: Callable[[Path], None]) -> Pack:
    """Open a pack, or make it first if its folder does not exist.

    A second process that asks for the same pack meanwhile waits for it.

    Args:
        folder: the pack's folder.
        make: writes the pack into the folder that it is given.

    Returns:
        The opened pack.

    Raises:
        ValueError: if the folder exists and is not a whole pack.
        OSError: if the folder cannot be written.
    """
    if folder.exists():
        return Pack.open(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(private_folder(folder, wait=True))
        except OSError as error:
            advice = "set GENESIS_RL_DATA to a folder that can be written"
            message = f"cannot write {folder}: {error.strerror}; {advice}"
            raise type(error)(error.errno, message) from error
        if not folder.exists():
            make(folder)
    return Pack.open(folder)
