"""Construction of a single environment from an agent's settings."""

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

from genesis_rl.agents.config import OFF_POLICY, AgentConfig
from genesis_rl.agents.frames import RenderInfo
from genesis_rl.agents.vec_obs import check_kept
from genesis_rl.envs.make import make_env
from genesis_rl.envs.wrappers.frame_source import find_entry, find_frames, find_kept, follow
from genesis_rl.envs.wrappers.rendering import RenderedObs
from genesis_rl.utils.process import ignore_interrupts

_ACTIONS = (
    gym.spaces.Box,
    gym.spaces.Discrete,
    gym.spaces.MultiDiscrete,
    gym.spaces.MultiBinary,
)


class EpisodeSeeds(gym.Wrapper[Any, Any, Any, Any]):
    """Seeds every episode once `seed_episodes` has been called.

    The initial state of an evaluation episode then depends neither on its environment nor on
    earlier episodes, so that all policies are evaluated on the same episodes.
    """

    _seeds: Iterator[int] | None = None

    def seed_episodes(self, first: int, stride: int) -> None:
        """Seed the next episodes with first, first + stride, ..."""
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
    """Picklable factory of one environment of the settings.

    Attributes:
        config: the settings.
        frame_in_info: add rendered frames to the infos, for observations without frames.
    """

    config: AgentConfig
    frame_in_info: bool = False

    def __call__(self) -> gym.Env[Any, Any]:
        """Create the environment.

        Raises:
            ValueError: if it cannot be created, has no image observation (for obs state: no state),
                or an action space that the algorithm does not support; with her, if it has no
                compute_reward.
        """
        config = self.config
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)
            ignore_interrupts()
        env = self._make_state_env() if config.obs == "state" else self._make_frame_env()
        off_policy = config.algo in OFF_POLICY
        if not isinstance(env.action_space, gym.spaces.Box if off_policy else _ACTIONS):
            kinds = "Box" if off_policy else "Box, Discrete, MultiDiscrete or MultiBinary"
            raise ValueError(
                f"env {config.env!r} must have {kinds} actions for algo {config.algo!r}, got "
                f"{env.action_space}."
            )
        if config.her and not env.has_wrapper_attr("compute_reward"):
            raise ValueError(
                f"env {config.env!r} must have a method compute_reward(achieved_goal, "
                "desired_goal, info) with her, got none."
            )
        return EpisodeSeeds(Monitor(RenderInfo(env) if self.frame_in_info else env))

    def _make_frame_env(self) -> gym.Env[Any, Any]:
        """Create an environment whose observation is the frames and the kept entries only."""
        config = self.config
        if config.render:
            env: gym.Env[Any, Any] = RenderedObs(self._make(render_mode="rgb_array"), config.keep)
            if isinstance(env.observation_space, gym.spaces.Dict):
                check_kept(env.observation_space, config.keep)
            return env
        env = self._make()
        space = env.observation_space
        keys = config.image_key if isinstance(config.image_key, tuple) else (config.image_key,)
        sources = [find_frames(space, key=key, layout=config.image_layout) for key in keys]
        kept = find_kept(space, config.keep)
        if sources[0].key is None:
            return env
        # Reduces the data sent between processes, which does not support nested Dicts.
        frames = {str(source.key): source.space for source in sources}
        flat = gym.spaces.Dict({**frames, **{n: follow(space, at) for n, at in kept.items()}})
        check_kept(flat, config.keep)

        def flatten(entries: Any) -> dict[str, Any]:
            frames = {str(source.key): source.frames(entries) for source in sources}
            return {**frames, **{name: follow(entries, at) for name, at in kept.items()}}

        return TransformObservation(env, flatten, flat)

    def _make_state_env(self) -> gym.Env[Any, Any]:
        """Create an environment with state observations, (N, F) float32; N = 1 for a vector."""
        config = self.config
        render = {"render_mode": "rgb_array"} if self.frame_in_info else {}
        try:
            env = self._make(observation="state", **render)
        except ValueError as error:
            # Environments without this option, or without this value, name it in their error.
            if "'observation'" not in str(error):
                raise
            env = self._make(**render)
        space = env.observation_space
        if isinstance(space, gym.spaces.Dict) and isinstance(config.image_key, str):
            route = find_entry(space, config.image_key)
            if route is not None:
                space = follow(space, route)
                env = TransformObservation(env, partial(follow, route=route), space)
        kind = space.dtype.kind if space.dtype is not None else ""
        if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (1, 2) or kind != "f":
            raise ValueError(
                f"env {config.env!r} must support observation='state' or have Box observations of "
                f"floats, (F,) or (N, F), for obs state, got {space}. Use obs pixels or encoder."
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
