"""agents/train.py and agents/evaluate.py as programs: results, signals, invalid flags."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3
import pytest

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.utils import log

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
WORLD = json.dumps({"image_size": 32, "num_objects": 2, "object_scale": 0.25, "agent_scale": 0.25})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, small_model: Callable[..., Any]) -> Path:
    """A small untrained encoder."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_pretrained(small_model(), folder)
    return folder


def flags(encoder: Path, out: Path, *more: str) -> list[str]:
    given = {
        "--encoder": encoder,
        "--out": out,
        "--env-options": WORLD,
        "--n-envs": 2,
        "--ppo.n-steps": 64,
        "--ppo.batch-size": 64,
        "--policy.width": 16,
        "--eval-episodes": 3,
        "--threads": 1,
        "--encoder-device": "cpu",
    }
    return [*(str(part) for pair in given.items() for part in pair), "--no-tensorboard", *more]


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "agents" / program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "agent"
    process = start(
        "train.py", *flags(encoder, out, "--total-timesteps", "256", "--encoder-precision", "bf16")
    )
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert f"{out}: 256 steps; best: step 256, mean_return" in output
    return out


@pytest.mark.smoke
def test_training_saves_two_agents_and_a_log(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["best", "last", "metrics.jsonl"]
    settings = json.loads((trained / "best" / "agent.json").read_text())
    assert settings["steps"] == 256
    assert settings["config"]["encoder_precision"] == "bf16"
    assert set(settings["metrics"]) == {"step", "mean_return", "success_rate", "eval_seconds"}
    assert [row["step"] for row in log.read(trained)] == [128, 256, 256]


@pytest.mark.smoke
def test_evaluating_writes_scores_and_a_video(trained: Path) -> None:
    process = start("evaluate.py", str(trained), "--episodes", "6", "--video-episodes", "2")
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    agent, deterministic, random, written = output.splitlines()
    lines = {"agent": agent, "deterministic": deterministic, "random": random}
    for name, line in lines.items():
        assert line.startswith(f"{name:<13} success ")
    assert "95% interval" in random
    assert written == f"wrote {trained}"
    result = json.loads((trained / "evaluation.json").read_text())
    assert {result[name]["episodes"] for name in ("agent", "deterministic", "random")} == {6}
    low, high = result["agent"]["success_interval"]
    assert low <= result["agent"]["success_rate"] <= high
    video = imageio.v3.imread(trained / "video.mp4")
    # Frame, tinted frame and three slots, each 128 pixels wide, with lines of 2 between them.
    assert video.shape[1:] == (128, 5 * 128 + 4 * 2, 3)
    assert len(video) > 2


def test_evaluating_the_agent_alone_elsewhere(
    trained: Path, tmp_path: Path, run_program: Run
) -> None:
    more = ("--no-random", "--no-deterministic", "--vec", "subproc")
    film = ("--video-episodes", "1", "--video-format", "gif")
    status, output, errors = run_program(
        "agents/evaluate.py",
        *(str(trained / "last"), "--episodes", "2", "--out", str(tmp_path / "e"), *more, *film),
    )
    assert (status, errors) == (0, "")
    assert output.startswith("agent success")
    assert "random" not in output
    assert "deterministic" not in output
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"evaluation.json", "video.gif"}
    assert imageio.v3.imread(tmp_path / "e" / "video.gif").shape[1:3] == (128, 5 * 128 + 4 * 2)


@pytest.mark.parametrize(
    ("stop", "status", "whole_group"),
    [
        (signal.SIGTERM, 143, False),
        (signal.SIGTERM, 143, True),
        (signal.SIGINT, 130, True),  # as sent by a terminal
    ],
)
def test_a_signal_saves_a_checkpoint(
    encoder: Path, tmp_path: Path, stop: signal.Signals, status: int, whole_group: bool
) -> None:
    out = tmp_path / "run"
    endless = ("--total-timesteps", "1000000", "--eval-every", "900000")
    vec = ("--vec", "subproc" if whole_group else "dummy")
    process = start("train.py", *flags(encoder, out, *endless, *vec))
    deadline = time.monotonic() + 150
    while not (out / log.FILE).is_file() or not log.read(out):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if whole_group:
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "stopped at step" in errors and "--resume" in errors
    assert "Traceback" not in errors
    assert (out / "last" / "training.pt").is_file()
    steps = json.loads((out / "best" / "agent.json").read_text())["steps"]
    assert 128 <= steps < 1000000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--env", "Nowhere-v0"], "env 'Nowhere-v0' cannot be made: NameNotFound"),
        (["--env", "CartPole-v1", "--env-options", "{}"], ": the observation "),
        (["--env-options", '{"image_size": 3}'], ": image_size "),
        (["--encoder", "nowhere"], ": --encoder "),
        (["--policy.extractor", "rnn"], "invalid choice 'rnn'"),
        (["--device", "abacus"], "device"),
        (["--ppo.gamma", "3"], "gamma"),
        (["--n-envs", "0"], "--n-envs "),
    ],
)
def test_bad_flags_end_with_status_2(
    more: list[str], message: str, encoder: Path, tmp_path: Path, run_program: Run
) -> None:
    status, output, errors = run_program(
        "agents/train.py", *flags(encoder, tmp_path / "run", *more)
    )
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert output == ""
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(trained: Path, encoder: Path, run_program: Run) -> None:
    before = (trained / "best" / "agent.json").read_bytes()
    status, _, errors = run_program("agents/train.py", *flags(encoder, trained))
    assert status == 2
    assert errors.startswith("train.py: --out ")
    assert "--resume" in errors
    assert (trained / "best" / "agent.json").read_bytes() == before


def test_evaluating_an_empty_folder_ends_with_status_2(tmp_path: Path, run_program: Run) -> None:
    status, _, errors = run_program("agents/evaluate.py", str(tmp_path))
    assert status == 2
    assert errors.startswith("evaluate.py: folder ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--episodes", "0"], "episodes"),
        (["--video-episodes", "-1"], "--video-episodes"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_flags_of_an_evaluation(
    more: list[str], message: str, tmp_path: Path, run_program: Run
) -> None:
    status, _, errors = run_program("agents/evaluate.py", str(tmp_path), *more)
    assert status == 2
    assert message in errors
