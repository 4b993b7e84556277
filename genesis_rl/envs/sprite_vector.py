"""The relational tasks as vector environments: many at once, drawn in one batch."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from genesis_rl.envs.sprites import (
    ObjectComparisonEnv,
    ObjectGoalEnv,
    ObjectInteractionEnv,
    Observation,
    PropertyComparisonEnv,
    SpriteEnv,
)
from genesis_rl.sprites import render
from genesis_rl.worlds import STATE_COLUMNS, BatchRenderer, Scene, SpriteWorld, scene_state

Flags = npt.NDArray[np.bool_]


class SpriteVectorEnv(gym.vector.VectorEnv[Observation, npt.NDArray[Any], npt.NDArray[Any]]):
    """Many copies of one task in one process, equal step by step to as many single environments.

    `gym.make_vec(id, num_envs)` makes it. Only the agent is drawn in every step, into all frames
    at once; the rest of a scene is drawn when it changes. Spaces, options, rewards and info are
    those of the single environment (`SpriteEnv`), batched as Gymnasium batches them; the frames of
    a step are a new array, which the caller may keep.

    Resets follow Gymnasium's three modes: `AutoresetMode.NEXT_STEP` (the step after an episode's
    end resets and ignores its action), `SAME_STEP` (the step that ends an episode returns the next
    one's first observation, the last one in `info["final_obs"]` and `info["final_info"]`) and
    `DISABLED` (the caller resets by `reset(options={"reset_mask": done})`).

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
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps or 1)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if options.get("render_mode") == "human":
            raise ValueError("render_mode 'human' is for one environment; use 'rgb_array'")
        self._one = self.Env(**options)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.Env.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = self._one.render_mode
        self.single_observation_space = self._one.observation_space
        self.single_action_space = self._one.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._limit = max_episode_steps or np.inf
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._scenes: list[Scene | None] = [None] * num_envs
        self._steps = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, np.bool_)
        self._renderer = BatchRenderer(num_envs, self.world.image_size)

    @property
    def world(self) -> SpriteWorld:
        """The world of all the environments."""
        return self._one.world

    @property
    def world_options(self) -> dict[str, Any]:
        """The world's options as plain data, for example for `open_dataset`."""
        return asdict(self.world)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw new scenes.

        Args:
            seed: restarts the randomness: of environment i by `seed + i`, or by `seed[i]`.
            options: "reset_mask", (B,) bool, names the environments to reset; all by default.

        Returns:
            The observations of all environments, and the info of those that were reset.

        Raises:
            ValueError: for seeds or a mask of another length, or a mask that is all False.
            TypeError: for a mask that is not an array of bool.
            RuntimeError: if the mask leaves out an environment that was never reset.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed must have {self.num_envs} entries, got {len(seeds)}")
        chosen = self._chosen((options or {}).get("reset_mask"))
        for i in chosen:
            if seeds is not None and seeds[i] is not None:
                self._rngs[i] = np_random(seeds[i])[0]
            self._restart(i)
        info = self._info(chosen, np.zeros(self.num_envs, np.bool_))
        return self._observe(range(self.num_envs)), info

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Observation, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Move all agents.

        Args:
            actions: (B,) integers in 0..3: up, left, down, right.

        Returns:
            Observations, rewards (B,), terminated (B,), truncated (B,) and info.

        Raises:
            ValueError: for any other actions.
            RuntimeError: before the first reset, or after an episode's end if resets are disabled.
        """
        actions = np.asarray(actions)
        if actions.dtype.kind not in "iu" or not self.action_space.contains(actions):
            raise ValueError(f"actions must be {self.num_envs} integers in 0..3, got {actions}")
        ended = self._done.nonzero()[0].tolist()
        if ended and self.autoreset_mode is AutoresetMode.DISABLED:
            raise RuntimeError(
                f"the episodes of environments {ended} have ended: call"
                " reset(options={'reset_mask': terminated | truncated})"
            )
        rewards = np.zeros(self.num_envs)
        success, terminated = np.zeros((2, self.num_envs), np.bool_)
        for i, action in enumerate(actions.tolist()):
            if self._done[i]:
                self._restart(i)
            else:
                result = self._one.advance(self._scene(i), action)
                self._scenes[i], rewards[i], success[i], terminated[i] = result
                self._steps[i] += 1
        truncated = self._steps >= self._limit
        self._done = terminated | truncated
        final: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            final = self._finish(success)
        everyone = range(self.num_envs)
        info = self._info(everyone, success) | final
        return self._observe(everyone), rewards, terminated, truncated, info

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

    def _chosen(self, mask: object) -> list[int]:
        """Return the indices that a reset's mask chooses."""
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be a NumPy array of bool, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must choose some of {self.num_envs}, got {mask}")
        return mask.nonzero()[0].tolist()

    def _restart(self, index: int) -> None:
        rng = self._rngs[index] or np_random()[0]
        self._rngs[index] = rng
        self._scenes[index] = self.world.sample(rng)
        self._steps[index] = 0
        self._done[index] = False

    def _finish(self, success: Flags) -> dict[str, Any]:
        """Start the next episodes in the step that ended some; return what the ended ones saw."""
        done = self._done.copy()
        ended = done.nonzero()[0].tolist()
        observations = np.full(self.num_envs, None, object)
        for i, observation in zip(ended, self._observe(ended), strict=True):
            observations[i] = observation
        info = self._info(ended, success)
        for i in ended:
            self._restart(i)
        success[ended] = False
        return {
            "final_obs": observations,
            "_final_obs": done,
            "final_info": info,
            "_final_info": done.copy(),
        }

    def _observe(self, indices: Sequence[int]) -> Observation:
        """Return the observations of some environments in a new array."""
        scenes = [self._scene(i) for i in indices]
        if self._one.observation == "state":
            return np.stack([scene_state(scene) for scene in scenes])
        return self._renderer.draw(scenes, indices)

    def _info(self, indices: Sequence[int], success: Flags) -> dict[str, Any]:
        """Return the info of some environments as Gymnasium batches it."""
        chosen = list(indices)
        present = np.zeros(self.num_envs, np.bool_)
        present[chosen] = True
        values = {"is_success": success & present}
        size = self.world.image_size
        if self._one.state_in_info:
            shape = (self.num_envs, self.world.num_sprites, len(STATE_COLUMNS))
            values["true_state"] = np.zeros(shape, np.float32)
            for i in chosen:
                values["true_state"][i] = scene_state(self._scene(i))
        if self._one.masks_in_info:
            values["true_masks"] = np.zeros((self.num_envs, size, size), np.uint8)
            for i in chosen:
                scene = self._scene(i)
                render(scene.sprites, size, scene.background, masks=values["true_masks"][i])
        return {**values, **{f"_{name}": present.copy() for name in values}}


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
