"""pretrain/train.py as a user runs it: to the end, killed and resumed, stopped, misused."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import genesis_rl
from genesis_rl.utils import log

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def command(out: Path, *flags: str) -> list[str]:
    program = str(ROOT / "pretrain" / "train.py")
    base = [sys.executable, program, "--preset", "smoke", "--out", str(out), "--no-tensorboard"]
    return [*base, "--device", "cpu", "--precision", "fp32", "--threads", "1", *flags]


def environment(data_root: Path) -> dict[str, str]:
    return os.environ | {"GENESIS_RL_DATA": str(data_root)}


def train(data_root: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *flags),
        env=environment(data_root),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def uninterrupted(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    result = train(data_root, out, "--steps", "60")
    assert result.returncode == 0, result.stderr
    assert "step 60" in result.stdout
    return out


@pytest.fixture
def here(data_root: Path, monkeypatch: pytest.MonkeyPatch, run_program: Run) -> Run:
    """Run the program in this process: the run's folder and flags to status, output and errors."""
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    return lambda out, *flags: run_program("pretrain/train.py", *command(out, *flags)[2:])


def wait_for_step(process: "subprocess.Popen[str]", out: Path, step: int) -> None:
    """Wait until a checkpoint of at least this step lies in the folder."""
    deadline = time.monotonic() + 150
    config = out / "last" / "config.json"
    while time.monotonic() < deadline:
        assert process.poll() is None, "the training ended before it could be stopped"
        try:
            if json.loads(config.read_text())["step"] >= step:
                return
        except (OSError, ValueError):
            pass  # between two names
        time.sleep(0.005)
    raise AssertionError("no checkpoint in time")


def same_weights(a: Path, b: Path) -> bool:
    first, second = (load_file(run / "last" / "model.safetensors") for run in (a, b))
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("kill_at", [5, 30])
def test_a_killed_run_resumes_to_the_same_weights(
    data_root: Path, uninterrupted: Path, tmp_path: Path, kill_at: int
) -> None:
    out = tmp_path / "killed"
    with subprocess.Popen(
        command(out, "--steps", "60"),
        env=environment(data_root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        wait_for_step(process, out, kill_at)
        process.send_signal(signal.SIGKILL)
    assert not same_weights(out, uninterrupted)
    result = train(data_root, out, "--steps", "60", "--resume")
    assert result.returncode == 0, result.stderr
    assert same_weights(out, uninterrupted)
    steps = [row["step"] for row in log.read(out) if "train/nll" in row]
    assert steps == list(range(5, 65, 5))  # every line once, in order


def test_sigterm_saves_before_leaving(data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    with subprocess.Popen(
        command(out, "--steps", "100000", "--save-every", "7"),
        env=environment(data_root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_step(process, out, 7)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 143
    step = json.loads((out / "last" / "config.json").read_text())["step"]
    assert f"stopped at step {step}" in errors
    state = torch.load(out / "last" / "training.pt", weights_only=True)
    assert state["step"] == step


@pytest.mark.smoke
def test_the_run_folder_is_an_encoder(uninterrupted: Path) -> None:
    model = genesis_rl.load(uninterrupted, device="cpu")
    assert model.infer(torch.rand(1, 3, 32, 32)).z_m.shape == (1, 3, 8)
    rows = log.read(uninterrupted)
    validated = [row for row in rows if "validation/msc" in row]
    assert [row["step"] for row in validated] == [10, 20, 30, 40, 50, 60]
    assert all(row["train/beta"] >= 1e-3 for row in rows if "train/beta" in row)
    losses = [row["train/nll"] for row in rows if "train/nll" in row]
    assert losses[-1] < losses[0]


def test_not_finite_names_step_and_term_and_keeps_the_checkpoint(
    data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exploded"
    flags = ("--learning-rate", "1e9", "--schedule", "constant", "--steps", "200")
    result = train(data_root, out, *flags, "--save-every", "1")
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    assert "not finite" in result.stderr or " is nan at step " in result.stderr
    row = log.read(out)[-1]
    assert row.get("train/nonfinite_weights", 0) > 0 or not all(map(math.isfinite, row.values()))
    if (out / "last").exists():
        state = load_file(out / "last" / "model.safetensors")
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--preset", "nonsense"), [": preset ", "multi-dsprites"]),
        (("--data", "nowhere"), ["nowhere", "multi_dsprites"]),
        (("--data-options", '{"image_size": 64, "num_images": 9}'), ["64 x 64", "32 x 32"]),
        (("--data-options", "[1"), ["--data-options", "JSON"]),
        (("--model.num-slots", "1"), ["--model.num-slots "]),
        (("--batch-size", "0"), ["--batch-size "]),
        (("--batch-size", "9999"), ["256 images", "9999"]),
        (("--resume",), [": --out "]),
        (("--device", "cuda:77"), ["cuda"]),
    ],
)
def test_misuse_ends_with_status_2_and_one_reason(
    data_root: Path, tmp_path: Path, flags: tuple[str, ...], words: list[str], here: Run
) -> None:
    status, _, errors = here(tmp_path / "new", *flags)
    assert status == 2, errors
    assert "Traceback" not in errors
    for word in words:
        assert word in errors, errors


def test_a_run_is_not_overwritten_nor_resumed_as_another(uninterrupted: Path, here: Run) -> None:
    status, _, errors = here(uninterrupted, "--steps", "60")
    assert status == 2 and ": --out " in errors
    status, _, errors = here(uninterrupted, "--steps", "60", "--seed", "1", "--resume")
    assert status == 2 and ": --seed " in errors


def test_help_lists_the_presets(tmp_path: Path, here: Run) -> None:
    status, text, _ = here(tmp_path, "--help")
    assert status == 0
    for name in ("multi-dsprites-small", "multi-dsprites-s", "--geco.goal", "--learning-rate"):
        assert name in text
