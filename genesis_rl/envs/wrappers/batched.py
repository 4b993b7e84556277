"""Base of vector environments computed as one batch: autoreset modes and info."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from genesis_rl.utils.checks import LARGEST, check_range

Flags = npt.NDArray[np.bool_]


class StepResult(NamedTuple):
    """Rewards and ends of a step of n environments; all (n,)."""

    rewards: npt.NDArray[np.float64]
    terminated: Flags
    truncated: Flags


class SingleEnv(Protocol):
    """Attributes of the single environment that a batch copies."""

    @property
    def metadata(self) -> dict[str, Any]:
        """As in Gymnasium."""

    @property
    def render_mode(self) -> str | None:
        """As in Gymnasium."""

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Observation space of one environment."""

    @property
    def action_space(self) -> gym.Space[Any]:
        """Action space of one environment."""


class BatchedVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Base of batched vector environments, equal step by step to single environments.

    Resets follow Gymnasium's three modes: `AutoresetMode.NEXT_STEP` (the step after an episode's
    end resets and ignores its action), `SAME_STEP` (the last step of an episode returns the first
    observation of the next one, and its own in `info["final_obs"]` and `info["final_info"]`) and
    `DISABLED` (the caller resets by `reset(options={"reset_mask": done})`).

    A subclass resets, steps and observes subsets of its environments, selected by indices.
    """

    def __init__(
        self, single: SingleEnv, num_envs: int, autoreset_mode: str | AutoresetMode
    ) -> None:
        """Copy the spaces, metadata and render mode of a single environment.

        Args:
            single: the single environment.
            num_envs: number of environments, B.
            autoreset_mode: an `AutoresetMode`, or its value ("NextStep", "SameStep", "Disabled").

        Raises:
            ValueError: for an invalid number or mode.
        """
        check_count("num_envs", num_envs)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**single.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = single.render_mode
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._done = np.zeros(num_envs, np.bool_)
        self._started = np.zeros(num_envs, np.bool_)

    @abstractmethod
    def _start(self, indices: list[int], seeds: list[int | None], options: dict[str, Any]) -> None:
        """Start episodes of the environments `indices`; seed those with a seed."""

    @abstractmethod
    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> StepResult:
        """Step the environments `indices` by actions (n, ...)."""

    @abstractmethod
    def _observe(self, indices: Sequence[int]) -> Any:
        """Return the observations of the environments `indices`, batched, in new arrays."""

    @abstractmethod
    def _info_values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """Return the info entries, (B, ...) each; only the rows `indices` are used."""

    @abstractmethod
    def _check_actions(self, actions: Any) -> npt.NDArray[Any]:
        """Return the actions of all environments as an array (B, ...).

        Raises:
            ValueError: for actions outside the action space.
        """

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: environment i is seeded by `seed + i`, or by `seed[i]`.
            options: "reset_mask", (B,) bool, selects the environments to reset; default: all.
                Other entries are options of the single environment, batched.

        Returns:
            Observations of all environments, and info of the environments that were reset.

        Raises:
            ValueError: for seeds or a mask of another length, or a mask without True.
            TypeError: for a mask that is not a bool array.
            RuntimeError: if an environment outside the mask was never reset.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is None:
            seeds = [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must have {self.num_envs} entries, got {len(seeds)}.")
        others = dict(options or {})
        selected = self._select(others.pop("reset_mask", None))
        self._restart(selected, [seeds[i] for i in selected], others)
        if not self._started.all():
            raise RuntimeError("call reset() first")
        return self._observe(range(self.num_envs)), self._info(selected)

    def step(
        self, actions: Any
    ) -> tuple[Any, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Step all environments.

        Args:
            actions: batched actions, (B, ...).

        Returns:
            Observations, rewards (B,), terminated (B,), truncated (B,) and info.

        Raises:
            ValueError: for actions outside the action space.
            RuntimeError: before the first reset, or after an episode's end in mode DISABLED.
        """
        actions = self._check_actions(actions)
        if not self._started.all():
            raise RuntimeError("call reset() first")
        ended = self._done.nonzero()[0].tolist()
        if ended and self.autoreset_mode is AutoresetMode.DISABLED:
            raise RuntimeError(
                f"the episodes of environments {ended} have ended: call"
                " reset(options={'reset_mask': terminated | truncated})."
            )
        running = (~self._done).nonzero()[0].tolist()
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        if ended:
            self._restart(ended, [None] * len(ended), {})
        if running:
            result = self._advance(running, actions[running])
            rewards[running], terminated[running], truncated[running] = result
        self._done = terminated | truncated
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            final = self._finish()
        indices = range(self.num_envs)
        info = self._info(indices) | final
        return self._observe(indices), rewards, terminated, truncated, info

    def _select(self, mask: object) -> list[int]:
        """Return the indices selected by a reset mask."""
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be a NumPy array of bool, got {mask!r}.")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must be ({self.num_envs},) with some True, got {mask}.")
        return mask.nonzero()[0].tolist()

    def _restart(
        self, indices: list[int], seeds: list[int | None], options: dict[str, Any]
    ) -> None:
        self._start(indices, seeds, options)
        self._started[indices] = True
        self._done[indices] = False

    def _finish(self) -> dict[str, Any]:
        """Reset the ended environments; return their final observations and infos."""
        done = self._done.copy()
        ended = done.nonzero()[0].tolist()
        observations = np.full(self.num_envs, None, object)
        batch = self._observe(ended)
        for row, i in enumerate(ended):
            observations[i] = (
                {k: v[row] for k, v in batch.items()} if isinstance(batch, dict) else batch[row]
            )
        info = self._info(ended)
        self._restart(ended, [None] * len(ended), {})
        return {
            "final_obs": observations,
            "_final_obs": done,
            "final_info": info,
            "_final_info": done.copy(),
        }

    def _info(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the info of the environments `indices`, batched as in Gymnasium."""
        present = np.zeros(self.num_envs, np.bool_)
        present[list(indices)] = True
        info: dict[str, Any] = {}
        for name, values in self._info_values(indices).items():
            mask = present.reshape(-1, *[1] * (values.ndim - 1))
            info |= {name: np.where(mask, values, np.zeros_like(values)), f"_{name}": present}
        return {k: v.copy() if k[:1] == "_" else v for k, v in info.items()}


def check_count(name: str, value: Any) -> None:
    """Check for an integer from 1 to the limit of the argument's name.

    Raises:
        ValueError: naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
    check_range(name, value, 1, LARGEST.get(name, math.inf))
