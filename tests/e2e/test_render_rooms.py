"""envs/render_rooms.py as a user runs it: packs, GQN's layout, bad input."""

from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_rl.data import open_dataset
from genesis_rl.worlds.rooms import dataset

PROGRAM = "envs/render_rooms.py"
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.usefixtures("opengl")
def test_renders_packs(tmp_path: Path, run_program: Run) -> None:
    flags = ["--split", "train", "test", "--num-images", "6", "--image-size", "16"]
    options = [*flags, "--workers", "1", "--num-objects", "2", "3", "--textures", "test"]
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "rooms"), *options)
    assert (status, errors) == (0, "")
    assert out.split() == [str(tmp_path / "rooms" / split) for split in ("train", "test")]
    pack = open_dataset(tmp_path / "rooms", "test")
    assert pack.images.shape == (6, 16, 16, 3)
    assert pack.meta["num_objects"] == [2, 3]
    assert pack.factors["num_objects"].min() >= 2
    status, _, errors = run_program(PROGRAM, "--out", str(tmp_path / "rooms"), *flags, "--empty")
    assert status == 2 and "must have --num-objects [1, 3], got [2, 3]" in errors


@pytest.mark.usefixtures("opengl")
def test_renders_gqn_layout(tmp_path: Path, run_program: Run) -> None:
    flags = ["--layout", "gqn", "--split", "test", "--rooms-per-file", "2", "--workers", "1"]
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "gqn"), *flags)
    assert (status, errors) == (0, "")
    assert out.strip().endswith("rooms_ring_camera/test/001-of-240.tfrecord")
    pack = open_dataset("gqn", "test", root=tmp_path, source=tmp_path / "gqn", num_files=1)
    assert len(pack) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-objects", "3", "1"], "--num-objects must be (smallest, largest), got (3, 1)."),
        (["--camera-radius", "9"], "--camera-radius must be from 2.5 to 3.2, got 9.0."),
        (["--split", "all"], "--split must be one of train, validation, test, got 'all'."),
        (["--layout", "gqn", "--image-size", "32"], "--image-size must be 64 in GQN's layout"),
        (["--layout", "gqn", "--num-files", "999"], "--num-files must be from 1 to 36"),
    ],
)
def test_bad_flags_are_named(
    tmp_path: Path, run_program: Run, flags: list[str], message: str
) -> None:
    if "999" in flags:
        flags = [*flags, "--split", "validation"]
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "rooms"), *flags)
    assert (status, out) == (2, "")
    assert errors.startswith(f"render_rooms.py: {message}")
    assert not (tmp_path / "rooms").exists()


def test_without_opengl_the_error_names_the_packages(
    tmp_path: Path, run_program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("no OpenGL context could be made:\n `apt-get install libegl1`")

    monkeypatch.setattr(dataset, "require_gl", refuse)
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "rooms"))
    assert (status, out) == (2, "")
    assert errors.startswith("render_rooms.py: no OpenGL") and "libegl1" in errors
