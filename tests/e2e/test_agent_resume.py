"""Resuming agents/train.py: restored state, kills at any time, errors."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genesis_rl.agents.bundle import load_agent
from genesis_rl.agents.config import AgentConfig, PolicyConfig, PPOConfig
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.utils import log

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
WORLD = json.dumps({"image_size": 32, "num_objects": 2, "max_episode_steps": 10})
STEPS = 64  # per rollout


def settings(out: Path, **changes: Any) -> AgentConfig:
    options: dict[str, Any] = {
        "obs": "state",
        "env_options": WORLD,
        "policy": PolicyConfig("mlp", width=16, layers=1),
        "ppo": PPOConfig(n_steps=32, batch_size=32, n_epochs=1),
        "n_envs": 2,
        "vec": "dummy",
        "total_timesteps": 4 * STEPS,
        "eval_every": 2 * STEPS,
        "eval_episodes": 2,
        "out": out,
        "tensorboard": False,
        "progress": False,
    }
    return AgentConfig(**(options | changes))


def steps(out: Path) -> list[float]:
    return [row["step"] for row in log.read(out)]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> AgentTrainer:
    """A completed run of four rollouts."""
    trainer = AgentTrainer(settings(tmp_path_factory.mktemp("runs") / "half"))
    trainer.run()
    return trainer


def copy(run: AgentTrainer, folder: Path, **changes: Any) -> AgentConfig:
    """Copy a run directory, and return its settings with changes."""
    shutil.copytree(run.config.out, folder / "run")
    return replace(run.config, out=folder / "run", **changes)


def assert_equal(first: Any, second: Any) -> None:
    """Compare nested state dicts."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_equal(first[name], second[name])
    else:
        assert first == second


def test_the_training_state_is_restored(half: AgentTrainer, tmp_path: Path) -> None:
    again = AgentTrainer(copy(half, tmp_path, total_timesteps=8 * STEPS), resume=True)
    before, after = half.model, again.model
    assert after.num_timesteps == 4 * STEPS
    assert after._n_updates == before._n_updates > 0
    assert_equal(before.policy.state_dict(), after.policy.state_dict())
    assert before.policy.optimizer.state_dict()["state"]
    assert_equal(before.policy.optimizer.state_dict(), after.policy.optimizer.state_dict())
    assert before.ep_info_buffer and before.ep_success_buffer is not None
    kept = [{name: episode[name] for name in "rlt"} for episode in before.ep_info_buffer]
    assert list(after.ep_info_buffer or ()) == kept
    assert list(after.ep_success_buffer or ()) == list(before.ep_success_buffer)
    assert again.metrics == half.metrics
    assert 0 < again.seconds <= half.seconds
    again.close()


def test_a_longer_run_is_resumed(half: AgentTrainer, tmp_path: Path) -> None:
    config = copy(half, tmp_path, total_timesteps=7 * STEPS)
    trainer = AgentTrainer(config, resume=True)
    trainer.run()
    rollouts, evaluations = range(STEPS, 8 * STEPS, STEPS), (2, 4, 6, 7)
    assert steps(config.out) == sorted([*rollouts, *(n * STEPS for n in evaluations)])
    evaluated = [row["step"] for row in log.read(config.out) if "eval/mean_reward" in row]
    assert evaluated == [n * STEPS for n in evaluations]
    seconds = [row["time/seconds"] for row in log.read(config.out) if "time/seconds" in row]
    assert seconds == sorted(seconds)
    agent = load_agent(config.out / "last")
    agent.venv.close()
    assert agent.metadata["steps"] == 7 * STEPS
    assert trainer.metrics["best"]["mean_return"] >= half.metrics["best"]["mean_return"]


def test_resuming_is_repeatable_and_starts_new_episodes(half: AgentTrainer, tmp_path: Path) -> None:
    states: list[Any] = []
    starts: list[Any] = []
    for name in ("a", "b"):
        config = copy(half, tmp_path / name, total_timesteps=6 * STEPS)
        trainer = AgentTrainer(config, resume=True)
        trainer.run()
        states.append(trainer.model.policy.state_dict())
        assert trainer.model._last_obs is not None
    assert_equal(*states)
    for folder in ("fresh", "a/run"):
        config = settings(tmp_path / folder, total_timesteps=8 * STEPS)
        trainer = AgentTrainer(config, resume=True)
        starts.append(trainer.venv.reset())
        trainer.close()
    assert not (starts[0] == starts[1]).all()


def test_a_completed_run_is_unchanged(half: AgentTrainer, tmp_path: Path, run_program: Run) -> None:
    config = copy(half, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    status, output, errors = run_program("agents/train.py", *flags(config.out, "--resume"))
    assert status == 0
    assert f"{config.out} is completed at step 256" in errors and "--total-timesteps" in errors
    assert f"{config.out}: 256 steps; best: step" in output
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == before


def test_the_time_limit_includes_earlier_sessions(half: AgentTrainer, tmp_path: Path) -> None:
    minutes = half.seconds / 2 / 60
    config = copy(half, tmp_path, total_timesteps=10**6, max_minutes=minutes)
    trainer = AgentTrainer(config, resume=True)
    assert trainer.finished
    trainer.run()
    assert steps(config.out) == steps(half.config.out)


def test_a_run_killed_before_its_first_save_starts_at_0(tmp_path: Path, run_program: Run) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / log.FILE).write_text('{"step": 64, "time": 1, "time/fps": 9}\n{"step": 1')
    status, _, errors = run_program("agents/train.py", *flags(out))
    assert status == 2 and "add --resume" in errors
    status, _, errors = run_program("agents/train.py", *flags(out, "--resume"))
    assert status == 0 and f"no checkpoint in {out}" in errors
    assert len(steps(out)) == len([row for row in log.read(out) if row["time"] > 1]) == 6


def test_a_run_killed_between_last_and_best(half: AgentTrainer, tmp_path: Path) -> None:
    config = copy(half, tmp_path)
    shutil.rmtree(config.out / "best")
    AgentTrainer(config, resume=True).close()
    best, last = (json.loads((config.out / n / "agent.json").read_text()) for n in ("best", "last"))
    assert (best["steps"], best["metrics"]) == (last["steps"], last["metrics"])
    assert best["metrics"]["step"] == 4 * STEPS


def test_a_run_of_an_earlier_version_has_no_training_state(
    half: AgentTrainer, tmp_path: Path
) -> None:
    config = copy(half, tmp_path, total_timesteps=5 * STEPS)
    (config.out / "last" / "training.pt").unlink()
    with pytest.warns(UserWarning, match="training.pt"):
        trainer = AgentTrainer(config, resume=True)
    trainer.run()
    assert steps(config.out)[-1] == 5 * STEPS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ppo": PPOConfig(gamma=0.5, n_steps=32, batch_size=32, n_epochs=1)}, "ppo.gamma"),
        ({"seed": 5}, r"^seed "),
        ({"policy": PolicyConfig("mlp", width=32, layers=1)}, "policy.width"),
        ({"n_envs": 3}, "n_envs"),
        ({"env": "genesis_rl/ObjectComparison-v0"}, "env "),
    ],
)
def test_other_settings_are_refused_by_name(
    changes: dict[str, Any], message: str, half: AgentTrainer, tmp_path: Path
) -> None:
    config = copy(half, tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        AgentTrainer(config, resume=True)


def test_damaged_state_is_refused(half: AgentTrainer, tmp_path: Path) -> None:
    config = copy(half, tmp_path)
    for content in (b"", b"cos\nsystem\n(S'exit 1'\ntR."):
        (config.out / "last" / "training.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"training\.pt"):
            AgentTrainer(config, resume=True)


@pytest.mark.parametrize(
    "marker",
    ["train.json", "last/config.json", "best/config.json", "imagination.json", "dream.json"],
)
@pytest.mark.parametrize("resume", [False, True])
def test_runs_of_other_programs_are_refused(marker: str, resume: bool, tmp_path: Path) -> None:
    (tmp_path / marker).parent.mkdir(exist_ok=True)
    (tmp_path / marker).write_text("{}")
    with pytest.raises(ValueError, match=r"^out .*new"):
        AgentTrainer(settings(tmp_path), resume=resume)
    (tmp_path / "agent.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^out .*run directory"):
        AgentTrainer(settings(tmp_path), resume=resume)


def test_another_encoder_is_refused(quadrants: Path, tmp_path: Path) -> None:
    config = settings(
        tmp_path / "run", obs="encoder", encoder=str(quadrants), total_timesteps=STEPS
    )
    AgentTrainer(config).run()
    moved = tmp_path / "moved"
    shutil.copytree(quadrants, moved)
    AgentTrainer(replace(config, encoder=str(moved)), resume=True).close()
    settings_file = moved / "config.json"
    content = json.loads(settings_file.read_text())
    content["config"]["image_size"] = 64
    settings_file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^encoder "):
        AgentTrainer(replace(config, encoder=str(moved)), resume=True)


def flags(out: Path, *more: str) -> list[str]:
    return [
        *("--obs", "state", "--env-options", WORLD, "--out", str(out), "--vec", "dummy"),
        *("--n-envs", "2", "--ppo.n-steps", "32", "--ppo.batch-size", "32"),
        *("--ppo.n-epochs", "1", "--policy.extractor", "mlp", "--policy.width", "16"),
        *("--policy.layers", "1", "--eval-every", "128", "--eval-episodes", "2"),
        *("--total-timesteps", "256", "--threads", "1", "--no-tensorboard", "--no-progress", *more),
    ]


def kill_at(condition: Callable[[], bool], *arguments: str) -> None:
    """Start a training and kill it when a condition is true."""
    command = [sys.executable, str(ROOT / "agents" / "train.py"), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 150
        while not condition():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()


def test_a_run_killed_repeatedly_is_completed(tmp_path: Path, run_program: Run) -> None:
    out, endless = tmp_path / "run", ("--resume", "--total-timesteps", "1000000")
    kill_at((out / log.FILE).exists, *flags(out, *endless))  # before or in the first rollout
    kill_at((out / "last" / "training.pt").exists, *flags(out, *endless))
    before = json.loads((out / "last" / "agent.json").read_text())["steps"]
    kill_at(lambda: steps(out)[-1] > before + 600, *flags(out, *endless))
    saved = json.loads((out / "last" / "agent.json").read_text())["steps"]
    assert before <= saved < 1_000_000
    total = saved + 256
    status, output, errors = run_program(
        "agents/train.py", *flags(out, "--resume", "--total-timesteps", str(total))
    )
    assert status == 0 and f"resuming {out} at step {saved}" in errors
    assert f"{out}: {total} steps" in output
    assert steps(out) == sorted(steps(out)) and steps(out)[-1] == total
    rollouts = [row["step"] for row in log.read(out) if "time/fps" in row]
    assert len(set(rollouts)) == len(rollouts)
    assert {path.name for path in out.iterdir()} >= {"best", "last", log.FILE}
    for name in ("best", "last"):
        load_agent(out / name).venv.close()
    assert os.listdir(tmp_path) == ["run"]
