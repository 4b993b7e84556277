"""Environments of other APIs as Gymnasium environments: Crafter and PettingZoo."""

from copy import deepcopy
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Frame = npt.NDArray[np.uint8]


class CrafterEnv(gym.Env[Frame, np.int64]):
    """Crafter, which has the API of Gym before 0.26; registered as genesis_rl/Crafter-v0.

    Observations are frames (H, W, 3) uint8. The death of the player terminates an episode, the
    maximum length truncates it.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": ["rgb_array"],
        "render_fps": 30,
    }

    def __init__(
        self, render_mode: str | None = None, size: tuple[int, int] = (64, 64), **options: Any
    ) -> None:
        """Create the environment.

        Args:
            render_mode: "rgb_array" or None.
            size: width and height of the frames in pixels.
            options: other arguments of `crafter.Env`: area, view, reward, length.

        Raises:
            ModuleNotFoundError: if the package crafter is not installed.
        """
        self.render_mode = render_mode
        self._make: Any = import_module("crafter").Env
        self._options = {"size": tuple(size), **options}
        self._env = self._make(**self._options)
        self.observation_space = spaces.Box(0, 255, (size[1], size[0], 3), np.uint8)
        self.action_space = spaces.Discrete(self._env.action_space.n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Generate a new world; the seed determines those of all further episodes."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = self._make(**self._options, seed=seed)
        return self._env.reset(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Step the environment; the info is a copy of Crafter's, which it reuses."""
        frame, reward, done, info = self._env.step(int(action))
        terminated = info["discount"] == 0
        return frame, float(reward), terminated, done and not terminated, deepcopy(info)

    def render(self) -> Any:
        """Return the current frame (H, W, 3) with render_mode "rgb_array"."""
        return self._env.render() if self.render_mode == "rgb_array" else None


class PettingZooEnv(gym.Env[Any, Any]):
    """One agent of a parallel PettingZoo environment; registered as genesis_rl/PettingZoo-v0.

    The other agents act randomly. To train all agents with one policy, use a vector environment of
    SuperSuit with VecGenesisObs.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": ["human", "rgb_array"]
    }

    def __init__(
        self, make: str, agent: str | None = None, render_mode: str | None = None, **options: Any
    ) -> None:
        """Create the environment.

        Args:
            make: module:function of the environment, such as
                "pettingzoo.butterfly.cooperative_pong_v6:parallel_env".
            agent: name of the agent; None: the first.
            render_mode: a render mode of the environment. With None it is created with "rgb_array",
                without which the frames of some environments are black.
            options: other arguments of the function.

        Raises:
            ValueError: if ``make`` is not of form module:function, or the agent is unknown.
        """
        module, _, function = make.partition(":")
        if not module or not function:
            raise ValueError(f"make must be module:function, got {make!r}.")
        self._env: Any = getattr(import_module(module), function)(
            render_mode=render_mode or "rgb_array", **options
        )
        names = self._env.possible_agents
        if agent not in (None, *names):
            raise ValueError(f"agent must be one of {', '.join(names)}, got {agent!r}.")
        self._agent = names[0] if agent is None else agent
        self.metadata = {**self.metadata, **self._env.metadata}
        self.render_mode = render_mode
        self.observation_space = self._env.observation_space(self._agent)
        self.action_space = self._env.action_space(self._agent)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and, with a seed, the random actions of the other agents."""
        super().reset(seed=seed)
        if seed is not None:
            for number, name in enumerate(self._env.possible_agents):
                self._env.action_space(name).seed(seed + number)
        observations, infos = self._env.reset(seed=seed, options=options)
        return observations[self._agent], infos.get(self._agent, {})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment."""
        actions = {name: self._env.action_space(name).sample() for name in self._env.agents}
        given = {**actions, self._agent: action}
        results = [result.get(self._agent) for result in self._env.step(given)]
        observation, reward, terminated, truncated, info = results
        return observation, float(reward), bool(terminated), bool(truncated), info or {}

    def render(self) -> Any:
        """Render the environment."""
        return self._env.render()

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
