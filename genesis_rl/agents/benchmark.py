"""Where the time of a PPO run goes, and what its observations weigh, by what the agent sees."""

import time
import warnings
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from genesis_rl.agents.config import AgentConfig, obs_label, seeing
from genesis_rl.agents.encoders import load_encoder, make_encoder
from genesis_rl.agents.stack import build_ppo, make_vec_env, step_seconds
from genesis_rl.checkpoint import pick_device
from genesis_rl.checks import check_integers
from genesis_rl.envs.imagination_speed import imagination_speeds
from genesis_rl.perception import SlotEncoder
from genesis_rl.process import hardware, keep_freed_memory, versions

# What a rollout and the updates after it spend their time on.
PARTS = ("environment", "encoding", "acting", "updating")
# Transitions of the replay buffer that is weighed.
_WEIGHED = 1024


@dataclass(frozen=True)
class SpeedConfig:
    """What is measured."""

    obs: tuple[str, ...] = ("state", "pixels")
    """what agents see, as agents/train.py --obs; those that take an encoder with it, for example
    genesis=runs/eyes"""
    num_envs: tuple[int, ...] = (1, 8, 32)
    """environments side by side"""
    transitions: int = 2048
    """of a rollout, over all environments: so the updates are the same for any number of them"""
    rollouts: int = 2
    """rollouts, with their updates, that are timed, after one that is not"""
    world_model: str | None = None
    """a world model on the slots of the last encoder in obs, a folder or a name of one that comes
    with the package: imagined environments are timed beside the real ones"""
    agent: AgentConfig = field(default_factory=lambda: AgentConfig(obs="state"))
    """all other settings; obs, encoder, num_envs and ppo.n_steps come from the fields above"""
    out: Path | None = None
    """write the figures to this file as JSON"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("obs", "num_envs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; wanted one or more.")
        check_integers(self, 1, "transitions", "rollouts")
        if self.world_model is not None and not any("=" in obs for obs in self.obs):
            raise ValueError(
                f"obs is {self.obs}, without an encoder; wanted that of the world model, such as "
                "genesis=runs/eyes."
            )
        for count in self.num_envs:
            if count < 1 or self.transitions % count:
                raise ValueError(
                    f"num_envs has {count}; wanted divisors of transitions, {self.transitions}."
                )


def measure(config: SpeedConfig) -> dict[str, Any]:
    """Measure all combinations.

    Returns:
        JSON data: ``speed`` (a row each: label, num_envs, steps_per_second, and the share of the
        time of each of `PARTS`), ``memory`` (a row for each label: shape, dtype and bytes of an
        observation in a rollout buffer, and of a transition's two in a replay buffer),
        ``imagination`` (a row for each number of environments, see `ImaginationSpeed`; without a
        world model none), ``tables`` laid out for the page of results, and where it was measured.

    Raises:
        ValueError: if an environment or an encoder cannot be made.
    """
    agent = config.agent
    if agent.threads is not None:
        torch.set_num_threads(agent.threads)
    keep_freed_memory()
    speed, memory, encoders = [], [], []
    for obs in config.obs:
        label, settings = obs_label(obs), seeing(agent, obs)
        pretrained = load_encoder(settings)
        encoder = None
        if pretrained is not None:
            encoder = make_encoder(settings, pretrained.model, pretrained.preprocessing)
            encoders.append(encoder)
        for count in config.num_envs:
            ppo = replace(agent.ppo, n_steps=config.transitions // count)
            made = replace(settings, num_envs=count, ppo=ppo)
            with closing(make_vec_env(made, encoder, seed=made.seed)) as venv:
                start = pretrained and pretrained.model
                model = build_ppo(made, venv, pick_device(made.device), model=start)
                speed.append({"label": label, "num_envs": count, **_time(model, config)})
                if count == config.num_envs[0]:
                    memory.append({"label": label, **_weigh(model.rollout_buffer, venv)})
    imagined = [] if config.world_model is None else _imagine(config, encoders[-1])
    tables = [_speed_table(speed), _memory_table(memory)]
    return {
        "tables": [*tables, *([_imagined_table(imagined)] if imagined else [])],
        "speed": speed,
        "memory": memory,
        "imagination": imagined,
        "hardware": hardware(torch.device(pick_device(agent.device))),
        "versions": versions(),
        "config": {
            "env": agent.env,
            "vec": agent.vec,
            "transitions": config.transitions,
            "agent": agent.to_json(),
        },
    }


class _Clock(BaseCallback):
    """Notes the time, and that of the environments and the encoder, around every rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[tuple[float, float, float]] = []
        self.ends: list[tuple[float, float, float]] = []

    def _on_rollout_start(self) -> None:
        self.starts.append(self._now())

    def _on_rollout_end(self) -> None:
        self.ends.append(self._now())

    def _on_training_end(self) -> None:
        self.starts.append(self._now())

    def _on_step(self) -> bool:
        return True

    def _now(self) -> tuple[float, float, float]:
        return (time.perf_counter(), *step_seconds(self.training_env))


def _time(model: PPO, config: SpeedConfig) -> dict[str, Any]:
    """Learn for a few rollouts; the first warms up."""
    clock = _Clock()
    model.learn((1 + config.rollouts) * config.transitions, clock)
    whole = clock.starts[-1][0] - clock.starts[1][0]
    rollouts = list(zip(clock.starts[1:-1], clock.ends[1:], strict=True))
    acted, env, encode = (sum(b[i] - a[i] for a, b in rollouts) for i in range(3))
    seconds = dict(zip(PARTS, (env, encode, acted - env - encode, whole - acted), strict=True))
    return {
        "steps_per_second": config.rollouts * config.transitions / whole,
        "shares": {name: value / whole for name, value in seconds.items()},
    }


def _weigh(rollout: RolloutBuffer, venv: VecEnv) -> dict[str, Any]:
    """Bytes that observations take in real buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of buffers larger than the memory that is free
        replay = ReplayBuffer(_WEIGHED, venv.observation_space, venv.action_space)
    pairs = replay.observations.nbytes + replay.next_observations.nbytes
    return {
        "shape": list(venv.observation_space.shape or ()),
        "rollout_dtype": str(rollout.observations.dtype),
        "replay_dtype": str(replay.observations.dtype),
        "rollout_bytes": rollout.observations.nbytes // (rollout.buffer_size * rollout.n_envs),
        "replay_bytes": pairs // _WEIGHED,
    }


def _imagine(config: SpeedConfig, encoder: SlotEncoder) -> list[dict[str, Any]]:
    """Step imagined environments, and the real ones for as long."""
    agent = config.agent
    speeds = imagination_speeds(
        {"encoder": encoder, "world_model": config.world_model},
        config.num_envs,
        env=agent.env,
        env_options=agent.options,
    )
    return [speed._asdict() for speed in speeds]


def _speed_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "caption": (
            "A PPO run's environment steps per second, and the share of its time that goes to the "
            "environments, to the encoder (pixels: to laying frames out), to choosing actions and "
            "to the updates."
        ),
        "head": ["agent sees", "environments", "steps/s", *PARTS],
        "rows": [
            [
                row["label"],
                str(row["num_envs"]),
                f"{row['steps_per_second']:,.0f}",
                *(f"{row['shares'][part]:.1%}" for part in PARTS),
            ]
            for row in rows
        ],
    }


def _memory_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "caption": (
            "Bytes of an observation in Stable-Baselines3's rollout buffer, and of a transition's "
            "two (before and after) in its replay buffer."
        ),
        "head": ["agent sees", "observation", "rollout buffer", "replay buffer"],
        "rows": [
            [
                row["label"],
                f"{' x '.join(map(str, row['shape']))}",
                f"{row['rollout_bytes']:,} ({row['rollout_dtype']})",
                f"{row['replay_bytes']:,} ({row['replay_dtype']})",
            ]
            for row in rows
        ],
    }


def _imagined_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = ("imagined", "real_frames", "real_slots")
    return {
        "caption": (
            "Steps per second of processor time, under random actions: imagined environments, "
            "which give slots; the real ones drawing their frames; and with these encoded to slots."
        ),
        "head": ["environments", "imagined", "real, frames", "real, slots"],
        "rows": [
            [
                f"{row['num_envs']:,}",
                *(f"{row[column]:,.0f}" for column in columns),
            ]
            for row in rows
        ],
    }
