import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

PROGRAM = Path(__file__).parents[2] / "envs" / "watch.py"


def load_program():
    spec = importlib.util.spec_from_file_location("watch_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs_as_a_program(tmp_path):
    out = tmp_path / "film.gif"
    command = [sys.executable, str(PROGRAM), "--out", str(out), "--max-steps", "3"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(out) and out.stat().st_size > 0


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_writes_a_film(tmp_path, suffix, capsys):
    out = tmp_path / "new" / f"film{suffix}"
    flags = ["--episodes", "2", "--max-steps", "7", "--options", "render_size", "64"]
    assert load_program().main(["--out", str(out), *flags]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    film = cv2.VideoCapture(str(out))
    shown, frame = film.read()
    assert shown and frame.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "genesis_rl/Nothing-v0"], "cannot make environment 'genesis_rl/Nothing-v0'"),
        (["--options", "num_objects", "99"], "found no room for 99 objects"),
        (["--options", "cats", "1"], "unknown option 'cats'"),
        (["--out", "film.avi"], "out must end in .gif or .mp4"),
        (["--episodes", "0"], "episodes must be >= 1"),
    ],
)
def test_bad_input_is_one_message(flags, message, capsys):
    try:
        status = load_program().main(flags)
    except SystemExit as stop:  # how tyro reports a flag's bad value
        status = stop.code
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
