"""What programs do to folders: neighbours, links, other writers, disks that refuse or are full."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genesis_rl.checkpoints.loading import load
from genesis_rl.data import Pack

Run = Callable[..., tuple[int, str, str]]
COLLECT = (
    *("--env", "genesis_rl/ObjectGoal-v0", "--vec", "dummy", "--n-envs", "1"),
    *("--steps", "60", "--image-size", "32"),
)
TRAIN = (
    *("--preset", "smoke", "--no-tensorboard", "--device", "cpu", "--threads", "1", "--steps", "4"),
    *("--save-every", "2", "--eval-every", "4", "--eval-images", "4"),
    *("--data-options", '{"image_size": 32, "num_images": 64}'),
)
AGENT = ("--obs", "state", "--vec", "dummy", "--no-tensorboard", "--no-progress")
PROGRAMS = {
    "pretrain/train.py": TRAIN,
    "agents/train.py": AGENT,
    "agents/compare.py": ("--obs", "state"),
    "tools/demo.py": (),
    "envs/collect.py": COLLECT,
}
HOLD = """
import sys
from genesis_rl.utils.files import FolderLock, private_folder
with (private_folder if sys.argv[1] == "envs/collect.py" else FolderLock)(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True, scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENESIS_RL_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["rec.old", ".rec", "rec-1", ".rec.partial", ".rec-abcd1234"])
def test_collecting_leaves_a_neighbour_alone(tmp_path: Path, run_program: Run, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    status, _, errors = run_program("envs/collect.py", *COLLECT, "--out", str(tmp_path / "rec"))
    assert status == 0, errors
    assert (tmp_path / name / "thesis.txt").read_text() == "mine"
    assert names(tmp_path) == sorted([name, "rec"])


def test_training_and_resuming_leave_neighbours_alone(tmp_path: Path, run_program: Run) -> None:
    run = tmp_path / "run"
    for name in ("best.old", "last.old", ".last", ".best-abcd1234"):
        (run / name).mkdir(parents=True)
        (run / name / "thesis.txt").write_text("mine")
    flags = ("pretrain/train.py", *TRAIN, "--out", str(run))
    status, _, errors = run_program(*flags)
    assert status == 0, errors
    (run / "last" / "notes.txt").write_text("mine")
    status, _, errors = run_program(*flags, "--steps", "6", "--resume")
    assert status == 0, errors
    for name in ("best.old", "last.old", ".last", ".best-abcd1234"):
        assert (run / name / "thesis.txt").read_text() == "mine"
    assert (run / "last" / "notes.txt").read_text() == "mine"
    assert torch.load(run / "last" / "training.pt", weights_only=True)["step"] == 6


@pytest.mark.parametrize("made", [False, True])
def test_collecting_writes_through_a_link(tmp_path: Path, run_program: Run, made: bool) -> None:
    target = tmp_path / "disk" / "target"
    target.parent.mkdir()
    if made:
        target.mkdir()
    (tmp_path / "link").symlink_to(target)
    status, _, errors = run_program("envs/collect.py", *COLLECT, "--out", str(tmp_path / "link"))
    assert status == 0, errors
    assert (tmp_path / "link").is_symlink() and names(target.parent) == ["target"]
    assert len(Pack.open(target / "train")) > 0


@pytest.mark.parametrize("made", [False, True])
def test_training_writes_through_a_link(tmp_path: Path, run_program: Run, made: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    if made:
        target.mkdir()
    link.symlink_to(target)
    status, _, errors = run_program("pretrain/train.py", *TRAIN, "--out", str(link))
    assert status == 0, errors
    assert link.is_symlink() and {"best", "last"} <= {*names(target)}
    load(target, device="cpu")


# The demonstration takes the next free folder instead.
@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "tools/demo.py"])
def test_a_second_writer_is_refused(tmp_path: Path, run_program: Run, program: str) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", HOLD, program, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        status, _, errors = run_program(program, *PROGRAMS[program], "--out", str(out))
        process.kill()
    assert status == 2
    assert ": --out " in errors
    assert f"process {process.pid} on" in errors and "since 20" in errors
    assert not out.exists() or names(out) == [".genesis_rl"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, run_program: Run, program: str
) -> None:
    (tmp_path / "file").write_text("mine")  # root may write everything else
    out = tmp_path / "file" / "out"
    status, _, errors = run_program(program, *PROGRAMS[program], "--out", str(out))
    assert status == 2
    assert f"out must be writable, got {out}: " in errors
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_disk_is_named(tmp_path: Path, run_program: Run) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,ro", "none", str(tmp_path)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a file system takes root's rights")
    try:
        for program, flags in PROGRAMS.items():
            out = tmp_path / "out"
            status, _, errors = run_program(program, *flags, "--out", str(out))
            assert status == 2
            assert f"out must be writable, got {out}: Read-only file system." in errors
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_ends_a_training_and_keeps_its_checkpoint(
    tmp_path: Path, run_program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def fill(state: Any, path: Path) -> None:
        if state["step"] == 4:
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
        save(state, path)

    monkeypatch.setattr(torch, "save", fill)
    run = tmp_path / "run"
    status, _, errors = run_program("pretrain/train.py", *TRAIN, "--out", str(run))
    assert status == 1
    assert errors.splitlines()[-1].endswith(
        f"the disk is full: {run / 'last'} cannot be written. Free some space, or choose another "
        "folder."
    )
    assert torch.load(run / "last" / "training.pt", weights_only=True)["step"] == 2
    assert json.loads((run / "last" / "config.json").read_text())["step"] == 2
    assert names(run) == ["best", "last", "metrics.jsonl", "train.json"]
