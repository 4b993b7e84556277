"""agents/compare.py as a program: a grid, resuming, signals, parallel runs, invalid flags."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.models import Genesis
from genesis_rl.training.presets import PRESETS
from genesis_rl.utils import log

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
WORLD = json.dumps(
    {"image_size": 32, "num_objects": 2, "object_scale": 0.25, "agent_scale": 0.25}
    | {"max_episode_steps": 10}
)
GOAL = "genesis_rl/ObjectGoal-v0"


def flags(out: Path, *more: str) -> list[str]:
    return [
        *("--out", str(out), "--tasks", GOAL, "--episodes", "4"),
        *("--agent.env-options", WORLD, "--agent.n-envs", "2", "--agent.vec", "dummy"),
        *(
            "--agent.ppo.n-steps",
            "32",
            "--agent.ppo.batch-size",
            "32",
            "--agent.policy.width",
            "16",
        ),
        *("--agent.eval-episodes", "2", "--agent.total-timesteps", "192", "--agent.threads", "1"),
        *("--agent.no-tensorboard", "--agent.no-progress", *more),
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder with a validation score."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "encoder"
    config: Any = PRESETS["smoke"].config.model
    save_pretrained(Genesis(config), folder, extra={"validation": {"ari": 0.25, "other": 1}})
    return folder


def test_a_completed_grid_is_not_repeated(encoder: Path, tmp_path: Path, run_program: Run) -> None:
    given = flags(
        tmp_path / "grid",
        *("--obs", "state", f"genesis={encoder}", "--seeds", "0", "1"),
        *("--summary", str(tmp_path / "rl.json")),
    )
    status, output, errors = run_program("agents/compare.py", *given)
    assert (status, errors) == (0, "")
    assert output.startswith(f"{GOAL}, state, seed 0: success ")
    assert "*published: SLATE* | 0.985" in output
    summary = json.loads((tmp_path / "rl.json").read_text())
    assert [(run["label"], run["seed"]) for run in summary["runs"]] == [
        ("state", 0),
        ("genesis-encoder", 0),
        ("state", 1),
        ("genesis-encoder", 1),
    ]
    first, seen = summary["runs"][:2]
    assert first["steps"] == 192
    assert first["curve"]["steps"] == [64, 128, 192]
    assert first["seconds"] >= first["curve"]["seconds"][-1] > 0
    assert sum(first["shares"].values()) == pytest.approx(1)
    assert first["evaluation"]["random"]["episodes"] == 4
    assert "random" not in seen["evaluation"]
    assert seen["encoder"]["scores"] == {"ari": 0.25}
    assert len(seen["encoder"]["fingerprint"]) == 64
    assert "threads" not in seen["hardware"] or "1 thread" in seen["hardware"]
    assert [row[0] for row in summary["tables"][1]["rows"]] == ["genesis-encoder"]
    assert (tmp_path / "rl-steps.png").is_file()

    # Run again: nothing is trained. A run without its record keeps its training, and an
    # interrupted training is resumed.
    folder = tmp_path / "grid" / "genesis_rl_ObjectGoal-v0" / "state"
    kept = (folder / "1" / "agent" / "metrics.jsonl").stat().st_mtime_ns
    cut = (folder / "0" / "agent" / "metrics.jsonl").stat().st_mtime_ns
    (folder / "1" / "run.json").unlink()
    (folder / "0" / "run.json").unlink()
    shutil.rmtree(folder / "0" / "agent" / "last")
    status, output, errors = run_program("agents/compare.py", *given)
    assert (status, errors) == (0, "")
    assert output.count(": success ") == 2
    assert (folder / "1" / "agent" / "metrics.jsonl").stat().st_mtime_ns == kept
    assert (folder / "0" / "agent" / "metrics.jsonl").stat().st_mtime_ns > cut

    # Another comparison includes these runs in its summary.
    beside = flags(
        tmp_path / "other",
        *("--obs", "pixels", "--seeds", "2", "--include", f"small={tmp_path / 'grid'}"),
        *("--summary", str(tmp_path / "both.json")),
    )
    status, _, errors = run_program("agents/compare.py", *beside)
    assert (status, errors) == (0, "")
    both = json.loads((tmp_path / "both.json").read_text())
    assert [run["label"] for run in both["runs"]].count("state, small") == 2
    assert both["tables"][0]["rows"][0][0] == "pixels"
    status, _, errors = run_program("agents/compare.py", *beside[:-3], str(tmp_path / "none"))
    assert status == 2 and "include" in errors

    status, _, errors = run_program("agents/compare.py", *given, "--agent.ppo.gamma", "0.5")
    assert status == 2
    assert "ppo.gamma must be" in errors


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "agents" / "compare.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def all_gone(group: int) -> bool:
    """Whether all processes of a group end within a few seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "stop", "status", "executor"),
    [
        (1, signal.SIGTERM, 143, "processes"),
        (2, signal.SIGTERM, 143, "processes"),
        (2, signal.SIGINT, 130, "processes"),
        (2, signal.SIGTERM, 143, "local"),
    ],
)
def test_a_signal_ends_all_runs_without_records(
    jobs: int, stop: signal.Signals, status: int, executor: str, tmp_path: Path
) -> None:
    if executor == "local":
        pytest.importorskip("submitit")
    endless = ("--agent.total-timesteps", "10000000", "--obs", "state", "--seeds", "0", "1")
    parallel = ("--jobs", str(jobs), "--executor", executor)
    process = start(*flags(tmp_path, *endless, *parallel))
    folder = tmp_path / "genesis_rl_ObjectGoal-v0" / "state"
    logs = [folder / str(seed) / "agent" / "metrics.jsonl" for seed in range(jobs)]
    deadline = time.monotonic() + 200
    while not all(path.is_file() and path.stat().st_size for path in logs):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    if stop is signal.SIGINT:  # as sent by a terminal
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == status, errors
    # Submitit's local jobs print the interrupt that ends them.
    assert executor == "local" or "Traceback" not in errors
    assert "compare.py: stopped " in errors
    assert all_gone(process.pid)
    assert not list(tmp_path.rglob("run.json"))
    states = [path.parent / "last" / "training.pt" for path in logs]
    assert all(path.is_file() for path in states)  # the same command resumes


@pytest.mark.slow
def test_parallel_runs(tmp_path: Path) -> None:
    process = start(*flags(tmp_path, "--obs", "state", "--seeds", "0", "1", "--jobs", "2"))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.count(": success ") == 2
    assert len(list(tmp_path.rglob("run.json"))) == 2


@pytest.mark.slow
def test_jobs_resume_after_a_preemption(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    options = json.dumps({"timeout_min": 30})
    # Rollouts of one step, so that the signal cannot interrupt a rollout.
    rollouts = ("--agent.n-envs", "64", "--agent.ppo.n-steps", "1")
    more = ("--obs", "state", "--seeds", "0", "1", "--agent.total-timesteps", "1920", *rollouts)
    parallel = ("--jobs", "2", "--executor", "local", "--executor-options", options)
    process = start(*flags(tmp_path, *more, *parallel))
    metrics = tmp_path / "genesis_rl_ObjectGoal-v0" / "state" / "0" / "agent" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not metrics.is_file() or not metrics.stat().st_size:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # The signal that submitit makes SLURM send before it ends a job.
    owner = json.loads((metrics.parent / ".genesis_rl" / "owner.json").read_text())
    os.kill(owner["pid"], signal.SIGUSR2)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.count(": success ") == 2
    logs = "".join(path.read_text() for path in (tmp_path / "jobs").glob("*_log.*"))
    assert logs.count("Requeued job") == 1
    steps = [row["step"] for row in log.read(metrics.parent) if "time/fps" in row]
    assert steps == list(range(64, 1921, 64))


def test_a_failed_run_is_reported_after_the_others(
    tmp_path: Path, run_program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(config: Any) -> Any:
        if "/0/" in str(config.folder):
            raise ValueError("the simulator went away")
        return evaluate_agent(config)

    monkeypatch.setattr("genesis_rl.agents.comparison.grid.evaluate_agent", fails_once)
    status, output, errors = run_program(
        "agents/compare.py", *flags(tmp_path, "--obs", "state", "--seeds", "0", "1")
    )
    assert status == 1
    assert f"{GOAL}, state, seed 0: failed: the simulator went away" in output
    assert f"{GOAL}, state, seed 1: success" in output
    assert errors == f"compare.py: 1 of 2 runs failed: {GOAL}, state, seed 0."


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--obs", "genesis"], "obs"),
        (["--obs", "genesis=nowhere"], ": encoder "),
        (["--obs", "sound"], "obs"),
        (["--tasks", "Nowhere-v0"], "env 'Nowhere-v0' cannot be made"),
        (
            ["--tasks", "CarRacing-v3", "--obs", "state", "--agent.env-options", "{}"],
            "observation='state'",
        ),
        (["--preset", "theirs"], "preset"),
        (["--episodes", "0"], "episodes"),
    ],
)
def test_bad_flags_end_with_status_2(
    more: list[str], message: str, tmp_path: Path, run_program: Run
) -> None:
    status, output, errors = run_program("agents/compare.py", *flags(tmp_path / "grid", *more))
    assert status == 2
    assert message in errors
    assert output == ""
    assert not (tmp_path / "grid").exists()
