"""The relational tasks as vector environments with batched rendering."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.relational.env import (
    ObjectComparisonEnv,
    ObjectGoalEnv,
    ObjectInteractionEnv,
    PropertyComparisonEnv,
    SpriteEnv,
)
from genesis_rl.envs.window import Observation
from genesis_rl.envs.wrappers.batched import BatchedVectorEnv, StepResult, check_count
from genesis_rl.worlds.sprites import STATE_COLUMNS, BatchRenderer, Scene, SpriteWorld, scene_state
from genesis_rl.worlds.sprites.drawing import render


class SpriteVectorEnv(BatchedVectorEnv):
    """Copies of one task in one process, equal step by step to single environments.

    Created by `gym.make_vec(id, num_envs)`. A step renders the agents alone, into all frames at
    once; the rest of a scene is rendered when it changes. Spaces, options, rewards and info are
    those of the single environment (`SpriteEnv`), batched as in Gymnasium; every step returns a
    new array of frames. Resets: see `BatchedVectorEnv`.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> envs = gym.make_vec("genesis_rl/ObjectGoal-v0", num_envs=64)
        >>> frames, info = envs.reset(seed=0)
    """

    #: Single environment of the task.
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
            num_envs: number of environments, B.
            max_episode_steps: steps after which an episode is truncated; None: never.
            autoreset_mode: an `AutoresetMode`, or its value ("NextStep", "SameStep", "Disabled").
            **options: options of the single environment.

        Raises:
            ValueError: for an invalid number, mode or option, or render_mode "human".
            TypeError: for an unknown option.
        """
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps)
        if options.get("render_mode") == "human":
            raise ValueError("render_mode must be 'rgb_array' or None, got 'human'.")
        self._single = self.Env(**options)
        super().__init__(self._single, num_envs, autoreset_mode)
        self._limit = max_episode_steps or np.inf
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._scenes: list[Scene | None] = [None] * num_envs
        self._steps = np.zeros(num_envs, np.int64)
        self._success = np.zeros(num_envs, np.bool_)
        self._renderer = BatchRenderer(num_envs, self.world.image_size)

    @property
    def world(self) -> SpriteWorld:
        """The world of all environments."""
        return self._single.world

    @property
    def world_options(self) -> dict[str, Any]:
        """Options of the world as plain data, e.g. for `open_dataset`."""
        return asdict(self.world)

    def render(self) -> tuple[Observation, ...] | None:
        """Render every scene at `render_size`."""
        if self.render_mode is None:
            gym.logger.warn("render() returns None without render_mode='rgb_array'")
            return None
        scenes = [self._scene(i) for i in range(self.num_envs)]
        return tuple(render(s.sprites, self._single.render_size, s.background) for s in scenes)

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

    def _check_actions(self, actions: Any) -> npt.NDArray[Any]:
        checked: npt.NDArray[Any] = np.asarray(actions)
        if checked.dtype.kind not in "iu" or not self.action_space.contains(checked):
            raise ValueError(f"actions must be {self.num_envs} integers in 0..3, got {actions}.")
        return checked

    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> StepResult:
        rewards = np.zeros(len(indices))
        terminated = np.zeros(len(indices), np.bool_)
        for row, (i, action) in enumerate(zip(indices, actions.tolist(), strict=True)):
            result = self._single.advance(self._scene(i), action)
            self._scenes[i], rewards[row], self._success[i], terminated[row] = result
        self._steps[indices] += 1
        return StepResult(rewards, terminated, self._steps[indices] >= self._limit)

    def _observe(self, indices: Sequence[int]) -> Observation:
        scenes = [self._scene(i) for i in indices]
        if self._single.observation == "state":
            return np.stack([scene_state(scene) for scene in scenes])
        return self._renderer.draw(scenes, indices)

    def _info_values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        values: dict[str, npt.NDArray[Any]] = {"is_success": self._success}
        size = self.world.image_size
        if self._single.state_in_info:
            shape = (self.num_envs, self.world.num_sprites, len(STATE_COLUMNS))
            values["true_state"] = np.zeros(shape, np.float32)
            for i in indices:
                values["true_state"][i] = scene_state(self._scene(i))
        if self._single.masks_in_info:
            values["true_masks"] = np.zeros((self.num_envs, size, size), np.uint8)
            for i in indices:
                scene = self._scene(i)
                render(scene.sprites, size, scene.background, masks=values["true_masks"][i])
        return values


class ObjectGoalVectorEnv(SpriteVectorEnv):
    """Vector environment of Object Goal."""

    Env = ObjectGoalEnv


class ObjectInteractionVectorEnv(SpriteVectorEnv):
    """Vector environment of Object Interaction."""

    Env = ObjectInteractionEnv


class ObjectComparisonVectorEnv(SpriteVectorEnv):
    """Vector environment of Object Comparison."""

    Env = ObjectComparisonEnv


class PropertyComparisonVectorEnv(SpriteVectorEnv):
    """Vector environment of Property Comparison."""

    Env = PropertyComparisonEnv
