"""Files and folders appear whole or not at all; nothing of the user's is touched; one writer."""

import errno
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from genesis_rl.utils.files import (
    FolderLock,
    FullDiskError,
    current_folder,
    new_file,
    new_folder,
    private_folder,
    read_folder,
    store_settings,
)

OWNER = '{"made_by": "genesis_rl", "pid": 1, "host": "there", "started": "then"}'


def write(folder: Path, text: str) -> None:
    with new_folder(folder) as temporary:
        (temporary / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def killed_in(work: Callable[[], object]) -> None:
    """Run in a process of its own, which must end by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write(folder, "one")
    write(folder, "two")
    assert names(folder.parent) == ["folder"] and names(folder) == ["file"]
    assert (folder / "file").read_text() == "two"
    assert folder.stat().st_mode & 0o777 == 0o755


def test_what_only_the_old_folder_has_is_kept(tmp_path: Path) -> None:
    """It may be the user's own: a note in a checkpoint, a folder named by mistake."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    (folder / "sub" / "notes.txt").write_text("mine, too")
    (folder / "sub" / "file").write_text("old")
    with new_folder(folder) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text("new")
    assert (folder / "thesis.txt").read_text() == "mine"
    assert (folder / "sub" / "notes.txt").read_text() == "mine, too"
    assert (folder / "sub" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_an_exception_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], exists: bool
) -> None:
    folder = tmp_path / "folder"
    if exists:
        write(folder, "old")
    with pytest.raises(error), new_folder(folder) as temporary:
        (temporary / "file").write_text("half")
        raise error
    assert names(tmp_path) == (["folder"] if exists else [])
    assert not exists or (folder / "file").read_text() == "old"


def test_a_file_in_place_of_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("mine")
    with pytest.raises(ValueError, match=r"^folder "):
        write(tmp_path / "folder", "new")
    assert content(tmp_path) == {"folder": b"mine"}


@pytest.mark.parametrize("rename", [1, 2])
def test_readers_survive_a_kill_at_a_rename_and_the_next_writer_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int
) -> None:
    folder, original, calls = tmp_path / "folder", Path.rename, []
    write(folder, "old")

    def rename_or_die(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == rename:
            kill()
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_or_die)
        killed_in(lambda: write(folder, "new"))
    before = content(tmp_path)
    assert (current_folder(folder) / "file").read_text() == "old"
    assert read_folder(folder, lambda place: (place / "file").read_text()) == "old"
    assert content(tmp_path) == before  # no reader repairs
    with pytest.raises(ValueError), new_folder(folder):
        raise ValueError
    assert content(tmp_path) == {"folder": b"", "folder/file": b"old"}  # a writer does


def test_a_kill_after_the_renames_leaves_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    write(folder, "old")
    (folder / "thesis.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr("genesis_rl.utils.files._move_missing", lambda *_: kill())
        killed_in(lambda: write(folder, "new"))
    assert (current_folder(folder) / "file").read_text() == "new"
    write(folder, "newer")
    assert content(tmp_path) == {
        "folder": b"",
        "folder/file": b"newer",
        "folder/thesis.txt": b"mine",
    }


@pytest.mark.parametrize(
    "name", ["folder.old", "folder-1", ".folder", ".folder-abc", ".folder.partial", ".folder.lock"]
)
def test_neighbours_are_left_alone(tmp_path: Path, name: str) -> None:
    neighbour, folder = tmp_path / name, tmp_path / "folder"
    neighbour.mkdir()
    (neighbour / "thesis.txt").write_text("mine")
    assert current_folder(folder) == folder
    for text in ("one", "two"):
        write(folder, text)
    with FolderLock(tmp_path):
        pass
    assert names(tmp_path) == sorted(["folder", name])
    assert (neighbour / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("owner", [None, "{}", '"genesis_rl"', "no JSON", '{"made_by": "me"}'])
def test_a_private_name_without_the_proof_is_refused_not_deleted(
    tmp_path: Path, owner: str | None
) -> None:
    private, folder = tmp_path / ".folder.genesis_rl", tmp_path / "folder"
    for name in ("old", "new", "partial"):
        (private / name).mkdir(parents=True)
        (private / name / "file").write_text("mine")
    if owner is not None:
        (private / "owner.json").write_text(owner)
    before = content(tmp_path)
    assert current_folder(folder) == folder
    with pytest.raises(ValueError, match=r"\.folder\.genesis_rl .*owner\.json"):
        write(folder, "new")
    with FolderLock(tmp_path):
        pass
    assert content(tmp_path) == before


def test_a_link_in_place_of_the_private_folder_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "new").mkdir(parents=True)
    (elsewhere / "owner.json").write_text(OWNER)
    (tmp_path / ".folder.genesis_rl").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"owner\.json"):
        write(tmp_path / "folder", "new")
    assert names(elsewhere) == ["new", "owner.json"]


@pytest.mark.parametrize("name", ["old", "new", "partial", "lock"])
def test_a_link_in_the_private_folder_is_refused(tmp_path: Path, name: str) -> None:
    """Else a downloaded folder could have the user's files moved or deleted."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    private = tmp_path / "run" / ".last.genesis_rl"
    private.mkdir(parents=True)
    (private / "owner.json").write_text(OWNER)
    (private / name).symlink_to(tmp_path / "mine")
    write(tmp_path / "run" / "best", "new")
    with pytest.raises(ValueError, match=r"owner\.json"):
        write(tmp_path / "run" / "last", "new")
    with FolderLock(tmp_path / "run"):
        pass
    assert names(tmp_path / "mine") == ["thesis.txt"]
    assert names(private) == sorted([name, "owner.json"])


@pytest.mark.parametrize("exists", [False, True])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, exists: bool) -> None:
    link, target = tmp_path / "link", tmp_path / "disk" / "target"
    target.parent.mkdir()
    if exists:
        write(target, "old")
    link.symlink_to(target)
    write(link, "new")
    assert link.is_symlink() and (target / "file").read_text() == "new"
    with FolderLock(link):
        assert (target / ".genesis_rl").is_dir()
    assert names(target.parent) == ["target"] and names(target) == ["file"]
    (tmp_path / "file").symlink_to(tmp_path / "disk" / "file")
    with new_file(tmp_path / "file") as temporary:
        temporary.write_text("text")
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "disk" / "file").read_text() == "text"


def test_a_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    for text in ("one", "two"):
        with new_file(path) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text(text)
        assert path.read_text() == text and names(path.parent) == ["file.json"]


@pytest.mark.parametrize("exists", [False, True])
def test_an_exception_leaves_the_old_file(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "file"
    if exists:
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), new_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == (["file"] if exists else [])
    assert not exists or path.read_text() == "old"


def test_a_file_that_was_never_written_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), new_file(path):
        pass
    assert path.read_text() == "old"


def test_a_killed_writer_of_a_file_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file.json"

    def work() -> None:
        with new_file(path) as temporary:
            temporary.write_text("half")
            kill()

    killed_in(work)
    assert names(tmp_path) == [".file.json.genesis_rl"]
    with FolderLock(tmp_path):  # the next run in the folder, even if it never writes the file
        pass
    assert names(tmp_path) == []
    killed_in(work)
    with new_file(path) as temporary:
        temporary.write_text("whole")
    assert content(tmp_path) == {"file.json": b"whole"}


def test_devices_and_folders_are_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(ValueError, match=r"^path "), new_file(path):
            pass
    assert names(tmp_path) == ["fifo"]


# ---- readers beside a writer -----------------------------------------------------------------


def test_a_reader_beside_a_writer_never_mixes_versions(tmp_path: Path) -> None:
    folder, parts, stop = tmp_path / "folder", [f"part-{i}" for i in range(20)], threading.Event()

    def save(number: int) -> None:
        with new_folder(folder) as temporary:
            for name in parts:
                (temporary / name).write_text(str(number))

    def keep_saving() -> None:
        number = 1
        while not stop.is_set():
            save(number)
            number += 1
            time.sleep(0.005)  # without a pause the reader may never be in time

    save(0)
    writer = threading.Thread(target=keep_saving)
    writer.start()
    try:
        found = set()
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            texts = read_folder(folder, lambda place: {(place / n).read_text() for n in parts})
            assert len(texts) == 1
            found |= texts
        assert len(found) > 1
    finally:
        stop.set()
        writer.join()


def test_a_reader_that_is_always_overtaken_returns_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genesis_rl.utils.files._READ_SECONDS", 0.0)
    folder = tmp_path / "folder"
    write(folder, "0")
    discarded: list[str] = []

    def read(place: Path) -> str:
        text = (place / "file").read_text()
        write(folder, str(int(text) + 1))
        return text

    with pytest.raises(OSError, match="unchanged"):
        read_folder(folder, read, discarded.append)
    assert discarded == [str(number) for number in range(10)]


def test_what_was_read_in_vain_is_discarded_and_errors_that_stay_are_raised(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write(folder, "one")
    discarded: list[str] = []

    def read(place: Path) -> str:
        text = (place / "file").read_text()
        if text == "one":
            write(folder, "two")
        return text

    assert read_folder(folder, read, discarded.append) == "two" and discarded == ["one"]
    with pytest.raises(FileNotFoundError):
        read_folder(folder, lambda place: (place / "missing").read_text())
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "nothing", lambda place: (place / "file").read_text())


# ---- one writer --------------------------------------------------------------------------------

HOLD = """
import sys
from genesis_rl.utils.files import FolderLock, private_folder
with (FolderLock if sys.argv[1] == "lock" else private_folder)(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["lock", "private"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Another process that uses ``tmp_path / "out"``, and what this process does to use it."""
    command = [sys.executable, "-c", HOLD, request.param, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        yield process, FolderLock if request.param == "lock" else private_folder
        process.kill()


def test_a_second_writer_is_refused_with_the_first_ones_process(
    holder: Any, tmp_path: Path
) -> None:
    process, use = holder
    message = rf"process {process.pid} on .* 20\d\d"
    with pytest.raises(ValueError, match=message), use(tmp_path / "out"):
        pass
    assert process.poll() is None
    process.kill()  # a stale lock blocks nobody
    process.wait()
    with use(tmp_path / "out"):
        pass
    assert names(tmp_path) in ([], ["out"])  # the killed process has made it


def test_waiting_ends_with_the_other_writer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, "private", str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        timer = threading.Timer(0.3, process.stdin.close)
        timer.start()
        with private_folder(tmp_path / "out", wait=True):
            assert process.wait() == 0
        timer.join()
    assert names(tmp_path) == []


def _write_many(folder: Path, number: int) -> None:
    for _ in range(25):
        with new_file(folder / "file") as temporary:
            temporary.write_text(str(number) * 1000)


def test_many_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert names(tmp_path) == ["file"] and len({*(tmp_path / "file").read_text()}) == 1


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "new" / "out")
    lock.acquire()
    lock.acquire()
    assert lock.held and names(lock.out) == [".genesis_rl"]
    again = FolderLock(lock.out)  # as when a notebook constructs a trainer anew
    again.acquire()
    assert (again.held, lock.held) == (True, False)
    lock.release()
    assert again.held
    del again  # as when it drops it
    assert not lock.out.exists()
    lock.out.mkdir()
    with lock:
        (lock.out / "file").touch()
    assert names(lock.out) == ["file"]


def test_a_child_of_the_writer_does_not_hold_its_lock(tmp_path: Path) -> None:
    """A killed training's environments may outlive it for a while."""
    context = multiprocessing.get_context("fork")
    with FolderLock(tmp_path):
        child = context.Process(target=time.sleep, args=(60,))
        child.start()
    try:
        command = [sys.executable, "-c", HOLD, "lock", str(tmp_path)]
        assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0
    finally:
        child.kill()
        child.join()


# ---- what cannot be written --------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"out .*file/run: "):
        FolderLock(tmp_path / "file" / "run").acquire()
    with pytest.raises(OSError, match=r"path .*file/run: "):
        with new_file(tmp_path / "file" / "run"):
            pass
    assert names(tmp_path) == ["file"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting a file system takes root's rights")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


BIG = np.zeros(100_000, np.float32)
WRITERS: dict[str, Callable[[Path], Any]] = {
    "torch": lambda path: torch.save({"a": torch.from_numpy(BIG)}, path),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(BIG)}, path),
    "npy": lambda path: np.save(path, BIG),
    "npz": lambda path: np.savez(path, a=BIG),
    "text": lambda path: path.write_text(json.dumps(BIG.tolist())),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_the_old_stays(small_disk: Path, writer: str) -> None:
    folder, path = small_disk / "folder", small_disk / "file.npz"
    write(folder, "old")
    path.write_text("old")
    with pytest.raises(FullDiskError, match="/folder ") as caught:
        with new_folder(folder) as temporary:
            WRITERS[writer](temporary / "big.npz")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(FullDiskError, match=r"/file\.npz "):
        with new_file(path) as temporary:
            WRITERS[writer](temporary)
    assert content(small_disk) == {"folder": b"", "folder/file": b"old", "file.npz": b"old"}


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 53760 vs 53652"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("25000 requested and 13184 written"),
    ],
)
def test_errors_of_a_full_disk(tmp_path: Path, problem: Exception) -> None:
    with pytest.raises(FullDiskError, match="/file "), new_file(tmp_path / "file"):
        raise problem
    with pytest.raises(io.UnsupportedOperation), new_file(tmp_path / "file"):
        raise io.UnsupportedOperation("other errors stay as they are")


def test_settings_are_stored_once_and_compared(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"seed": 1, "sizes": (1, 2), "out": Path("x")}
    for _ in range(2):
        store_settings(tmp_path, "meta/settings.json", settings)
    stored = json.loads((tmp_path / "meta/settings.json").read_text())
    assert stored == {"seed": 1, "sizes": [1, 2], "out": "x"}
    with pytest.raises(ValueError, match=r"seed must be 1 as in the dataset .*, got 2\. Choose"):
        store_settings(tmp_path, "meta/settings.json", {**settings, "seed": 2})
    (tmp_path / "meta/settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        store_settings(tmp_path, "meta/settings.json", settings)
    with pytest.raises(ValueError, match="out must be a new folder or a rendered dataset"):
        store_settings(tmp_path, "other.json", settings)
