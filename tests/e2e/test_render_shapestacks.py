"""envs/render_shapestacks.py as a user runs it: trees, packs, a kill, bad input."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_rl.data import open_dataset
from genesis_rl.worlds import offscreen

ROOT = Path(__file__).parents[2]
PROGRAM = "envs/render_shapestacks.py"
GENUINE = ROOT.parent / "shared" / "reference" / "shapestacks_example" / "mjcf"
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.usefixtures("opengl")
def test_renders_a_tree_that_converts_to_training_data(tmp_path: Path, run_program: Run) -> None:
    flags = ["--scenarios", "4", "--cameras", "1", "16", "--workers", "1", "--family", "ccs"]
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "tree"), *flags)
    assert (status, errors) == (0, "")
    assert "4 of 4 scenarios" in out
    assert "none 2 of 2 as simulated" in out
    pack = open_dataset(
        "shapestacks", root=tmp_path, source=tmp_path / "tree", subset="ccs_all", image_size=32
    )
    assert set(pack.factors["camera"]) == {1, 16}


@pytest.mark.usefixtures("opengl")
def test_renders_packs(tmp_path: Path, run_program: Run) -> None:
    flags = ["--pack", "--scenarios", "7", "--cameras", "1", "--image-size", "16"]
    options = [*flags, "--workers", "1", "--no-simulate", "--rule", "corrected"]
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "packs"), *options)
    assert (status, errors) == (0, "")
    assert f"{tmp_path / 'packs' / 'train'}: 5 images" in out
    assert "as simulated" not in out
    pack = open_dataset(tmp_path / "packs")
    assert "simulated_stable" not in pack.factors
    assert pack.meta["rule"] == "corrected"


@pytest.mark.usefixtures("opengl")
@pytest.mark.skipif(not GENUINE.is_dir(), reason="the genuine example is not beside the repository")
def test_renders_genuine_worlds(tmp_path: Path, run_program: Run) -> None:
    flags = ["--mjcf", str(GENUINE), "--cameras", "1", "--workers", "1"]
    status, out, _ = run_program(PROGRAM, "--out", str(tmp_path / "tree"), *flags)
    assert status == 0
    assert "2 of 2 scenarios" in out
    assert "none 1 of 1 as simulated" in out
    assert "vcom cuboid 1 of 1 as simulated" in out
    scenarios = {path.name for path in (tmp_path / "tree" / "recordings").iterdir()}
    assert scenarios == {path.stem for path in GENUINE.glob("env_*.xml")}


@pytest.mark.slow
@pytest.mark.usefixtures("opengl")
def test_resumes_after_a_kill(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    flags = ["--out", str(tree), "--scenarios", "9", "--cameras", "3", "--workers", "2"]
    command = [sys.executable, str(ROOT / PROGRAM), *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    done = tree / "meta" / "scenarios"
    wait_until(lambda: len(list(done.glob("*.json"))) >= 2)
    os.kill(process.pid, signal.SIGKILL)  # the first process alone; the workers see it
    process.wait()
    assert not (tree / "splits").exists()
    wait_until(lambda: not session_lives(process.pid))
    kept = {path.name: path.stat().st_mtime_ns for path in done.glob("*.json")}
    assert 2 <= len(kept) < 9
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    assert len(list(done.glob("*.json"))) == 9
    assert all((done / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    assert len(list((tree / "recordings").iterdir())) == 9  # no remains either
    assert (tree / "splits" / "default" / "train.txt").is_file()


def session_lives(leader: int) -> bool:
    """Return whether a process of the session is running."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_without_opengl_the_error_names_the_packages(
    tmp_path: Path, run_program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("no OpenGL context could be made:\n `apt-get install libegl1`")

    monkeypatch.setattr(offscreen, "require_gl", refuse)
    status, out, errors = run_program(PROGRAM, "--out", str(tmp_path / "tree"))
    assert (status, out) == (2, "")
    assert errors.startswith("render_shapestacks.py: no OpenGL") and "libegl1" in errors
    assert not (tmp_path / "tree").exists()


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--heights", "7"], ": --heights "),
        (["--first", "1000"], ": --first "),
        (["--mjcf", "no/such/folder"], ": --mjcf "),
        (["--textures", "no/such/folder"], ": --textures "),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path, flags: list[str], message: str, run_program: Run
) -> None:
    status, _, errors = run_program(PROGRAM, "--out", str(tmp_path / "tree"), *flags)
    assert status == 2
    assert message in errors
