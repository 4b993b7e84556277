"""A Gymnasium vector environment as Stable-Baselines3 takes it."""

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
    """Gives a batched Gymnasium environment to Stable-Baselines3, which it serves as one VecEnv.

    As `DummyVecEnv` would serve the single environments, only faster where the vector environment
    is: an episode's end resets in the same step, the last observation is in
    `info["terminal_observation"]`, and `info["TimeLimit.truncated"]` tells a cut from an end. All
    environments share their attributes: `get_attr` repeats those of the vector environment;
    single environments cannot be changed, called or wrapped.

    Example:
        >>> envs = gym.make_vec("genesis_rl/ObjectGoal-v0", 64, autoreset_mode="SameStep")
        >>> PPO("CnnPolicy", VecMonitor(GymVecEnv(envs))).learn(100_000)  # doctest: +SKIP
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Take a vector environment.

        Args:
            envs: resets in the step that ends an episode (`AutoresetMode.SAME_STEP`), and its
                observations are arrays, or dicts of arrays.

        Raises:
            TypeError: for anything but a vector environment with such observations.
            ValueError: for another mode of resets.
        """
        if not isinstance(envs, gym.vector.VectorEnv):
            raise TypeError(f"envs must be a gymnasium.vector.VectorEnv, got {type(envs).__name__}")
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"envs must reset in the same step, got {mode}: make it with"
                " autoreset_mode='SameStep'"
            )
        space = envs.single_observation_space
        parts = list(space.values()) if isinstance(space, gym.spaces.Dict) else [space]
        if not all(isinstance(part, gym.spaces.Box) for part in parts):
            raise TypeError(f"observations must be arrays or dicts of arrays, got {space}")
        self.envs = envs
        self._actions: npt.NDArray[Any] = np.zeros(0)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options set before."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else self._seeds
        observations, info = self.envs.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos = _rows(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step."""
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        dones = terminated | truncated
        last, final = info.pop("final_obs", None), _rows(info.pop("final_info", {}), self.num_envs)
        infos = _rows(info, self.num_envs)
        for i in dones.nonzero()[0]:
            self.reset_infos[i] = infos[i]
            infos[i] = {**final[i], "terminal_observation": last[i]}
        for row, cut in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = cut
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """Return a rendered picture of every environment."""
        pictures: Any = self.envs.render()
        return pictures or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment, once for each environment asked for."""
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: there are no single environments.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"a batched environment cannot set {attr_name!r} in single ones")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Refuse: there are no single environments.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"a batched environment cannot call {method_name!r} of one")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Tell that no environment is wrapped by itself."""
        return [False] * len(list(self._get_indices(indices)))


def _rows(info: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Undo Gymnasium's batching: the info of every environment that has any."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in info.items():
        present = info.get(f"_{name}")
        if present is None:
            continue  # a mask itself
        parts: Any = _rows(values, num_envs) if isinstance(values, Mapping) else values
        for i in np.flatnonzero(present).tolist():
            rows[i][name] = parts[i].item() if isinstance(parts[i], np.generic) else parts[i]
    return rows
