"""agents/train_in_imagination.py: returns in the real environment, resuming, rounds, errors."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from genesis_rl.agents.config import EvaluationConfig
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.imagination import ImaginationConfig
from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.recording.collect import CollectConfig, collect
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training.presets import PRESETS
from genesis_rl.utils import log
from genesis_rl.utils.process import StoppedError
from genesis_rl.world_model import ActionSpec, WorldModelConfig
from genesis_rl.world_model.sequences import WorldModelData
from genesis_rl.world_model.training import WorldTrainConfig, WorldTrainer

Run = Callable[..., tuple[int, str, str]]
World = Callable[..., Path]
NAME = "train_in_imagination.py"
ENV, STEPS = "Carousel-v0", 6


class Carousel(gym.Env[Any, Any]):
    """A light moves around the quadrants; the action with its position has reward 1."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 5}  # noqa: RUF012

    def __init__(self, bright: int = 240) -> None:
        self.observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.action_space = spaces.Discrete(4)
        self.bright = bright

    def _draw(self) -> Any:
        quarters = np.full(4, 20)
        quarters[[0, 1, 3, 2][self._at]] = self.bright
        frame = np.kron(quarters.reshape(2, 2), np.ones((16, 16)))
        return np.repeat(frame[..., None], 3, 2).astype(np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._at = int(self.np_random.integers(4))
        self._hits = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        hit = int(action) == self._at
        self._hits += hit
        self._at = (self._at + 1) % 4
        return self._draw(), float(hit), False, False, {"is_success": self._hits >= STEPS - 1}


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "cache"))
    gym.register(ENV, lambda **options: Carousel(**options), max_episode_steps=STEPS)
    yield
    del gym.registry[ENV]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Random steps of the carousel."""
    out = tmp_path / "data"
    settings: dict[str, Any] = {"env": ENV, "n_envs": 4, "vec": "dummy", "image_size": 32}
    collect(CollectConfig(out=out, steps=480, **settings))
    return out


def flags(encoder: Path, world: Path, data: Path, *more: str) -> list[str]:
    return [
        *("--encoder", str(encoder), "--world-model", str(world), "--data", str(data)),
        *("--env", ENV, "--start", "data", "--no-mask-geometry", "--horizon", str(STEPS)),
        *("--n-envs", "4", "--vec", "dummy", "--n-imagined-envs", "16", "--policy.width", "16"),
        *("--ppo.n-steps", "16", "--ppo.batch-size", "64", "--policy.extractor", "mlp"),
        *("--total-timesteps", "512", "--eval-every", "256", "--eval-episodes", "4"),
        *("--threads", "1", "--encoder-device", "cpu", "--no-tensorboard", "--no-progress", *more),
    ]


def agent_file(run: Path, name: str = "last") -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / name / "agent.json").read_text())
    return read


@pytest.mark.slow
def test_an_agent_trained_in_imagination_acts_in_the_real_environment(
    quadrants: Path, data: Path, tmp_path: Path, run_program: Run
) -> None:
    world, out = tmp_path / "world", tmp_path / "run"
    fit = WorldTrainConfig(
        str(quadrants),
        data,
        model=WorldModelConfig(width=32, layers=1, attention_heads=2, ensemble=2),
        mask_geometry=False,
        align=False,
        steps=300,
        horizon=2,
        learning_rate=3e-3,
        device="cpu",
        tensorboard=False,
        out=world,
    )
    encoder = SlotEncoder(quadrants, device="cpu")
    WorldTrainer(fit, WorldModelData.load(data, encoder, mask_geometry=False, align=False)).run()
    steps = ("--total-timesteps", "8192", "--eval-every", "4096", "--ppo.learning-rate", "3e-3")
    status, output, errors = run_program(
        "agents/train_in_imagination.py", *flags(quadrants, world, data, *steps, "--out", str(out))
    )
    assert (status, errors) == (0, "")
    assert "8192 imagined steps, 480 real steps; best: step" in output
    result = evaluate_agent(EvaluationConfig(out, episodes=40, video_episodes=0))
    assert result["random"]["mean_return"] < 0.4 * STEPS
    assert result["agent"]["mean_return"] > 0.8 * STEPS
    assert agent_file(out, "best")["metrics"]["imagined_return"] > 0.7 * STEPS
    rows = log.read(out)
    assert [row["step"] for row in rows if "eval/imagined_return" in row] == [4096, 8192]
    imagined = [row for row in rows if "imagination/uncertainty" in row]
    assert len(imagined) == 8192 // 256
    assert all(
        row["imagination/real_steps"] == 480 and row["imagination/uncertainty"] > 0
        for row in imagined
    )
    assert imagined[-1]["rollout/ep_rew_mean"] > imagined[0]["rollout/ep_rew_mean"] + 1


def test_a_run_resumes_and_adds_rounds(
    quadrants: Path, untrained_world: World, data: Path, tmp_path: Path, run_program: Run
) -> None:
    out, world = tmp_path / "run", untrained_world(4)
    first = flags(quadrants, world, data, "--out", str(out))
    assert run_program("agents/train_in_imagination.py", *first)[0] == 0
    once = (out / "last" / "policy.safetensors").read_bytes()
    assert run_program("agents/train_in_imagination.py", *first)[0] == 0  # nothing is left to do
    assert (out / "last" / "policy.safetensors").read_bytes() == once
    assert agent_file(out)["steps"] == 512
    assert agent_file(out)["metrics"]["real_steps"] == 480

    anew = ("--rounds", "1", "--collect-steps", "120", "--fit-steps", "2")
    status, output, errors = run_program("agents/train_in_imagination.py", *first, *anew)
    assert (status, errors) == (0, "")
    assert "1024 imagined steps, 600 real steps" in output
    assert len(Transitions.open(out / "round-1" / "recording")) < 120  # the rest is held out
    joined = Transitions.open(out / "round-1" / "data")
    assert len(joined) == sum(
        len(Transitions.open(folder)) for folder in (data, out / "round-1" / "recording")
    )
    assert agent_file(out)["metrics"]["real_steps"] == 600
    costs = [
        row["imagination/real_steps"] for row in log.read(out) if "imagination/real_steps" in row
    ]
    assert costs == [480, 480, 600, 600]
    rows = [row["step"] for row in log.read(out) if "imagination/real_steps" in row]
    assert rows == [256, 512, 768, 1024]

    status, _, errors = run_program(
        "agents/train_in_imagination.py", *first, "--model-temperature", "2"
    )
    assert status == 2
    assert "--model-temperature " in errors


def test_a_signal_ends_training_and_rounds(
    quadrants: Path,
    untrained_world: World,
    data: Path,
    tmp_path: Path,
    run_program: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, world = tmp_path / "run", untrained_world(4)
    anew = ("--rounds", "1", "--collect-steps", "120", "--fit-steps", "2")
    given = [
        "agents/train_in_imagination.py",
        *flags(quadrants, world, data, "--out", str(out), *anew),
    ]

    def stops(self: Any) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    with monkeypatch.context() as patch:
        patch.setattr("genesis_rl.agents.imagination.trainer._ImaginationCallback._on_step", stops)
        status, _, errors = run_program(*given)
    assert (status, errors) == (130, f"{NAME}: stopped after 32 imagined steps, 480 real steps")

    def ends(config: Any) -> Any:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("genesis_rl.agents.imagination.trainer.collect_with_agent", ends)
        status, _, errors = run_program(*given)
    # The rest of the first round, in whole rollouts.
    assert (status, errors) == (143, f"{NAME}: stopped after 544 imagined steps, 480 real steps")
    assert agent_file(out)["metrics"]["step"] == 544
    assert not (out / "round-1").exists()

    status, output, _ = run_program(*given)
    assert status == 0
    assert "1056 imagined steps, 600 real steps" in output


def test_the_comparison_over_seeds(
    quadrants: Path, untrained_world: World, data: Path, tmp_path: Path, run_program: Run
) -> None:
    out, world = tmp_path / "runs", untrained_world(4)
    path = tmp_path / "results" / "imagination.json"
    given = flags(quadrants, world, data, "--out", str(out), "--summary", str(path))
    given += ["--seeds", "0", "1", "--episodes", "5"]
    status, output, errors = run_program("agents/train_in_imagination.py", *given)
    assert (status, errors) == (0, "")
    assert "imagination, seed 0: real return" in output
    assert "trained in | success | return | imagined return | real steps | imagined" in output
    summary = json.loads(path.read_text())
    assert path.with_suffix(".png").read_bytes()[1:4] == b"PNG"
    (table,) = summary["tables"]
    assert [(row[0], *row[4:]) for row in table["rows"]] == [
        ("imagination", "480", "512"),
        ("real environment", "512", "0"),  # whole rollouts
        ("*random policy*", "0", "0"),
    ]
    imagined, real, *_ = summary["runs"]
    assert len(summary["runs"]) == 4
    assert imagined["curve"]["steps"] == [256, 512]
    assert len(imagined["curve"]["imagined_return"]) == 2
    assert len(real["curve"]["steps"]) >= 2 and "imagined_return" not in real["curve"]
    assert imagined["evaluation"]["agent"]["episodes"] == 5
    assert ("random" in real["evaluation"], "random" in imagined["evaluation"]) == (True, False)
    assert imagined["encoder_fingerprint"] == SlotEncoder(quadrants, device="cpu").fingerprint

    before = (out / "imagination" / "1" / "last" / "policy.safetensors").stat().st_mtime_ns
    # Completed runs are kept, and reported again.
    assert run_program("agents/train_in_imagination.py", *given)[:2] == (0, output)
    assert (out / "imagination" / "1" / "last" / "policy.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_two_jobs_complete_the_comparison(tmp_path: Path, run_program: Run) -> None:
    pytest.importorskip("submitit")
    torch.manual_seed(0)
    encoder, world, data, out = (tmp_path / name for name in ("encoder", "world", "data", "runs"))
    model: Any = PRESETS["smoke"].config.model
    save_pretrained(Genesis(model), encoder)
    env = "genesis_rl/ObjectGoal-v0"  # jobs import the package, not this file
    options = '{"image_size": 32, "max_episode_steps": 6}'
    settings: dict[str, Any] = {"env": env, "n_envs": 4, "vec": "dummy", "image_size": 32}
    collect(CollectConfig(out=data, steps=480, env_options=options, **settings))
    small = WorldModelConfig(width=16, layers=1, attention_heads=2, ensemble=2)
    fit: dict[str, Any] = {"device": "cpu", "tensorboard": False, "out": world}
    config = WorldTrainConfig(str(encoder), data, model=small, steps=2, horizon=2, **fit)
    slots = SlotEncoder(encoder, device="cpu")
    loaded = WorldModelData.load(data, slots, mask_geometry=True, align=True)
    WorldTrainer(config, loaded).run()
    given = flags(encoder, world, data, "--env", env, "--env-options", options, "--out", str(out))
    given += ["--seeds", "0", "1", "--episodes", "2", "--jobs", "2", "--executor", "local"]
    status, output, errors = run_program("agents/train_in_imagination.py", *given)
    assert (status, errors) == (0, ""), output
    assert output.count(": real return") == 4
    assert len(list((out / "jobs").glob("*_result.pkl"))) == 4
    runs = json.loads((out / "imagination.json").read_text())["runs"]
    assert [(run["label"], run["seed"]) for run in runs] == [
        ("imagination", 0),
        ("real environment", 0),
        ("imagination", 1),
        ("real environment", 1),
    ]


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"encoder_fingerprint": "f" * 64}, [], ": --encoder "),
        ({"actions": ActionSpec("discrete", n=3)}, [], "must have the actions"),
        ({}, ["--mask-geometry"], "--no-mask-geometry"),
        ({}, ["--env-options", '{"bright": 99}'], "bright None, got 99"),
        ({}, ["--start", "prior"], "start"),
        ({}, ["--start", "mixture"], ": --start "),
        ({}, ["--obs", "monet"], ": --encoder "),
    ],
)
def test_invalid_settings_end_with_status_2(
    change: dict[str, Any],
    more: list[str],
    message: str,
    quadrants: Path,
    untrained_world: World,
    data: Path,
    tmp_path: Path,
    run_program: Run,
) -> None:
    world = untrained_world(4, **change)
    out = tmp_path / "run"
    given = flags(quadrants, world, data, "--out", str(out), *more)
    status, output, errors = run_program("agents/train_in_imagination.py", *given)
    assert (status, output) == (2, "")
    assert message in errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": "state", "encoder": None}, "obs"),
        ({"finetune": True}, "finetune"),
        ({"max_minutes": 1.0}, "max_minutes"),
        ({"horizon": 0}, "horizon"),
        ({"uncertainty_quantile": 0.0}, "uncertainty_quantile"),
        ({"temperature": 0.0}, "temperature"),
        ({"model_temperature": -1.0}, "model_temperature"),
        ({"uncertainty_penalty": -1.0}, "uncertainty_penalty"),
        ({"rounds": -1}, "rounds"),
        ({"collect_steps": 0}, "collect_steps"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"jobs": 2}, "seeds"),
        ({"executor": "local"}, "seeds"),
        ({"executor": "cluster"}, "executor"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"encoder": "e", "world_model": Path("w"), "data": Path("d")}
    with pytest.raises(ValueError, match=message):
        ImaginationConfig(**(settings | changes))
