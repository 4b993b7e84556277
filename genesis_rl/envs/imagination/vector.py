"""Imagined vector environment: all scenes in one batch on one device."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.imagination import ImaginedScenes
from genesis_rl.envs.imagination.env import ImaginationCore, WorldModelLike
from genesis_rl.envs.wrappers.batched import BatchedVectorEnv, StepResult, check_count
from genesis_rl.envs.wrappers.slot_obs import ObsLayout
from genesis_rl.perception.encoder import EncoderLike
from genesis_rl.slots import MASK_GEOMETRY


class ImaginationVectorEnv(BatchedVectorEnv):
    """Imagined scenes in one batch, equal step by step to single environments.

    Created by `gym.make_vec("genesis_rl/Imagination-v0", num_envs=1024, encoder=...,
    world_model=...)`. Options, spaces, rewards and info are those of `ImaginationEnv`, batched as
    in Gymnasium; resets: see `BatchedVectorEnv`. For Stable-Baselines3, use
    ``autoreset_mode="SameStep"`` and wrap it in `GymVecEnv`.
    """

    def __init__(
        self,
        encoder: EncoderLike,
        world_model: WorldModelLike,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        layout: ObsLayout = "set",
        mask_geometry: bool = MASK_GEOMETRY,
        device: str = "auto",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Load the models.

        Args:
            encoder: path, hub id, or a SlotEncoder (also its ``spec``).
            world_model: path, hub id or WorldModel, trained on the encoder's slots.
            num_envs: number of scenes, B.
            autoreset_mode: an `AutoresetMode`, or its value ("NextStep", "SameStep", "Disabled").
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask geometry; must be False for a world model trained
                without it.
            device: device of both models; "auto" is CUDA if available.
            render_mode: "rgb_array" or None.
            **options: initial scenes, dynamics and truncation, see `ImaginationOptions`.

        Raises:
            TypeError, ValueError: as `ImaginationEnv`; also for an invalid number or mode.
        """
        check_count("num_envs", num_envs)
        self._imagined = ImaginationCore(
            encoder, world_model, layout, mask_geometry, device, render_mode, options, num_envs
        )
        super().__init__(self._imagined, num_envs, autoreset_mode)
        self._seeded = np.zeros(num_envs, np.bool_)
        self._last = {
            "uncertainty": np.zeros(num_envs, np.float32),
            "uncertain": np.zeros(num_envs, np.bool_),
            "non_finite": np.zeros(num_envs, np.bool_),
        }

    @property
    def engine(self) -> ImaginedScenes:
        """The rollouts."""
        return self._imagined.engine

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Decode every scene to a frame (S, S, 3); S is the encoder's image size."""
        if self.render_mode is None:
            gym.logger.warn("render() returns None without render_mode='rgb_array'")
            return None
        return tuple(self._imagined.draw())

    def _start(self, indices: list[int], seeds: list[int | None], options: dict[str, Any]) -> None:
        chosen = [
            np_random()[1] if seed is None and not self._seeded[i] else seed
            for i, seed in zip(indices, seeds, strict=True)
        ]
        self._seeded[indices] = True
        self._imagined.start(indices, chosen, options)
        for values in self._last.values():
            values[indices] = 0

    def _check_actions(self, actions: Any) -> npt.NDArray[Any]:
        return self._imagined.check_actions(actions, self.num_envs)

    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> StepResult:
        result = self._imagined.advance(indices, actions)
        for name, values in self._last.items():
            values[indices] = getattr(result, name).numpy()
        return StepResult(
            result.reward.numpy().astype(np.float64),
            result.terminated.numpy(),
            result.truncated.numpy(),
        )

    def _observe(self, indices: Sequence[int]) -> Any:
        return self._imagined.observe(indices)

    def _info_values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        return {"from_prior": self._imagined.from_prior(), **self._last}
