"""Adapter from Gymnasium's vector environments to Stable-Baselines3's VecEnv."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)


class GymVecEnv(VecEnv):
    """Gymnasium vector environment as a VecEnv of Stable-Baselines3.

    Equivalent to `DummyVecEnv` of the single environments, with the speed of the vector
    environment. At the end of an episode the environment is reset in the same step, the last
    observation is in `info["terminal_observation"]`, and `info["TimeLimit.truncated"]` is True for
    truncation. `get_attr` repeats the attributes of the vector environment; `set_attr` and
    `env_method` are not supported.

    Example:
        >>> envs = gym.make_vec("genesis_rl/ObjectGoal-v0", 64, autoreset_mode="SameStep")
        >>> PPO("CnnPolicy", VecMonitor(GymVecEnv(envs))).learn(100_000)  # doctest: +SKIP
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Wrap a vector environment.

        Args:
            envs: vector environment with `AutoresetMode.SAME_STEP` and Box observations or Dicts of
                them.

        Raises:
            TypeError: if ``envs`` is no vector environment with such observations.
            ValueError: for another autoreset mode.
        """
        if not isinstance(envs, gym.vector.VectorEnv):
            raise TypeError(
                f"envs must be a gymnasium.vector.VectorEnv, got {type(envs).__name__}."
            )
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"envs must have autoreset_mode='SameStep', got {mode}.")
        space = envs.single_observation_space
        parts = list(space.values()) if isinstance(space, gym.spaces.Dict) else [space]
        if not all(isinstance(part, gym.spaces.Box) for part in parts):
            raise TypeError(f"envs must have Box observations or Dicts of them, got {space}.")
        self.envs = envs
        self._actions: npt.NDArray[Any] = np.zeros(0)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options of `seed` and `set_options`."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else self._seeds
        observations, info = self.envs.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos = _rows(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Store the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments."""
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        dones = terminated | truncated
        last, final = info.pop("final_obs", None), _rows(info.pop("final_info", {}), self.num_envs)
        infos = _rows(info, self.num_envs)
        for i in dones.nonzero()[0]:
            self.reset_infos[i] = infos[i]
            infos[i] = {**final[i], "terminal_observation": last[i]}
        for row, only_truncated in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = only_truncated
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """Render every environment."""
        pictures: Any = self.envs.render()
        return pictures or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment, repeated for the given environments."""
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raise an error: single environments are not accessible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"GymVecEnv does not support set_attr (of {attr_name!r}).")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Raise an error: single environments are not accessible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"GymVecEnv does not support env_method (of {method_name!r}).")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False for every environment: single environments have no wrappers."""
        return [False] * len(list(self._get_indices(indices)))


def _rows(info: Mapping[str, Any], n_envs: int) -> list[dict[str, Any]]:
    """Split Gymnasium's batched info into one dict per environment."""
    rows: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    for name, values in info.items():
        present = info.get(f"_{name}")
        if present is None:
            continue  # a mask
        parts: Any = _rows(values, n_envs) if isinstance(values, Mapping) else values
        for i in np.flatnonzero(present).tolist():
            rows[i][name] = parts[i].item() if isinstance(parts[i], np.generic) else parts[i]
    return rows
