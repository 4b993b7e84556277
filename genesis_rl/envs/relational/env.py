"""The relational tasks as Gymnasium environments: an agent, a disc, moves among sprites.

The rules follow Yoon et al. (ICML 2023, arXiv:2302.04419). Vector environments render in batches.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode

from genesis_rl.envs.window import RENDER_MODES, Frame, Observation, ObservationKind, WindowEnv
from genesis_rl.envs.wrappers.batched import BatchedVectorEnv, StepResult, check_count
from genesis_rl.worlds.sprites import (
    STATE_COLUMNS,
    BatchRenderer,
    ObjectComparisonWorld,
    ObjectGoalWorld,
    ObjectInteractionWorld,
    PropertyComparisonWorld,
    Scene,
    SpriteWorld,
    from_options,
    scene_state,
)
from genesis_rl.worlds.sprites.drawing import render


class SceneStep(NamedTuple):
    """Next scene, reward, success and termination of one action."""

    scene: Scene
    reward: float
    success: bool
    terminated: bool


class SpriteEnv(WindowEnv[np.int64]):
    """Base of the tasks in which an agent, a disc, moves among sprites.

    A subclass defines `World`, the `SpriteWorld` with the rules of the task.

    Actions: Discrete(4): up, left, down, right by `step_size`; the agent stays inside the frame.

    Observations: the frame, Box(0, 255, (image_size, image_size, 3), uint8); with
    observation="state" the ground-truth state, Box(0, 1, (N, F), float32), see
    `genesis_rl.worlds.sprites.scene_state`. Without frames a step is several times faster.

    Rewards: 1 for success, else 0; with `dense_reward` also +0.01 for a step that reduces the
    distance from agent to target and -0.01 for one that increases it (in Object Interaction: the
    sum of the distances from agent to target and from target to marker).

    Truncation: after 100 steps in environments made by `gym.make`.

    Info: `is_success` after every step; with `state_in_info` `true_state`, (N, F) float32, see
    `genesis_rl.worlds.sprites.scene_state`; with `masks_in_info` `true_masks`, (image_size,
    image_size)
    uint8: 0 = background, i + 1 = row i of the state; the agent is the last row.
    """

    #: The world of the task.
    World: ClassVar[type[SpriteWorld]]

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": RENDER_MODES,
        "render_fps": 10,
    }

    #: Directions of the actions, (x, y) with y up.
    MOVES: ClassVar[tuple[tuple[int, int], ...]] = ((0, 1), (-1, 0), (0, -1), (1, 0))

    _scene: Scene
    _success = False

    def __init__(
        self,
        *,
        step_size: float = 0.05,
        dense_reward: bool = False,
        observation: ObservationKind = "image",
        state_in_info: bool = False,
        masks_in_info: bool = False,
        render_mode: str | None = None,
        render_size: int = 256,
        **world: Any,
    ) -> None:
        """Create the environment.

        Args:
            step_size: distance that the agent moves in a step, as a fraction of the frame's width.
            dense_reward: also reward a smaller distance to the target.
            observation: "image", or "state" for the ground truth.
            state_in_info: add the ground-truth state as `info["true_state"]`.
            masks_in_info: add the instance masks as `info["true_masks"]`.
            render_mode: "rgb_array", "human" (needs an OpenCV with windows) or None.
            render_size: side of the rendered frame in pixels; rendered at this size, not upscaled.
            **world: options of the task's world, see `genesis_rl.worlds.sprites`: image_size,
                num_objects, colours, shapes, object_scale, agent_scale, background, random_start,
                held_out and more.

        Raises:
            ValueError: for an invalid value, or objects that do not fit into the frame.
            TypeError: for an unknown option.
        """
        if not 0 < step_size < 1:
            raise ValueError(f"step_size must be in (0, 1), got {step_size}.")
        if not isinstance(render_size, int) or not 8 <= render_size <= 4096:
            raise ValueError(f"render_size must be an integer in 8..4096, got {render_size!r}.")
        self.world = from_options(self.World, world)
        super().__init__(
            image_size=self.world.image_size,
            observation=observation,
            state_in_info=state_in_info,
            masks_in_info=masks_in_info,
            render_mode=render_mode,
            render_size=render_size,
        )
        self.step_size = step_size
        self.dense_reward = dense_reward
        size = self.image_size
        self.observation_space = (
            gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
            if observation == "image"
            else gym.spaces.Box(0, 1, (self.world.num_sprites, len(STATE_COLUMNS)), np.float32)
        )
        self.action_space = gym.spaces.Discrete(len(self.MOVES))

    @property
    def scene(self) -> Scene:
        """The current scene.

        Raises:
            RuntimeError: before the first reset.
        """
        if not hasattr(self, "_scene"):
            raise RuntimeError("call reset() first")
        return self._scene

    @property
    def world_options(self) -> dict[str, Any]:
        """Options of the world as plain data, e.g. for `open_dataset("object_goal", **options)`."""
        return asdict(self.world)

    def _start(self) -> None:
        self._scene, self._success = self.world.sample(self.np_random), False

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the agent.

        Args:
            action: 0 = up, 1 = left, 2 = down, 3 = right.

        Returns:
            Observation, reward, terminated, truncated (always False: the registered time limit
            truncates) and info.

        Raises:
            ValueError: for any other action.
            RuntimeError: before the first reset.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action must be an integer in 0..3, got {action!r}.")
        self._scene, reward, self._success, terminated = self.advance(self.scene, int(action))
        observation, info = self._observe()
        return observation, reward, terminated, False, info

    def draw(self, size: int) -> Frame:
        """Render the current scene: (size, size, 3) uint8.

        Raises:
            RuntimeError: before the first reset.
        """
        return render(self.scene.sprites, size, self.scene.background)

    def draw_labelled(self, size: int) -> tuple[Frame, Frame]:
        """Render the current scene and its instance masks, see `draw`."""
        masks = np.empty((size, size), np.uint8)
        return render(self.scene.sprites, size, self.scene.background, masks=masks), masks

    def advance(self, scene: Scene, action: int) -> SceneStep:
        """Compute one step from a scene, without changing the environment's own scene."""
        x, y = self.MOVES[action]
        moved = self.world.move(scene, (x * self.step_size, y * self.step_size))
        success, ended = self.world.evaluate(moved)
        reward = float(success)
        if self.dense_reward and not success:
            nearer = self.world.remaining_distance(scene) - self.world.remaining_distance(moved)
            reward += 0.01 * float(np.sign(nearer))
        return SceneStep(moved, reward, success, ended)

    def _info(self) -> dict[str, Any]:
        return {"is_success": self._success}

    def _state(self) -> npt.NDArray[np.float32]:
        return scene_state(self.scene)


class ObjectGoalEnv(SpriteEnv):
    """Object Goal: touch the target, by default a blue square, and nothing else.

    Touching any object terminates the episode. Options of the world:
    `genesis_rl.worlds.sprites.ObjectGoalWorld`; everything else as in `SpriteEnv`.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> env = gym.make("genesis_rl/ObjectGoal-v0", num_objects=3, image_size=32)
    """

    World = ObjectGoalWorld


class ObjectInteractionEnv(SpriteEnv):
    """Object Interaction: push the blue square onto its marker in the bottom-left corner.

    Any object on the marker terminates the episode. The second-to-last row of the state is the
    marker. Options of the world: `genesis_rl.worlds.sprites.ObjectInteractionWorld`; everything
    else as in `SpriteEnv`.
    """

    World = ObjectInteractionWorld


class ObjectComparisonEnv(SpriteEnv):
    """Object Comparison: touch the object that differs from the others, which are identical.

    Touching any object terminates the episode. Options of the world:
    `genesis_rl.worlds.sprites.ObjectComparisonWorld`; everything else as in `SpriteEnv`.
    """

    World = ObjectComparisonWorld


class PropertyComparisonEnv(SpriteEnv):
    """Property Comparison: touch the only object with its value of one property.

    Touching any object terminates the episode. Options of the world:
    `genesis_rl.worlds.sprites.PropertyComparisonWorld`; everything else as in `SpriteEnv`.
    """

    World = PropertyComparisonWorld


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
