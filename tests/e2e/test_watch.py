"""envs/watch.py as a user runs it: videos of random episodes, errors."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


def test_runs_as_a_program(tmp_path: Path) -> None:
    out = tmp_path / "film.gif"
    program = str(ROOT / "envs" / "watch.py")
    command = [sys.executable, program, "--out", str(out), "--max-steps", "3"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(out) and out.stat().st_size > 0


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_writes_a_video(tmp_path: Path, suffix: str, run_program: Run) -> None:
    out = tmp_path / "new" / f"video{suffix}"
    flags = ["--episodes", "2", "--max-steps", "7", "--options", "render_size", "64"]
    assert run_program("envs/watch.py", "--out", str(out), *flags)[:2] == (0, str(out))
    video = cv2.VideoCapture(str(out))
    shown, frame = video.read()
    assert shown and frame.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "genesis_rl/Nothing-v0"], "genesis_rl/Nothing-v0"),
        (["--options", "num_objects", "99"], "num_objects"),
        (["--options", "cats", "1"], "cats"),
        (["--out", "film.avi"], ": out "),
        (["--episodes", "0"], "episodes"),
    ],
)
def test_bad_input_is_one_message(flags: list[str], message: str, run_program: Run) -> None:
    status, _, errors = run_program("envs/watch.py", *flags)
    assert status == 2
    assert message in errors
