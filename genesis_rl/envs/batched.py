"""Vector environments whose members live in one batch: resets, their three modes, and info."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from genesis_rl.checks import LARGEST, check_range

Flags = npt.NDArray[np.bool_]


class Outcome(NamedTuple):
    """What a step of n environments brought; all (n,)."""

    rewards: npt.NDArray[np.float64]
    terminated: Flags
    truncated: Flags


class Single(Protocol):
    """What a batch takes over from a single environment."""

    @property
    def metadata(self) -> dict[str, Any]:
        """As Gymnasium has it."""

    @property
    def render_mode(self) -> str | None:
        """As Gymnasium has it."""

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Of one environment."""

    @property
    def action_space(self) -> gym.Space[Any]:
        """Of one environment."""


class BatchedVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Base of environments that are many at once, equal step by step to as many single ones.

    Resets follow Gymnasium's three modes: `AutoresetMode.NEXT_STEP` (the step after an episode's
    end resets and ignores its action), `SAME_STEP` (the step that ends an episode returns the next
    one's first observation, the last one in `info["final_obs"]` and `info["final_info"]`) and
    `DISABLED` (the caller resets by `reset(options={"reset_mask": done})`).

    A subclass starts, moves and shows some of its members, by their indices.
    """

    def __init__(self, one: Single, num_envs: int, autoreset_mode: str | AutoresetMode) -> None:
        """Take the spaces, metadata and render mode of a single environment.

        Args:
            one: of which there are to be many.
            num_envs: how many, B.
            autoreset_mode: one of Gymnasium's modes, or its value ("NextStep", "SameStep",
                "Disabled").

        Raises:
            ValueError: for a bad number or mode.
        """
        check_count("num_envs", num_envs)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**one.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = one.render_mode
        self.single_observation_space = one.observation_space
        self.single_action_space = one.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._done = np.zeros(num_envs, np.bool_)
        self._started = np.zeros(num_envs, np.bool_)

    @abstractmethod
    def _start(self, indices: list[int], seeds: list[int | None], options: dict[str, Any]) -> None:
        """Start episodes; a seed restarts a member's randomness."""

    @abstractmethod
    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> Outcome:
        """Move members by their actions, (n, ...)."""

    @abstractmethod
    def _observe(self, indices: Sequence[int]) -> Any:
        """Return the observations of members, batched, in new arrays."""

    @abstractmethod
    def _values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """Return the info of all members, (B, ...) each; what it says of others is not used."""

    @abstractmethod
    def _checked(self, given: Any) -> npt.NDArray[Any]:
        """Return the given actions of all members as an array (B, ...).

        Raises:
            ValueError: for any other actions.
        """

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: restarts the randomness: of environment i by `seed + i`, or by `seed[i]`.
            options: "reset_mask", (B,) bool, names the environments to reset; all by default.
                Other entries are those of the single environment, batched.

        Returns:
            The observations of all environments, and the info of those that were reset.

        Raises:
            ValueError: for seeds or a mask of another length, or a mask that is all False.
            TypeError: for a mask that is not an array of bool.
            RuntimeError: if the mask leaves out an environment that was never reset.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is None:
            seeds = [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must have {self.num_envs} entries, got {len(seeds)}")
        left = dict(options or {})
        chosen = self._chosen(left.pop("reset_mask", None))
        self._restart(chosen, [seeds[i] for i in chosen], left)
        if not self._started.all():
            raise RuntimeError("call reset() first")
        return self._observe(range(self.num_envs)), self._info(chosen)

    def step(
        self, actions: Any
    ) -> tuple[Any, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Move all environments.

        Args:
            actions: of all of them, batched.

        Returns:
            Observations, rewards (B,), terminated (B,), truncated (B,) and info.

        Raises:
            ValueError: for actions of another space.
            RuntimeError: before the first reset, or after an episode's end if resets are disabled.
        """
        actions = self._checked(actions)
        if not self._started.all():
            raise RuntimeError("call reset() first")
        ended = self._done.nonzero()[0].tolist()
        if ended and self.autoreset_mode is AutoresetMode.DISABLED:
            raise RuntimeError(
                f"the episodes of environments {ended} have ended: call"
                " reset(options={'reset_mask': terminated | truncated})"
            )
        going = (~self._done).nonzero()[0].tolist()
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        if ended:
            self._restart(ended, [None] * len(ended), {})
        if going:
            outcome = self._advance(going, actions[going])
            rewards[going], terminated[going], truncated[going] = outcome
        self._done = terminated | truncated
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            final = self._finish()
        everyone = range(self.num_envs)
        info = self._info(everyone) | final
        return self._observe(everyone), rewards, terminated, truncated, info

    def _chosen(self, mask: object) -> list[int]:
        """Return the indices that a reset's mask chooses."""
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be a NumPy array of bool, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must choose some of {self.num_envs}, got {mask}")
        return mask.nonzero()[0].tolist()

    def _restart(
        self, indices: list[int], seeds: list[int | None], options: dict[str, Any]
    ) -> None:
        self._start(indices, seeds, options)
        self._started[indices] = True
        self._done[indices] = False

    def _finish(self) -> dict[str, Any]:
        """Start the next episodes in the step that ended some; return what the ended ones saw."""
        done = self._done.copy()
        ended = done.nonzero()[0].tolist()
        observations = np.full(self.num_envs, None, object)
        batch = self._observe(ended)
        for row, i in enumerate(ended):
            one = {k: v[row] for k, v in batch.items()} if isinstance(batch, dict) else batch[row]
            observations[i] = one
        info = self._info(ended)
        self._restart(ended, [None] * len(ended), {})
        return {
            "final_obs": observations,
            "_final_obs": done,
            "final_info": info,
            "_final_info": done.copy(),
        }

    def _info(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the info of some environments as Gymnasium batches it."""
        present = np.zeros(self.num_envs, np.bool_)
        present[list(indices)] = True
        info: dict[str, Any] = {}
        for name, values in self._values(indices).items():
            shown = present.reshape(-1, *[1] * (values.ndim - 1))
            info |= {name: np.where(shown, values, np.zeros_like(values)), f"_{name}": present}
        return {k: v.copy() if k[:1] == "_" else v for k, v in info.items()}


def check_count(name: str, value: Any) -> None:
    """Refuse what is not a whole number from 1 to the largest of its name.

    Raises:
        ValueError: naming it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    check_range(name, value, 1, LARGEST.get(name, math.inf))
