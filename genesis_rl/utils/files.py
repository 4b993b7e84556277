"""Atomic replacement of files and folders, locks of folders, and JSON reading with clear errors.

Unfinished content of ``NAME`` is in the private directory ``.NAME.genesis_rl`` in the same folder:

- ``owner.json``: proves that this package made the directory, and names the process that uses it;
- ``lock``: locked by that process, and released by the system when it is killed;
- ``new`` (with the suffix of a file): the content to be renamed to ``NAME``;
- ``old``: the previous folder, between the two renames of a replacement;
- ``partial``: a pack to be resumed by a later process.

Only a process that holds the lock renames or deletes anything, and only in a directory with a valid
``owner.json``. The next writer of ``NAME`` removes the files of a killed writer. Readers change
nothing: `current_folder` and `read_folder` read ``old`` during a replacement. Paths are resolved
first: the target of a symbolic link is replaced, not the link.
"""

import errno
import itertools
import json
import math
import os
import re
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import filelock

_T = TypeVar("_T")

#: Largest size of a JSON file in bytes; the parsed data takes tens of times as much memory.
LARGEST_JSON = 2**25
PRIVATE = ".genesis_rl"
_LOCK, _OWNER, _OWNER_NEW = "lock", "owner.json", "owner.new"
_NEW, _OLD = "new", "old"
#: Folder in the private directory that is kept when its writer is interrupted.
PARTIAL = "partial"
# Attempts and seconds, both at least, to read a folder that is being replaced.
_READS, _READ_SECONDS = 10, 10.0
# Seconds, and number of attempts, to wait for the release of a private directory.
_TIMEOUT, _ATTEMPTS = 0.2, 20
_FULL = re.compile(
    r"No space left|StorageFull|Disk quota|unexpected pos \d+|PytorchStreamWriter failed|"
    r"\d+ requested and \d+ written"
)


class FullDiskError(OSError):
    """The disk is full; the message names the file that cannot be written."""


class _Private:
    """A private directory, used by one process at a time."""

    def __init__(self, directory: Path, target: Path, argument: str) -> None:
        self.directory, self._target, self._argument = directory, target, argument
        self._lock: filelock.BaseFileLock | None = None
        self._pid = os.getpid()
        self._made_target = False

    @property
    def held(self) -> bool:
        """Whether this process uses it."""
        return self._lock is not None and self._pid == os.getpid()

    def acquire(self, *, wait: bool) -> None:
        """Create and lock the directory.

        Raises:
            ValueError: if another process uses it and ``wait`` is False, or this package has not
                made it.
            OSError: if it cannot be written.
        """
        parent = self.directory.parent
        try:
            self._made_target = parent == self._target and not parent.exists()
            parent.mkdir(parents=True, exist_ok=True)
            while True:
                self._check()
                with suppress(FileExistsError):
                    self.directory.mkdir()
                lock = filelock.FileLock(self.directory / _LOCK, thread_local=False)
                try:
                    lock.acquire(timeout=-1 if wait else _TIMEOUT)
                except (FileNotFoundError, FileExistsError):
                    continue  # its last user has just removed the directory
                except filelock.Timeout as error:
                    raise self._in_use() from error
                if (self.directory / _LOCK).exists():
                    break
                lock.release()  # as above
            try:
                self._check()
                self._write_owner()
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            with suppress(OSError):
                self.directory.rmdir()  # succeeds if it is empty
            if is_full(error):
                raise _full_disk(self._target) from error
            reason = error.strerror or str(error)
            message = f"{self._argument} must be writable, got {self._target}: {reason}."
            raise type(error)(error.errno, message) from error
        self._lock, self._pid = lock, os.getpid()

    def release(self) -> None:
        """Remove the directory, unless something is left in it, and unlock it."""
        if not self.held or self._lock is None:
            return
        lock, self._lock = self._lock, None
        with suppress(OSError):
            if {path.name for path in self.directory.iterdir()} <= {_LOCK, _OWNER, _OWNER_NEW}:
                for name in (_OWNER_NEW, _OWNER, _LOCK):
                    (self.directory / name).unlink(missing_ok=True)
                self.directory.rmdir()
        lock.release()
        if self._made_target:
            with suppress(OSError):
                self._target.rmdir()  # succeeds if nothing was written

    def _check(self) -> None:
        """Refuse a directory that this package has not made."""
        for _ in range(_ATTEMPTS):  # it may be incomplete while it is created or removed
            if not os.path.lexists(self.directory):
                return
            with suppress(FileNotFoundError, NotADirectoryError):
                paths = list(self.directory.iterdir())
                unused = {path.name for path in paths} <= {_LOCK, _OWNER_NEW}  # killed at once
                # A link could lead to the user's own files; this package makes none.
                linked = any(path.is_symlink() for path in (self.directory, *paths))
                if not linked and (unused or _is_ours(self.directory)):
                    return
            time.sleep(_TIMEOUT / _ATTEMPTS)
        raise ValueError(
            f"{self.directory} must be a folder made by genesis_rl, got another one: it has no "
            f"valid {_OWNER}. Rename it; genesis_rl needs the name to write {self._target}."
        )

    def _write_owner(self) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = {"made_by": "genesis_rl", "pid": os.getpid(), "host": socket.gethostname()}
        temporary = self.directory / _OWNER_NEW
        temporary.write_text(json_text(owner | {"started": now}) + "\n", encoding="utf-8")
        os.replace(temporary, self.directory / _OWNER)

    def _in_use(self) -> ValueError:
        owner: dict[str, Any] = {}
        for _ in range(_ATTEMPTS):  # it is written right after the lock is acquired
            with suppress(OSError, ValueError):
                owner = json.loads((self.directory / _OWNER).read_text(encoding="utf-8"))
                break
            time.sleep(_TIMEOUT / _ATTEMPTS)
        pid, host, started = (owner.get(name, "unknown") for name in ("pid", "host", "started"))
        return ValueError(
            f"{self._argument} must be a folder that no other process writes, got {self._target}: "
            f"process {pid} on {host} has been writing it since {started}. Wait for that process "
            "to end, or choose another folder."
        )


def _is_ours(directory: Path) -> bool:
    """Return whether a private directory contains the proof that this package made it."""
    try:
        owner = json.loads((directory / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(owner, dict) and owner.get("made_by") == "genesis_rl"


def _resolve(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _private_path(target: Path) -> Path:
    return target.with_name(f".{target.name}{PRIVATE}")


#: The private directories in use, by path, process and thread.
_used: dict[tuple[Path, int, int], _Private] = {}


@contextmanager
def private_folder(
    path: str | os.PathLike[str], *, wait: bool = False, argument: str = "folder"
) -> Iterator[Path]:
    """Yield the private directory of a file or folder, for this process alone.

    An interrupted write is repaired first: the previous folder is restored, and unfinished content
    is removed, except for ``partial``. May be nested in one thread.

    Args:
        path: the file or folder to write.
        wait: wait for another process that writes it, instead of raising.
        argument: name of the argument, for messages.

    Raises:
        ValueError: if another process writes it and ``wait`` is False, or the private directory's
            name is used by something that this package has not made.
        OSError: if the directory cannot be written.
    """
    target = _resolve(path)
    directory = _private_path(target)
    key = directory, os.getpid(), threading.get_ident()
    if key in _used:
        yield directory
        return
    private = _Private(directory, target, argument)
    private.acquire(wait=wait)
    _used[key] = private
    try:
        _repair(directory, target)
        yield directory
    finally:
        del _used[key]
        try:
            _repair(directory, target)
        finally:
            private.release()


def _repair(directory: Path, target: Path) -> None:
    """Finish or undo an interrupted replacement; requires the lock."""
    old = directory / _OLD
    if old.is_dir():
        if target.exists():
            _move_missing(old, target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    for path in directory.iterdir():
        if path.name.partition(".")[0] == _NEW:  # np.save, for one, adds a suffix
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _move_missing(old: Path, new: Path) -> None:
    """Move the user's own files, which only the old folder has, to the new one."""
    for path in old.iterdir():
        destination = new / path.name
        if not os.path.lexists(destination):
            path.rename(destination)
        elif all(entry.is_dir() and not entry.is_symlink() for entry in (path, destination)):
            _move_missing(path, destination)


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` when the block succeeds.

    Missing parent folders are created. The temporary name has the suffix of ``path``, for writers
    that infer the format from it. Other writers of the same file wait.

    Raises:
        ValueError: if ``path`` exists and is not a file.
        OSError: if it cannot be written; names it if the disk is full.
    """
    target = _resolve(path)
    if target.exists() and not target.is_file():
        raise ValueError(f"path must be a file, or not exist, got {target}. Choose another name.")
    with naming_full_disk(target), private_folder(target, wait=True, argument="path") as directory:
        temporary = directory / f"{_NEW}{target.suffix}"
        yield temporary
        os.replace(temporary, target)


@contextmanager
def new_folder(folder: str | os.PathLike[str], *, argument: str = "folder") -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` when the block succeeds.

    If the process is killed, `read_folder` reads either the old or the new content. Files that only
    the old folder has are kept.

    Args:
        folder: destination.
        argument: name of the argument, for messages.

    Raises:
        ValueError: if another process writes it, or it exists and is not a folder.
        OSError: if it cannot be written; names it if the disk is full.
    """
    target = _resolve(folder)
    with naming_full_disk(target), private_folder(target, argument=argument) as directory:
        if target.exists() and not target.is_dir():
            raise ValueError(
                f"{argument} must be a folder, or not exist, got the file {target}. Choose another."
            )
        temporary = directory / _NEW
        temporary.mkdir()
        yield temporary
        replace_folder(temporary, target)


def replace_folder(new: Path, target: Path) -> None:
    """Move a folder from a private directory that is in use to its destination, ``target``."""
    target = _resolve(target)
    if target.exists():
        target.rename(_private_path(target) / _OLD)
    new.rename(target)
    _repair(_private_path(target), target)


def current_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder to read: the given one, or its old content during a replacement."""
    target = Path(folder)
    for _ in range(_READS):
        if target.exists():  # "." has no name for the private path
            break
        resolved = _resolve(target)
        directory = _private_path(resolved)
        if not directory.is_dir():
            break
        if (directory / _OLD).is_dir() and _is_ours(directory):
            return directory / _OLD
    return target


def read_folder(
    folder: str | os.PathLike[str],
    read: Callable[[Path], _T],
    discard: Callable[[_T], object] = lambda _: None,
) -> _T:
    """Read one version of a folder; repeat if it was replaced meanwhile.

    Args:
        folder: folder to read.
        read: function of the folder returned by `current_folder`.
        discard: function to release an unused result.

    Returns:
        The result of ``read``.

    Raises:
        OSError: if every attempt was overtaken by a writer.
    """
    deadline = time.monotonic() + _READ_SECONDS
    for attempt in itertools.count(1):
        current = current_folder(folder)
        before = _version_of(current)
        try:
            result = read(current)
        except (OSError, ValueError):
            if (current_folder(folder), _version_of(current)) == (current, before):
                raise
        else:
            if _version_of(current) == before:
                return result
            discard(result)
        if attempt >= _READS and time.monotonic() > deadline:
            break
    raise OSError(
        errno.EBUSY,
        f"folder must be unchanged while it is read, got {folder}, which another process keeps "
        "replacing. Read it between two of its saves.",
    )


def _version_of(folder: Path) -> tuple[int, int, int, int] | None:
    """Return an identifier that changes when the folder or a file in it is replaced."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


#: The locks of run directories that this process holds.
_locks: "weakref.WeakValueDictionary[Path, FolderLock]" = weakref.WeakValueDictionary()


class FolderLock:
    """The lock of a run directory: one process at a time writes it.

    The system releases it when the process ends or is killed. A new lock of the same process
    replaces an earlier one, so that a notebook can construct a trainer again.

    Example:
        >>> with FolderLock("runs/first"):
        ...     pass
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        """Prepare the lock without acquiring it."""
        self.out = _resolve(out)
        self._private = _Private(self.out / PRIVATE, self.out, "out")
        weakref.finalize(self, self._private.release)

    @property
    def held(self) -> bool:
        """Whether this lock is held."""
        return self._private.held

    def acquire(self) -> None:
        """Create the folder if missing, lock it, and clean up after killed writers.

        Raises:
            ValueError: if another process holds it; names that process and when it started.
            OSError: if the folder cannot be written.
        """
        if self.held:
            return
        earlier = _locks.get(self.out)
        if earlier is not None:
            earlier.release()
        self._private.acquire(wait=False)
        _locks[self.out] = self
        for directory in self.out.glob(f".*{PRIVATE}"):
            if directory.name != PRIVATE and _is_ours(directory):
                with suppress(ValueError, OSError):  # somebody writes it
                    target = directory.with_name(directory.name[1 : -len(PRIVATE)])
                    with private_folder(target):
                        pass

    def release(self) -> None:
        """Unlock the folder; does nothing if it is not locked."""
        self._private.release()

    def __enter__(self) -> Self:
        """Lock the folder."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the folder."""
        self.release()


@contextmanager
def naming_full_disk(target: str | os.PathLike[str]) -> Iterator[None]:
    """Convert any library's error about a full disk to one that names ``target``.

    Raises:
        FullDiskError: an OSError with errno ENOSPC.
    """
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        if is_full(error):
            raise _full_disk(target) from error
        raise


def is_full(error: BaseException) -> bool:
    """Return whether an error of any library means that the disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return _FULL.search(str(error)) is not None


def _full_disk(target: str | os.PathLike[str]) -> FullDiskError:
    return FullDiskError(
        errno.ENOSPC,
        f"the disk is full: {os.fspath(target)} cannot be written. Free some space, or choose "
        "another folder.",
    )


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


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Return data as standard JSON: NaN and infinite numbers become null.

    Args:
        data: JSON data; paths become strings.
        indent: spaces per level; None: one line.

    Raises:
        TypeError: if an entry cannot be represented in JSON.
    """
    return json.dumps(_strict(data), indent=indent, allow_nan=False)


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write a JSON file atomically, formatted by `json_text`.

    Raises:
        TypeError: if an entry cannot be represented in JSON.
        OSError: if the file cannot be written.
    """
    text = json_text(data, indent=2) + "\n"
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _strict(data: Any) -> Any:
    """Replace non-finite numbers by None and paths by strings."""
    if isinstance(data, Mapping):
        return {key: _strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_strict(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return os.fspath(data) if isinstance(data, os.PathLike) else data


def store_settings(folder: Path, name: str | Path, settings: dict[str, Any]) -> None:
    """Write the settings of a folder that is written in parts, or compare them with existing ones.

    Args:
        folder: the folder; new, empty, or of the same settings.
        name: path of the JSON file in it.
        settings: JSON data.

    Raises:
        ValueError: for a folder with other settings or other content, or a damaged file.
        OSError: if the file cannot be written.
    """
    path = folder / name
    if path.exists():
        try:
            stored = read_json(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}). Delete {folder}.") from error
        for key, value in json.loads(json_text(settings)).items():  # as in the file
            if stored.get(key) != value:
                raise ValueError(
                    f"{key} must be {stored.get(key)!r} as in the dataset {folder}, got {value!r}. "
                    "Choose another folder."
                )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"out must be a new folder or a rendered dataset, got {folder}.")
    else:
        write_json(path, settings)
