"""Relational tasks in worlds of sprites: the agent, a disc, moves among objects.

The rules follow Yoon et al. (ICML 2023, arXiv:2302.04419).
"""

from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from genesis_rl.envs.window import RENDER_MODES, Observation, ObservationKind, WindowEnv
from genesis_rl.sprites import render
from genesis_rl.worlds import (
    STATE_COLUMNS,
    ObjectComparisonWorld,
    ObjectGoalWorld,
    ObjectInteractionWorld,
    PropertyComparisonWorld,
    Scene,
    SpriteWorld,
    from_options,
    scene_state,
)


class Advance(NamedTuple):
    """What one action leads to."""

    scene: Scene
    reward: float
    success: bool
    terminated: bool


class SpriteEnv(WindowEnv[np.int64]):
    """Base of the tasks in which an agent, a disc, moves among sprites.

    A task says which world it plays in: a `SpriteWorld` with rules of its own.

    Actions: Discrete(4), in order up, left, down, right by `step_size`; the agent stays inside
    the frame.

    Observations: the frame, Box(0, 255, (image_size, image_size, 3), uint8). By option the
    ground-truth state instead, Box(0, 1, (N, F), float32), see `genesis_rl.worlds.scene_state`;
    then no frame is drawn, which is most of a step's time.

    Rewards: 1 for success, else 0; with `dense_reward` also +0.01 for a step that brings the agent
    nearer to the target and -0.01 for one that takes it farther away (in Object Interaction: the
    agent to the target and the target to its goal, the two distances added).

    Episodes made by `gym.make` are cut after 100 steps.

    Info: `is_success` after every step. By option `true_state`, (N, F) float32, see
    `genesis_rl.worlds.scene_state`, and `true_masks`, (image_size, image_size) uint8: 0 =
    background, i + 1 = row i of the state; the agent is the last row.
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
            step_size: how far the agent moves in a step, as a share of the frame's width.
            dense_reward: also reward moving nearer to the target.
            observation: "image", or "state" for the ground truth.
            state_in_info: put the ground-truth state into `info["true_state"]`.
            masks_in_info: put the instance masks into `info["true_masks"]`.
            render_mode: "rgb_array", "human" (a window, if OpenCV has one) or None.
            render_size: side of the rendered frame in pixels; it is drawn at that size, not
                enlarged.
            **world: options of the task's world, see `genesis_rl.worlds`: image_size, num_objects,
                colours, shapes, object_scale, agent_scale, background, random_start, held_out and
                more.

        Raises:
            ValueError: for a bad value, or a world in which the objects find no room.
            TypeError: for an unknown option.
        """
        if not 0 < step_size < 1:
            raise ValueError(f"step_size must be in (0, 1), got {step_size}")
        if not isinstance(render_size, int) or not 8 <= render_size <= 4096:
            raise ValueError(f"render_size must be an integer in 8..4096, got {render_size!r}")
        super().__init__(observation=observation, render_mode=render_mode, render_size=render_size)
        self.world = from_options(self.World, world)
        self.step_size = step_size
        self.dense_reward = dense_reward
        self.state_in_info = state_in_info
        self.masks_in_info = masks_in_info
        size = self.world.image_size
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
        """The world's options as plain data, for example for `open_dataset("object_goal", ...)`."""
        return asdict(self.world)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a new scene.

        Args:
            seed: restarts the randomness, as Gymnasium says.
            options: not used.

        Returns:
            The observation and the info.

        Raises:
            ValueError: if the objects find no room.
        """
        super().reset(seed=seed, options=options)
        self._scene = self.world.sample(self.np_random)
        if self.render_mode == "human":
            self.render()
        return self._observe(success=False)

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the agent.

        Args:
            action: 0 = up, 1 = left, 2 = down, 3 = right.

        Returns:
            Observation, reward, terminated, truncated (always False: the registration's time limit
            cuts episodes) and info.

        Raises:
            ValueError: for any other action.
            RuntimeError: before the first reset.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action must be an integer in 0..3, got {action!r}")
        self._scene, reward, success, terminated = self.advance(self.scene, int(action))
        observation, info = self._observe(success=success)
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, False, info

    def draw(self, size: int) -> npt.NDArray[np.uint8]:
        """Draw the current scene: (size, size, 3) uint8.

        Raises:
            RuntimeError: before the first reset.
        """
        return render(self.scene.sprites, size, self.scene.background)

    def advance(self, scene: Scene, action: int) -> Advance:
        """Return what an action leads to; the environment itself stays as it is."""
        x, y = self.MOVES[action]
        moved = self.world.move(scene, (x * self.step_size, y * self.step_size))
        success, ended = self.world.outcome(moved)
        reward = float(success)
        if self.dense_reward and not success:
            nearer = self.world.remaining(scene) - self.world.remaining(moved)
            reward += 0.01 * float(np.sign(nearer))
        return Advance(moved, reward, success, ended)

    def _observe(self, *, success: bool) -> tuple[Observation, dict[str, Any]]:
        scene, size = self._scene, self.world.image_size
        info: dict[str, Any] = {"is_success": success}
        if self.state_in_info:
            info["true_state"] = scene_state(scene)
        if self.observation == "state" and not self.masks_in_info:
            return scene_state(scene), info
        masks = np.empty((size, size), np.uint8) if self.masks_in_info else None
        frame = render(scene.sprites, size, scene.background, masks=masks)
        if masks is not None:
            info["true_masks"] = masks
        return (frame if self.observation == "image" else scene_state(scene)), info


class ObjectGoalEnv(SpriteEnv):
    """Object Goal: touch the target, by default a blue square, and nothing else.

    Touching the target ends the episode with success, touching another object without. Options
    of the world: `genesis_rl.worlds.ObjectGoalWorld`; the rest as in `SpriteEnv`.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> env = gym.make("genesis_rl/ObjectGoal-v0", num_objects=3, image_size=32)
    """

    World = ObjectGoalWorld


class ObjectInteractionEnv(SpriteEnv):
    """Object Interaction: push the blue square onto its marker in the bottom-left corner.

    Pushing the target there ends the episode with success, pushing another object there without.
    The state's last row but one is the marker. Options of the world:
    `genesis_rl.worlds.ObjectInteractionWorld`; the rest as in `SpriteEnv`.
    """

    World = ObjectInteractionWorld


class ObjectComparisonEnv(SpriteEnv):
    """Object Comparison: touch the object that differs from the others, which look alike.

    Touching it ends the episode with success, touching another object without. Options of the
    world: `genesis_rl.worlds.ObjectComparisonWorld`; the rest as in `SpriteEnv`.
    """

    World = ObjectComparisonWorld


class PropertyComparisonEnv(SpriteEnv):
    """Property Comparison: touch the object that alone has its value of one property.

    Touching it ends the episode with success, touching another object without. Options of the
    world: `genesis_rl.worlds.PropertyComparisonWorld`; the rest as in `SpriteEnv`.
    """

    World = PropertyComparisonWorld
