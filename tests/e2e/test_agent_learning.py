"""Training of an agent: learning, repeatability, time limit, errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from genesis_rl.agents.config import AgentConfig, EvaluationConfig, PolicyConfig, PPOConfig
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.models import MODELS
from genesis_rl.slots import Slots
from genesis_rl.utils import log


class FindQuadrant(gym.Env[Any, Any]):
    """One quadrant of the frame is bright; its index is the correct action, in ``length`` steps."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 5}  # noqa: RUF012

    def __init__(self, breaks_at: int | None = None, length: int = 4) -> None:
        self.observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.action_space = spaces.Discrete(4)
        self.breaks_at, self.length, self.steps = breaks_at, length, 0

    def _draw(self) -> Any:
        self._right = int(self.np_random.integers(4))
        values = self.np_random.integers(0, 100, 4)
        values[self._right] += 140
        return np.repeat(np.kron(values.reshape(2, 2), np.ones((16, 16)))[..., None], 3, 2).astype(
            np.uint8
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._hits = self._count = 0
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == self.breaks_at:
            raise EOFError("the simulator went away")
        hit = int(action) == self._right
        self._hits += hit
        self._count += 1
        ended = self._count == self.length
        return self._draw(), hit / 4, ended, False, {"is_success": self._hits == self.length}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gym.register("FindQuadrant-v0", lambda **options: FindQuadrant(**options))
    yield
    del gym.registry["FindQuadrant-v0"]


def quadrant_config(encoder: Path, **changes: Any) -> AgentConfig:
    options: dict[str, Any] = {
        "env": "FindQuadrant-v0",
        "policy": PolicyConfig(width=32),
        "ppo": PPOConfig(n_steps=64, batch_size=128, learning_rate=3e-3, gamma=0.5),
        "total_timesteps": 4096,
        "n_envs": 8,
        "vec": "dummy",
        "eval_every": 2048,
        "eval_episodes": 20,
        "out": encoder.parent / "run",
        "tensorboard": False,
        "progress": False,
    }
    return AgentConfig(encoder=str(encoder), **(options | changes))


@pytest.mark.parametrize("extractor", ["transformer", "mlp"])
def test_ppo_learns_from_slots(extractor: Any, quadrants: Path) -> None:
    config = quadrant_config(quadrants, policy=PolicyConfig(extractor, width=32))
    figures = AgentTrainer(config).run()
    assert figures["success_rate"] >= 0.8
    assert figures["mean_return"] >= 0.9
    rows = log.read(config.out)
    assert rows[-1]["step"] == 4096
    assert [row["step"] for row in rows if "eval/success_rate" in row] == [2048, 4096]
    last = [row for row in rows if "time/fps" in row][-1]
    shares = [last[f"time/{name}_share"] for name in ("env", "encode", "evaluate", "learn")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0
    assert last["rollout/success_rate"] > 0.5
    result = evaluate_agent(EvaluationConfig(config.out, episodes=50, n_envs=4, video_episodes=0))
    assert result["deterministic"]["success_interval"][0] > 0.8
    assert result["agent"]["success_interval"][0] > 0.6
    assert result["random"]["success_interval"][1] < 0.3
    assert json.loads((config.out / "evaluation.json").read_text())["agent"]["episodes"] == 50
    assert not (config.out / "video.mp4").exists()


def test_the_time_limit_ends_a_training(quadrants: Path) -> None:
    config = quadrant_config(quadrants, total_timesteps=10**7, max_minutes=2 / 60)
    trainer = AgentTrainer(config)
    figures = trainer.run()
    assert not trainer.stopped
    assert 0 < trainer.model.num_timesteps < 10**6
    assert figures["mean_return"] >= 0
    last = json.loads((config.out / "last" / "agent.json").read_text())
    assert last["metrics"]["step"] == trainer.model.num_timesteps


def test_the_time_limit_includes_the_evaluation_at_the_end(quadrants: Path) -> None:
    limit = 6.0
    options: dict[str, Any] = {"eval_episodes": 400, "eval_every": 10**6}
    config = quadrant_config(quadrants, total_timesteps=10**7, max_minutes=limit / 60, **options)
    trainer = AgentTrainer(config)
    trainer.run()
    assert trainer.finished
    evaluation = trainer.metrics["last"]["eval_seconds"]
    assert trainer.evaluation_seconds == evaluation > 0
    assert trainer.seconds - evaluation < limit  # the training ended before the limit


def test_an_evaluation_has_the_episodes_for_which_there_is_time(
    quadrants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genesis_rl.agents.learning._EVAL_SHARE", 0.1)
    options: dict[str, Any] = {"eval_episodes": 10**6, "eval_every": 10**6}
    config = quadrant_config(quadrants, total_timesteps=10**7, max_minutes=4 / 60, **options)
    trainer = AgentTrainer(config)
    trainer.run()
    assert trainer.finished
    assert trainer.metrics["last"]["mean_return"] >= 0
    assert trainer.seconds < 8


def test_episodes_longer_than_the_time_limit_are_not_evaluated(quadrants: Path) -> None:
    options: dict[str, Any] = {"env_options": '{"length": 10000000}', "eval_every": 64}
    config = quadrant_config(quadrants, total_timesteps=10**7, max_minutes=2 / 60, **options)
    trainer = AgentTrainer(config)
    assert trainer.run() == {}
    assert trainer.finished
    assert trainer.metrics["last"] == {"step": trainer.model.num_timesteps}
    assert (config.out / "best" / "agent.json").is_file()


def test_environments_in_processes_whose_specs_cannot_be_pickled(
    quadrants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lambda_env.py").write_text(
        "import gymnasium as gym\n"
        "make = lambda **options: gym.make('CartPole-v1', render_mode='rgb_array').unwrapped\n"
        "gym.register('Lambda-v0', lambda **options: make(), max_episode_steps=7)\n"
    )
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"vec": "subproc", "n_envs": 2, "eval_episodes": 2, "render": True}
    config = quadrant_config(
        quadrants, env="lambda_env:Lambda-v0", total_timesteps=128, max_minutes=1, **options
    )
    trainer = AgentTrainer(config)
    assert trainer.eval_venv.get_attr("time_limit") == [7, 7]
    assert trainer.run()["step"] == 128


def test_training_is_repeatable(quadrants: Path) -> None:
    weights = []
    for name in ("a", "b"):
        config = quadrant_config(quadrants, total_timesteps=512, out=quadrants.parent / name)
        trainer = AgentTrainer(config)
        trainer.run()
        weights.append(trainer.model.policy.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_one_encoder_pass_for_each_new_frame(
    quadrants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quadrant_config(quadrants, total_timesteps=512, eval_every=10**6, eval_episodes=1)
    trainer = AgentTrainer(config)
    sizes: list[int] = []
    quadrants_model: Any = MODELS["quadrants"][1]
    infer = quadrants_model.infer

    def counted(self: Any, x: Tensor, **options: Any) -> Slots:
        sizes.append(len(x))
        slots: Slots = infer(self, x, **options)
        return slots

    monkeypatch.setattr(quadrants_model, "infer", counted)
    callback = "genesis_rl.agents.learning._EvaluationCallback"
    monkeypatch.setattr(f"{callback}._on_training_end", lambda self: 0)
    trainer.run()
    # 1 reset and 64 steps of 8 environments; all episodes end at every fourth step.
    assert len(sizes) == 65
    assert sum(sizes) == 8 * 65 + 8 * 16


def test_an_environment_process_that_ends(quadrants: Path) -> None:
    config = quadrant_config(quadrants, env_options='{"breaks_at": 300}')
    with pytest.raises(TrainingError, match="process"):
        AgentTrainer(config).run()
    assert (config.out / "last" / "agent.json").is_file()


def test_weights_that_are_not_finite_are_not_saved(quadrants: Path) -> None:
    trainer = AgentTrainer(quadrant_config(quadrants))
    policy: Any = trainer.model.policy
    with torch.no_grad():
        policy.action_net.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="step 0"):
        trainer.run()
    assert not (trainer.config.out / "last").exists()
    assert not (trainer.config.out / "best").exists()
