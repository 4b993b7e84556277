"""agents/plan.py: planning with the world model of a small environment, and errors."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from genesis_rl.agents.planning_evaluation import (
    PlanningConfig,
    evaluate_planning,
    trained_settings,
)
from genesis_rl.envs.recording.collect import CollectConfig, collect
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, WorldModelConfig
from genesis_rl.world_model.sequences import WorldModelData
from genesis_rl.world_model.training import WorldTrainConfig, WorldTrainer

Run = Callable[..., tuple[int, str, str]]
World = Callable[..., Path]
PROGRAM, ENV = "agents/plan.py", "Beacon-v0"
SHORT = ("--episodes", "2", "--samples", "8", "--elites", "2", "--horizon", "2", "--device", "cpu")


class Beacon(gym.Env[Any, Any]):
    """The action moves a light to a quadrant next to it; the last quadrant has reward 1."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 5}  # noqa: RUF012

    def __init__(self, bright: int = 240) -> None:
        self.observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.action_space = spaces.Discrete(2)
        self.bright = bright

    def _draw(self) -> Any:
        quarters = np.full(4, 20)
        quarters[self._at] = self.bright
        frame = np.kron(quarters.reshape(2, 2), np.ones((16, 16)))
        return np.repeat(frame[..., None], 3, 2).astype(np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._at = 1
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._at += 2 * int(action) - 1
        won = self._at == 3
        return self._draw(), float(won), self._at in (0, 3), False, {"is_success": won}


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "cache"))
    gym.register(ENV, lambda **options: Beacon(**options), max_episode_steps=20)
    yield
    del gym.registry[ENV]


@pytest.mark.slow
def test_planning_with_a_trained_world_model(
    quadrants: Path, tmp_path: Path, run_program: Run
) -> None:
    data, world, out = tmp_path / "data", tmp_path / "world", tmp_path / "plan"
    settings: dict[str, Any] = {"env": ENV, "n_envs": 4, "vec": "dummy", "image_size": 32}
    collect(CollectConfig(out=data, steps=480, **settings))
    fit = WorldTrainConfig(
        str(quadrants),
        data,
        model=WorldModelConfig(width=32, layers=1, attention_heads=2, ensemble=2),
        mask_geometry=False,
        steps=200,
        horizon=2,
        device="cpu",
        tensorboard=False,
        out=world,
    )
    encoder = SlotEncoder(quadrants, device="cpu")
    WorldTrainer(fit, WorldModelData.load(data, encoder, mask_geometry=False, align=True)).run()
    given = [
        *(str(world), "--env", ENV, "--device", "cpu", "--out", str(out), "--horizon", "4"),
        *("--samples", "32", "--elites", "8", "--episodes", "20", "--video-episodes", "1"),
    ]
    status, output, errors = run_program(PROGRAM, *given, "--video-format", "gif")
    assert (status, errors) == (0, "")
    assert "planning success 100.0%" in output and "ms per action" in output
    result = json.loads((out / "plan.json").read_text())
    assert result["planning"]["success_interval"][0] > 0.8
    assert result["planning"]["mean_length"] == 2
    assert result["random"]["episodes"] == 20 and result["random"]["success_rate"] < 0.9
    assert result["settings"]["encoder"] == str(quadrants)
    assert result["settings"]["horizon"] == 4 and result["milliseconds_per_action"] > 0
    assert (out / "video.gif").read_bytes()[:3] == b"GIF"
    # The same episodes in batches.
    batched = evaluate_planning(
        PlanningConfig(
            world_model=str(world), env=ENV, device="cpu", episodes=20, horizon=4, samples=32,
            elites=8, n_envs=8, video_episodes=0, random=False, out=tmp_path / "batched",
        )
    )  # fmt: skip
    assert "random" not in batched
    for name in ("success_rate", "mean_return", "mean_length"):
        assert batched["planning"][name] == result["planning"][name]
    assert trained_settings(str(world)) == trained_settings(str(world / "best"))
    # A shared folder may come from others: no path that it names is read.
    shutil.copytree(world / "best", tmp_path / "shared")
    assert trained_settings(str(tmp_path / "shared")) == {}
    # Another environment than the recorded one.
    status, _, errors = run_program(PROGRAM, *given, "--env-options", '{"bright": 99}')
    assert status == 2 and "bright None, got 99" in errors


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"encoder_fingerprint": "f" * 64}, [], "--encoder must be the one of the world model"),
        ({"actions": ActionSpec("discrete", n=3)}, [], "must have the actions of the world model"),
        ({}, ["--horizon", "0"], "--horizon must be at least 1, got 0"),
        ({}, ["--elites", "9"], "--elites must be at most samples, 8, got 9"),
        ({}, ["--episodes", "0"], "--episodes must be at least 1, got 0"),
        ({}, ["--env", "Nothing-v0"], "Nothing-v0"),
        ({}, ["--env-options", "bright"], "--env-options must be"),
        ({}, ["--encoder", "None"], "--encoder must be that of the world model's training"),
    ],
)
def test_invalid_settings_end_with_status_2(
    change: dict[str, Any],
    more: list[str],
    message: str,
    quadrants: Path,
    untrained_world: World,
    tmp_path: Path,
    run_program: Run,
) -> None:
    world, out = untrained_world(2, **change), tmp_path / "plan"
    given = [str(world), "--env", ENV, "--encoder", str(quadrants), *SHORT, "--out", str(out)]
    status, output, errors = run_program(PROGRAM, *given, *more)
    assert (status, output) == (2, "")
    assert errors.startswith("plan.py: ") and message in errors, errors
    assert not out.exists()


def test_a_folder_without_a_world_model(tmp_path: Path, run_program: Run) -> None:
    status, _, errors = run_program(PROGRAM, str(tmp_path), "--env", ENV)
    assert status == 2 and "world_model must be a folder with" in errors


def test_the_encoder_of_a_world_model(tmp_path: Path) -> None:
    assert trained_settings("object-comparison")["encoder"] == "sprites-fast"
    assert trained_settings(str(tmp_path)) == {}
