"""Files and folders that appear whole or not at all, and are read with a clear word."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OLD = ".old"


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` when the block succeeds.

    Missing parent folders are made; the temporary name ends like the path, for writers that tell
    the format from it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``folder`` when the block succeeds.

    A kill at any moment leaves either the old or the new content under the name, or the old one
    under ``<name>.old``, which `recover_folder` puts back.
    """
    target = recover_folder(folder)  # else what a kill moved aside would be removed too soon
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's folders are private
        old = target.with_name(target.name + _OLD)
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(folder: str | os.PathLike[str]) -> Path:
    """Put back what a kill in the middle of `new_folder` moved aside; return the folder."""
    target = Path(folder)
    if target.exists():  # before its name is asked for: "." has none
        return target
    old = target.with_name(target.name + _OLD)
    if old.is_dir():
        old.rename(target)
    return target


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Return data as JSON that every reader takes: NaN and infinite numbers become null.

    Args:
        data: JSON data; paths become strings.
        indent: spaces per level; None: one line.

    Raises:
        TypeError: if an entry has no form in JSON.
    """
    return json.dumps(_strict(data), indent=indent, allow_nan=False)


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write a JSON file as `json_text` has it, whole or not at all.

    Raises:
        TypeError: if an entry has no form in JSON.
        OSError: if the file cannot be written.
    """
    text = json_text(data, indent=2) + "\n"
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _strict(data: Any) -> Any:
    """Replace what JSON has no form for: numbers that are not finite by null, paths by strings."""
    if isinstance(data, Mapping):
        return {key: _strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_strict(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return os.fspath(data) if isinstance(data, os.PathLike) else data
