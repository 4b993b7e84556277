"""Imagined scenes as a vector environment: all of them in one batch on one device."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.batched import BatchedVectorEnv, Outcome, check_count
from genesis_rl.envs.imagination import Imagined, WorldModelLike
from genesis_rl.envs.slot_obs import ObsLayout
from genesis_rl.imagination import ImaginedScenes
from genesis_rl.perception import EncoderLike


class ImaginationVectorEnv(BatchedVectorEnv):
    """Many imagined scenes, equal step by step to as many single environments.

    `gym.make_vec("genesis_rl/Imagination-v0", num_envs=1024, model=..., world_model=...)` makes
    it. Options, spaces, rewards and info are those of `ImaginationEnv`, batched as Gymnasium
    batches them; resets: see `BatchedVectorEnv`. For Stable-Baselines3, put `GymVecEnv` around it,
    made with ``autoreset_mode="SameStep"``.
    """

    def __init__(
        self,
        model: EncoderLike,
        world_model: WorldModelLike,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        layout: ObsLayout = "set",
        mask_geometry: bool | None = None,
        device: str = "auto",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Load the models.

        Args:
            model: scene model: path, hub id, or a SlotEncoder (also its ``spec``).
            world_model: folder of a world model, or one in memory, trained on its slots.
            num_envs: how many scenes, B.
            autoreset_mode: one of Gymnasium's modes, or its value ("NextStep", "SameStep",
                "Disabled").
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: observe each slot's mask geometry; None: if the world model knows it.
            device: where both models run; "auto" is CUDA if there is one.
            render_mode: "rgb_array" or None.
            **options: how scenes start, go on and end: see `ImaginationOptions`.

        Raises:
            TypeError, ValueError: as `ImaginationEnv`; also for a bad number or mode.
        """
        check_count("num_envs", num_envs)
        self._imagined = Imagined(
            model, world_model, layout, mask_geometry, device, render_mode, options, num_envs
        )
        super().__init__(self._imagined, num_envs, autoreset_mode)
        self._seeded = np.zeros(num_envs, np.bool_)
        self._last = {
            "uncertainty": np.zeros(num_envs, np.float32),
            "uncertain": np.zeros(num_envs, np.bool_),
            "non_finite": np.zeros(num_envs, np.bool_),
        }

    @property
    def dream(self) -> ImaginedScenes:
        """The engine."""
        return self._imagined.dream

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Decode every scene to a frame (S, S, 3), S the model's image size."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing: pass render_mode='rgb_array' to gym.make_vec")
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

    def _checked(self, given: Any) -> npt.NDArray[Any]:
        return self._imagined.checked(given, self.num_envs)

    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> Outcome:
        moved = self._imagined.advance(indices, actions)
        for name, values in self._last.items():
            values[indices] = getattr(moved, name).numpy()
        return Outcome(
            moved.reward.numpy().astype(np.float64),
            moved.terminated.numpy(),
            moved.truncated.numpy(),
        )

    def _observe(self, indices: Sequence[int]) -> Any:
        return self._imagined.observe(indices)

    def _values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        return {"from_prior": self._imagined.from_prior(), **self._last}
