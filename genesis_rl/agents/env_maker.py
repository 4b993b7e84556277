"""One environment of the settings, in whichever process it runs."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.monitor import Monitor

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.frames import RenderInfo
from genesis_rl.envs.frame_source import find_entry, find_frames, follow
from genesis_rl.envs.make import make_env
from genesis_rl.envs.rendering import RenderedObs
from genesis_rl.process import ignore_interrupts

_ACTIONS = (
    gym.spaces.Box,
    gym.spaces.Discrete,
    gym.spaces.MultiDiscrete,
    gym.spaces.MultiBinary,
)


class EpisodeSeeds(gym.Wrapper[Any, Any, Any, Any]):
    """Gives every episode a seed of its own, once `seed_episodes` has been called.

    Episode e of an evaluation then starts the same way in whichever environment it runs and
    whatever was done before, so that policies meet the same episodes.
    """

    _seeds: Iterator[int] | None = None

    def seed_episodes(self, first: int, stride: int) -> None:
        """Start the coming episodes with the seeds first, first + stride, ..."""
        self._seeds = iter(range(first, 2**31, stride))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset with the next seed, unless one is given."""
        if seed is None and self._seeds is not None:
            seed = next(self._seeds)
        return self.env.reset(seed=seed, options=options)


@dataclass(frozen=True)
class EnvMaker:
    """Makes one environment of the settings; plain data, so that any process can.

    Attributes:
        config: what to make.
        show: put rendered frames into the infos, for agents that see none.
    """

    config: AgentConfig
    show: bool = False

    def __call__(self) -> gym.Env[Any, Any]:
        """Make the environment.

        Raises:
            ValueError: if it cannot be made, shows no frames (or, for obs state, offers no state),
                or has actions that PPO cannot take.
        """
        config = self.config
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)
            ignore_interrupts()
        env = self._make_stateful() if config.obs == "state" else self._make_seen()
        if not isinstance(env.action_space, _ACTIONS):
            raise ValueError(
                f"env {config.env!r} has the actions {env.action_space}; PPO takes Box, Discrete, "
                "MultiDiscrete and MultiBinary."
            )
        return EpisodeSeeds(Monitor(RenderInfo(env) if self.show else env))

    def _make_seen(self) -> gym.Env[Any, Any]:
        """An environment that observes a frame, and nothing else."""
        config = self.config
        env = self._make(render_mode="rgb_array") if config.render else self._make()
        if config.render:
            env = RenderedObs(env)
        source = find_frames(env.observation_space, key=config.obs_key, layout=config.frame_layout)
        if source.key is None:
            return env
        # Only the frame goes through the pipe between processes, which carries no nested Dicts.
        key, space = source.key, gym.spaces.Dict({source.key: source.space})
        return TransformObservation(env, lambda entries: {key: source.frames(entries)}, space)

    def _make_stateful(self) -> gym.Env[Any, Any]:
        """An environment that observes its state, (N, F) float32; one vector is a set of one."""
        config = self.config
        render = {"render_mode": "rgb_array"} if self.show else {}
        try:
            env = self._make(observation="state", **render)
        except ValueError as error:
            # What an environment says that knows no such option, or no such value of it.
            if "'observation'" not in str(error):
                raise
            env = self._make(**render)
        space = env.observation_space
        if isinstance(space, gym.spaces.Dict) and config.obs_key is not None:
            route = find_entry(space, config.obs_key)
            if route is not None:
                space = follow(space, route)
                env = TransformObservation(env, partial(follow, route=route), space)
        kind = space.dtype.kind if space.dtype is not None else ""
        if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (1, 2) or kind != "f":
            raise ValueError(
                f"env {config.env!r} offers no state: it takes no observation='state', and it "
                f"observes {space}; wanted a Box of floats, (F,) or (N, F), or obs pixels or "
                "encoder."
            )
        shape = space.shape if len(space.shape) == 2 else (1, *space.shape)
        if space.shape == shape and space.dtype == np.float32:
            return env
        low, high = (np.reshape(x, shape).astype(np.float32) for x in (space.low, space.high))
        return TransformObservation(
            env,
            lambda state: np.asarray(state, np.float32).reshape(shape),
            gym.spaces.Box(low, high, dtype=np.float32),
        )

    def _make(self, **more: Any) -> gym.Env[Any, Any]:
        config = self.config
        return make_env(config.env, {**config.options, **more}, config.wrappers)
