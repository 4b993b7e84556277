"""Agents of all algorithms with slots and goals: trained, saved, resumed, loaded."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer

from genesis_rl.agents.bundle import load_agent
from genesis_rl.agents.collect import collect_with_agent
from genesis_rl.agents.config import (
    AgentConfig,
    EvaluationConfig,
    OffPolicyConfig,
    PolicyConfig,
    PPOConfig,
)
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.envs.recording.collect import CollectConfig
from genesis_rl.utils.extras import MissingExtraError

KEEP = ("robot/joints", "achieved_goal", "desired_goal")
ALGOS = ("ppo", "sac", "td3", "recurrent_ppo")


class Reach(gym.Env[Any, Any]):
    """A square that moves to a goal; observations of a camera, joints and goals."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, goals: bool = True) -> None:
        self.render_mode, self.goals = render_mode, goals
        joints, goal = (spaces.Box(-9, 9, (n,), np.float64) for n in (3, 2))
        self.observation_space = spaces.Dict(
            {
                "camera": spaces.Dict({"rgb": spaces.Box(0, 255, (40, 40, 3), np.uint8)}),
                "wrist": spaces.Box(0, 255, (3, 40, 40), np.uint8),
                "robot": spaces.Dict({"joints": joints}),
                "achieved_goal": goal,
                "desired_goal": goal,
            }
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def _observation(self) -> dict[str, Any]:
        return {
            "camera": {"rgb": self.render()},
            "wrist": 255 - self.render().transpose(2, 0, 1),
            "robot": {"joints": np.array([*self._place, self._steps / 8])},
            "achieved_goal": self._place.copy(),
            "desired_goal": self._goal.copy(),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        self._place, self._goal = self.np_random.uniform(-1, 1, (2, 2))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._place = np.clip(self._place + 0.3 * np.asarray(action, np.float64), -1, 1)
        reward = float(self.compute_reward(self._place, self._goal, {}))
        return self._observation(), reward, False, self._steps == 8, {"is_success": reward == 0}

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.3).astype(np.float32)

    def render(self) -> Any:
        image = np.zeros((40, 40, 3), np.uint8)
        row, column = ((self._place + 1) * 16).astype(int)
        image[row : row + 8, column : column + 8] = 255
        return image


class NoGoals(gym.Wrapper[Any, Any, Any, Any]):
    """Hides compute_reward."""

    def has_wrapper_attr(self, name: str) -> bool:
        return name != "compute_reward" and super().has_wrapper_attr(name)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("genesis_rl.agents.algorithms._SCALE_FRAMES", 16)
    gym.register("Reach-v0", lambda **options: Reach(**options))
    yield
    del gym.registry["Reach-v0"]


def settings(out: Path, folder: Path, algo: Any, **changes: Any) -> AgentConfig:
    encoded = changes.get("obs", "encoder") == "encoder"
    off_policy = algo in ("sac", "td3")
    options: dict[str, Any] = {
        "encoder": str(folder) if encoded else None,
        "frame_size": 36,
        "env": "Reach-v0",
        "image_key": "camera/rgb",
        "keep": KEEP,
        "crop": (2, 4, 36, 32),
        "her": off_policy,
        "policy": PolicyConfig("deep_sets", width=8, layers=1, lstm_size=8),
        "n_envs": 2,
        "vec": "dummy",
        "total_timesteps": 64,
        "eval_every": 64,
        "eval_episodes": 2,
        "out": out,
        "tensorboard": False,
        "progress": False,
    }
    if off_policy:
        options["off_policy"] = OffPolicyConfig(
            learning_starts=20, batch_size=8, net_arch=(8, 8), ent_coef="auto_0.1"
        )
    else:
        options["ppo"] = PPOConfig(n_steps=16, batch_size=16, n_epochs=1)
    return AgentConfig(algo=algo, **(options | changes))


def equal(first: Any, second: Any) -> None:
    """Compare nested state."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            equal(first[name], second[name])
    else:
        assert first == second


@pytest.mark.parametrize(
    ("algo", "obs"),
    [*((algo, "encoder") for algo in ALGOS), ("sac", "pixels"), ("ppo", "feature_map")],
)
def test_every_algorithm_is_trained_resumed_and_loaded(
    algo: str, obs: str, quadrants: Path, tmp_path: Path
) -> None:
    if algo == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    config = settings(tmp_path / "run", quadrants, algo, obs=obs)
    trainer = AgentTrainer(config)
    before = {name: value.clone() for name, value in trainer.model.policy.named_parameters()}
    entry = "slots" if obs == "encoder" else "frames"
    assert set(trainer.venv.observation_space.spaces) == {entry, *KEEP}  # type: ignore[attr-defined]
    trainer.run()
    changed = [n for n, v in trainer.model.policy.named_parameters() if (v != before[n]).any()]
    assert len(changed) > len(before) / 2
    assert trainer.metrics["last"]["step"] == 64

    again = AgentTrainer(replace(config, total_timesteps=96), resume=True)
    equal(trainer.model.policy.state_dict(), again.model.policy.state_dict())
    modules, variables = trainer.model._get_torch_save_params()
    for name in (n for n in modules if n.endswith("optimizer")):
        first, second = trainer.model, again.model
        for part in name.split("."):
            first, second = getattr(first, part), getattr(second, part)
        assert first.state_dict()["state"]  # type: ignore[attr-defined]
        equal(first.state_dict(), second.state_dict())  # type: ignore[attr-defined]
    for name in variables:
        assert getattr(trainer.model, name) == getattr(again.model, name) != 0
    if algo in ("sac", "td3"):
        old, new = trainer.model.replay_buffer, again.model.replay_buffer  # type: ignore[attr-defined]
        assert isinstance(new, HerReplayBuffer) and new.pos == old.pos == 32
        for name, array in old.next_observations.items():
            np.testing.assert_array_equal(new.next_observations[name], array)
        np.testing.assert_array_equal(new.actions, old.actions)
        assert (new.ep_length[:32] > 0).all()  # unfinished episodes are truncated
    again.run()
    assert again.model.num_timesteps == 96

    agent = load_agent(config.out / "last", n_envs=2)
    assert agent.config == replace(config, total_timesteps=96)
    assert type(agent.model) is type(trainer.model)
    with closing(agent.venv):
        equal(again.model.policy.state_dict(), agent.model.policy.state_dict())
    result = evaluate_agent(EvaluationConfig(config.out, episodes=3, video_episodes=1, n_envs=2))
    assert result["agent"]["episodes"] == 3 and (config.out / "video.mp4").stat().st_size > 500
    collect_with_agent(
        CollectConfig(
            agent=str(config.out),
            out=tmp_path / "pack",
            steps=10,
            image_size=16,
            n_envs=2,
            vec="dummy",
        )
    )


def test_hindsight_relabels_goals(quadrants: Path, tmp_path: Path) -> None:
    trainer = AgentTrainer(settings(tmp_path / "run", quadrants, "sac"))
    trainer.run()
    batch = trainer.model.replay_buffer.sample(200)  # type: ignore[attr-defined]
    goals = {tuple(goal) for goal in batch.observations["desired_goal"].tolist()}
    assert len(goals) > 8  # the episodes' own
    places = batch.next_observations["achieved_goal"].cpu().numpy()
    wanted = batch.next_observations["desired_goal"].cpu().numpy()
    rewards = Reach().compute_reward(places, wanted, {})
    np.testing.assert_array_equal(batch.rewards[:, 0].cpu().numpy(), rewards)


def test_rendered_frames_beside_kept_entries(quadrants: Path, tmp_path: Path) -> None:
    trainers = [
        AgentTrainer(settings(tmp_path / name, quadrants, "sac", **changes))
        for name, changes in {
            "observed": {},
            "rendered": {"render": True, "image_key": None},
        }.items()
    ]
    observed, rendered = (trainer.venv.reset() for trainer in trainers)
    for name in ("slots", *KEEP):
        np.testing.assert_allclose(rendered[name], observed[name], atol=1e-5)  # type: ignore[call-overload]
    for trainer in trainers:
        trainer.close()


def test_several_cameras(quadrants: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", quadrants, "ppo", image_key=("camera/rgb", "wrist"))
    trainer = AgentTrainer(config)
    assert trainer.venv.observation_space["slots"].shape == (8, 10)  # type: ignore[index]
    trainer.run()
    agent = load_agent(config.out, info_keys=("frame", "masks"))
    with closing(agent.venv):
        assert agent.config == config
        agent.venv.reset()
        info = agent.venv.reset_infos[0]
        assert info["frame"].shape == (32, 64, 3) and info["masks"].shape == (8, 32, 64)
        np.testing.assert_allclose(info["masks"].sum(0), 1, atol=1e-4)
    evaluate_agent(EvaluationConfig(config.out, episodes=1, video_episodes=1))
    assert (config.out / "video.mp4").stat().st_size > 500


def test_updates_before_the_end_of_an_episode(quadrants: Path, tmp_path: Path) -> None:
    off_policy = OffPolicyConfig(learning_starts=4, batch_size=8)
    config = settings(tmp_path / "run", quadrants, "td3", off_policy=off_policy)
    with pytest.raises(TrainingError, match=r"learning_starts must be at least .* got 4"):
        AgentTrainer(config).run()


@pytest.mark.parametrize(
    ("algo", "changes", "message"),
    [
        ("dqn", {}, "algo must be one of ppo, sac, td3, recurrent_ppo"),
        ("ppo", {"her": True}, "her must be False for algo 'ppo'"),
        ("sac", {"keep": ("robot/joints",)}, "keep must contain achieved_goal and desired_goal"),
        ("sac", {"ppo": PPOConfig(gamma=0.5)}, "ppo must have its defaults.*Use off_policy"),
        ("ppo", {"off_policy": OffPolicyConfig(tau=0.5)}, "off_policy must have its defaults"),
        ("sac", {"finetune": True, "keep": (), "her": False}, "finetune must be False"),
        ("ppo", {"obs": "state", "encoder": None}, "keep must be empty for obs state"),
        ("ppo", {"finetune": True}, "keep must be empty"),
        (
            "ppo",
            {"obs": "pixels", "encoder": None, "keep": (), "image_key": ("a", "b")},
            "image_key must be a single entry",
        ),
        ("ppo", {"crop": (0, 0, 0, 8)}, "crop must be"),
    ],
)
def test_settings_that_do_not_fit(
    algo: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, tmp_path, algo, **changes)


@pytest.mark.parametrize("value", ["high", "auto_0"])
def test_invalid_entropy_coefficients(value: str) -> None:
    with pytest.raises(ValueError, match=f"ent_coef must be a number > 0, .* got '{value}'"):
        OffPolicyConfig(ent_coef=value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"algo": "sac", "env": "genesis_rl/ObjectGoal-v0"},
            "must have Box actions for algo 'sac'",
        ),
        ({"algo": "sac", "wrappers": (f"{__name__}:NoGoals",)}, "method compute_reward"),
        ({"algo": "ppo", "keep": ("robot/arm",)}, "keep must be among .*robot/joints"),
        ({"algo": "ppo", "keep": ("robot",)}, "keep must be Box"),
        ({"algo": "ppo", "keep": ("camera/rgb",)}, "keep must not contain the encoded entry"),
        ({"algo": "ppo", "crop": (0, 0, 40, 41)}, "within the frame of 40 x 40"),
    ],
)
def test_environments_that_do_not_fit(
    changes: dict[str, Any],
    message: str,
    quadrants: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "wrappers" in changes:
        monkeypatch.setattr("genesis_rl.envs.make.import_module", lambda name: _Module)
    if "env" in changes:
        changes = {"keep": (), "her": False, "image_key": None, "crop": None, **changes}
    with pytest.raises(ValueError, match=message):
        AgentTrainer(settings(tmp_path / "run", quadrants, **changes))


class _Module:
    NoGoals = NoGoals


def test_a_missing_package_is_named(
    quadrants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(MissingExtraError, match=r"sb3_contrib, .*'genesis_rl\[zoo\]'"):
        AgentTrainer(settings(tmp_path / "run", quadrants, "recurrent_ppo"))


def test_agents_of_earlier_versions_have_the_defaults(quadrants: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "run", quadrants, "ppo", keep=(), crop=None)
    trainer = AgentTrainer(config)
    trainer.run()
    path = config.out / "last" / "agent.json"
    content = json.loads(path.read_text())
    for name in ("algo", "her", "keep", "crop", "off_policy"):
        del content["config"][name]
    del content["config"]["policy"]["lstm_size"]
    path.write_text(json.dumps(content))
    state = torch.load(config.out / "last" / "training.pt", weights_only=True)
    state["optimiser"] = state.pop("optimisers")["policy.optimizer"]
    del state["variables"]
    torch.save(state, config.out / "last" / "training.pt")
    shutil.rmtree(config.out / "best")
    agent = load_agent(config.out)
    agent.venv.close()
    assert agent.config == replace(config, policy=replace(config.policy, lstm_size=128))
    again = AgentTrainer(replace(agent.config, total_timesteps=96), resume=True)
    equal(
        trainer.model.policy.optimizer.state_dict(),
        again.model.policy.optimizer.state_dict(),
    )
    again.close()
