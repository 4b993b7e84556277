"""The relational tasks as vector environments: many at once, drawn in one batch."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.batched import BatchedVectorEnv, Outcome, check_count
from genesis_rl.envs.sprites import (
    ObjectComparisonEnv,
    ObjectGoalEnv,
    ObjectInteractionEnv,
    PropertyComparisonEnv,
    SpriteEnv,
)
from genesis_rl.envs.window import Observation
from genesis_rl.sprites import render
from genesis_rl.worlds import STATE_COLUMNS, BatchRenderer, Scene, SpriteWorld, scene_state


class SpriteVectorEnv(BatchedVectorEnv):
    """Many copies of one task in one process, equal step by step to as many single environments.

    `gym.make_vec(id, num_envs)` makes it. Only the agent is drawn in every step, into all frames
    at once; the rest of a scene is drawn when it changes. Spaces, options, rewards and info are
    those of the single environment (`SpriteEnv`), batched as Gymnasium batches them; the frames of
    a step are a new array, which the caller may keep. Resets: see `BatchedVectorEnv`.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> envs = gym.make_vec("genesis_rl/ObjectGoal-v0", num_envs=64)
        >>> frames, info = envs.reset(seed=0)
    """

    #: The task.
    Env: ClassVar[type[SpriteEnv]]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = 100,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **options: Any,
    ) -> None:
        """Create the environments.

        Args:
            num_envs: how many, B.
            max_episode_steps: steps after which an episode is cut; None: never.
            autoreset_mode: one of Gymnasium's modes, or its value ("NextStep", "SameStep",
                "Disabled").
            **options: those of the single environment.

        Raises:
            ValueError: for a bad number or mode, a window as render mode, or a bad option.
            TypeError: for an unknown option.
        """
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps)
        if options.get("render_mode") == "human":
            raise ValueError("render_mode 'human' is for one environment; use 'rgb_array'")
        self._one = self.Env(**options)
        super().__init__(self._one, num_envs, autoreset_mode)
        self._limit = max_episode_steps or np.inf
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._scenes: list[Scene | None] = [None] * num_envs
        self._steps = np.zeros(num_envs, np.int64)
        self._success = np.zeros(num_envs, np.bool_)
        self._renderer = BatchRenderer(num_envs, self.world.image_size)

    @property
    def world(self) -> SpriteWorld:
        """The world of all the environments."""
        return self._one.world

    @property
    def world_options(self) -> dict[str, Any]:
        """The world's options as plain data, for example for `open_dataset`."""
        return asdict(self.world)

    def render(self) -> tuple[Observation, ...] | None:
        """Draw every scene at `render_size`."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing: pass render_mode='rgb_array' to gym.make_vec")
            return None
        scenes = [self._scene(i) for i in range(self.num_envs)]
        return tuple(render(s.sprites, self._one.render_size, s.background) for s in scenes)

    def _scene(self, index: int) -> Scene:
        scene = self._scenes[index]
        if scene is None:
            raise RuntimeError("call reset() first")
        return scene

    def _start(self, indices: list[int], seeds: list[int | None], options: dict[str, Any]) -> None:
        for i, seed in zip(indices, seeds, strict=True):
            rng = self._rngs[i] if seed is None else None
            rng = rng or np_random(seed)[0]
            self._rngs[i] = rng
            self._scenes[i] = self.world.sample(rng)
        self._steps[indices] = 0
        self._success[indices] = False

    def _checked(self, given: Any) -> npt.NDArray[Any]:
        actions: npt.NDArray[Any] = np.asarray(given)
        if actions.dtype.kind not in "iu" or not self.action_space.contains(actions):
            raise ValueError(f"actions must be {self.num_envs} integers in 0..3, got {actions}")
        return actions

    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> Outcome:
        rewards = np.zeros(len(indices))
        terminated = np.zeros(len(indices), np.bool_)
        for row, (i, action) in enumerate(zip(indices, actions.tolist(), strict=True)):
            result = self._one.advance(self._scene(i), action)
            self._scenes[i], rewards[row], self._success[i], terminated[row] = result
        self._steps[indices] += 1
        return Outcome(rewards, terminated, self._steps[indices] >= self._limit)

    def _observe(self, indices: Sequence[int]) -> Observation:
        scenes = [self._scene(i) for i in indices]
        if self._one.observation == "state":
            return np.stack([scene_state(scene) for scene in scenes])
        return self._renderer.draw(scenes, indices)

    def _values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        values: dict[str, npt.NDArray[Any]] = {"is_success": self._success}
        size = self.world.image_size
        if self._one.state_in_info:
            shape = (self.num_envs, self.world.num_sprites, len(STATE_COLUMNS))
            values["true_state"] = np.zeros(shape, np.float32)
            for i in indices:
                values["true_state"][i] = scene_state(self._scene(i))
        if self._one.masks_in_info:
            values["true_masks"] = np.zeros((self.num_envs, size, size), np.uint8)
            for i in indices:
                scene = self._scene(i)
                render(scene.sprites, size, scene.background, masks=values["true_masks"][i])
        return values


class ObjectGoalVectorEnv(SpriteVectorEnv):
    """Many environments of Object Goal."""

    Env = ObjectGoalEnv


class ObjectInteractionVectorEnv(SpriteVectorEnv):
    """Many environments of Object Interaction."""

    Env = ObjectInteractionEnv


class ObjectComparisonVectorEnv(SpriteVectorEnv):
    """Many environments of Object Comparison."""

    Env = ObjectComparisonEnv


class PropertyComparisonVectorEnv(SpriteVectorEnv):
    """Many environments of Property Comparison."""

    Env = PropertyComparisonEnv
