"""Files and folders that appear whole or not at all, and are read with a clear word."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OLD = ".old"
#: Bytes of the largest JSON file that is read: parsed, it takes tens of times as much memory.
LARGEST_JSON = 2**25


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
        ValueError: if it is missing, damaged, larger than `LARGEST_JSON` or nested too deeply.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
        if len(text) > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
        return json.loads(text.decode())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} cannot be read as JSON: it is nested too deeply") from error
