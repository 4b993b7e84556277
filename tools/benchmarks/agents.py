"""Throughput of PPO and memory of its observations, by observation type."""

import time
import warnings
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from genesis_rl.agents.algorithms import build_model
from genesis_rl.agents.config import AgentConfig, obs_label, with_obs
from genesis_rl.agents.observations import load_encoder, make_encoder
from genesis_rl.agents.stack import make_vec_env, step_seconds
from genesis_rl.envs.imagination.imagine import imagination_speeds
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.utils.checks import NOT_EMPTY, Count, Counts, check_fields
from genesis_rl.utils.process import configure_cpu, hardware, pick_device, versions

# Parts of the time of a rollout and its update.
PARTS = ("environment", "encoding", "acting", "updating")
# Size in transitions of the replay buffer whose memory is measured.
_REPLAY_SIZE = 1024


@dataclass(frozen=True)
class SpeedConfig:
    """Settings of a benchmark."""

    obs: Annotated[tuple[str, ...], NOT_EMPTY] = ("state", "pixels")
    """observations, as agents/train.py --obs, with the encoder where one is needed, e.g.
    genesis=runs/encoder"""
    n_envs: Counts = (1, 8, 32)
    """numbers of parallel environments"""
    transitions: Count = 2048
    """transitions per rollout over all environments, which makes updates independent of n_envs"""
    rollouts: Count = 2
    """timed rollouts with their updates, after one for warm-up"""
    world_model: str | None = None
    """world model of the last encoder in obs, a folder or the name of a shipped one; also times
    imagined environments"""
    agent: AgentConfig = field(default_factory=lambda: AgentConfig(obs="pixels"))
    """other settings; obs, encoder, n_envs and ppo.n_steps are set by the fields above"""
    out: Path | None = None
    """JSON file of the results"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if self.agent.algo != "ppo":
            raise ValueError(f"agent.algo must be ppo, got {self.agent.algo!r}.")
        if self.world_model is not None and not any("=" in obs for obs in self.obs):
            raise ValueError(
                "obs must have an entry with the world model's encoder, such as "
                f"genesis=runs/encoder, got {self.obs}."
            )
        for count in self.n_envs:
            if self.transitions % count:
                raise ValueError(
                    f"n_envs must be divisors of transitions {self.transitions}, got {count}."
                )


def measure(config: SpeedConfig) -> dict[str, Any]:
    """Measure all combinations of obs and n_envs.

    Returns:
        JSON data: ``speed`` (rows of label, n_envs, steps_per_second and the ``shares`` of `PARTS`
        in the time), ``memory`` (a row per label: shape, dtype and bytes of an observation in the
        rollout buffer, and of the two of a transition in the replay buffer), ``imagination`` (a row
        per number of environments, see `ImaginationSpeed`; empty without a world model), ``tables``
        for the results page, and hardware, versions and settings.

    Raises:
        ValueError: if an environment or an encoder cannot be created.
    """
    agent = config.agent
    configure_cpu(agent.threads)
    speed, memory, encoders = [], [], []
    for obs in config.obs:
        label, settings = obs_label(obs), with_obs(agent, obs)
        pretrained = load_encoder(settings)
        encoder = None
        if pretrained is not None:
            encoder = make_encoder(settings, pretrained.model, pretrained.preprocessing)
            encoders.append(encoder)
        for count in config.n_envs:
            ppo = replace(agent.ppo, n_steps=config.transitions // count)
            variant = replace(settings, n_envs=count, ppo=ppo)
            with closing(make_vec_env(variant, encoder, seed=variant.seed)) as venv:
                trained = pretrained and pretrained.model
                device = pick_device(variant.device)
                model = cast("PPO", build_model(variant, venv, device, encoder=trained))
                speed.append({"label": label, "n_envs": count, **_time(model, config)})
                if count == config.n_envs[0]:
                    memory.append({"label": label, **_memory(model.rollout_buffer, venv)})
    imagined = [] if config.world_model is None else _time_imagination(config, encoders[-1])
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


class _TimingCallback(BaseCallback):
    """Records the time, in total and of environments and encoder, at the ends of each rollout."""

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
    """Measure the throughput of training and the shares of its parts."""
    timing = _TimingCallback()
    model.learn((1 + config.rollouts) * config.transitions, timing)
    total = timing.starts[-1][0] - timing.starts[1][0]
    rollouts = list(zip(timing.starts[1:-1], timing.ends[1:], strict=True))
    collect, env, encode = (sum(b[i] - a[i] for a, b in rollouts) for i in range(3))
    seconds = dict(zip(PARTS, (env, encode, collect - env - encode, total - collect), strict=True))
    return {
        "steps_per_second": config.rollouts * config.transitions / total,
        "shares": {name: value / total for name, value in seconds.items()},
    }


def _memory(rollout: RolloutBuffer, venv: VecEnv) -> dict[str, Any]:
    """Measure the bytes per observation in Stable-Baselines3's buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about buffers larger than the free memory
        replay = ReplayBuffer(_REPLAY_SIZE, venv.observation_space, venv.action_space)
    pairs = replay.observations.nbytes + replay.next_observations.nbytes
    return {
        "shape": list(venv.observation_space.shape or ()),
        "rollout_dtype": str(rollout.observations.dtype),
        "replay_dtype": str(replay.observations.dtype),
        "rollout_bytes": rollout.observations.nbytes // (rollout.buffer_size * rollout.n_envs),
        "replay_bytes": pairs // _REPLAY_SIZE,
    }


def _time_imagination(config: SpeedConfig, encoder: SlotEncoder) -> list[dict[str, Any]]:
    """Measure the throughput of imagined and real environments."""
    agent = config.agent
    speeds = imagination_speeds(
        {"encoder": encoder, "world_model": config.world_model},
        config.n_envs,
        env=agent.env,
        env_options=agent.options,
    )
    return [speed._asdict() for speed in speeds]


def _speed_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "caption": (
            "Environment steps per second of PPO, and the shares of environments, encoder (pixels: "
            "frame conversion), action selection and updates in its time."
        ),
        "head": ["observation", "environments", "steps/s", *PARTS],
        "rows": [
            [
                row["label"],
                str(row["n_envs"]),
                f"{row['steps_per_second']:,.0f}",
                *(f"{row['shares'][part]:.1%}" for part in PARTS),
            ]
            for row in rows
        ],
    }


def _memory_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "caption": (
            "Bytes of an observation in Stable-Baselines3's rollout buffer, and of the two "
            "observations of a transition in its replay buffer."
        ),
        "head": ["observation", "shape", "rollout buffer", "replay buffer"],
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
            "Steps per second of CPU time with random actions: imagined environments, whose "
            "observations are slots; real environments with frames; real environments with frames "
            "encoded to slots."
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
