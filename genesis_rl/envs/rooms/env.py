"""Navigation in a room: find the object of a given colour or shape.

Rooms, objects and frames are those of `genesis_rl.worlds.rooms`, as in GQN.
"""

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from genesis_rl.envs.window import (
    RENDER_MODES,
    Frame,
    Observation,
    ObservationKind,
    WindowEnv,
    check_sizes,
)
from genesis_rl.worlds.rooms import (
    MAX_OBJECTS,
    STATE_COLUMNS,
    RoomRenderer,
    TextureSet,
    room_state,
)
from genesis_rl.worlds.rooms.navigation import (
    ACTIONS,
    Agent,
    Episode,
    Navigation,
    Target,
    is_success,
    remaining,
)

#: Columns of the ground-truth state: a row per object, and the agent in the last row.
ENV_STATE_COLUMNS = (*STATE_COLUMNS, "object", "agent", "target")  # of the last three 0 or 1

_BOUND = 4.0  # of the state in metres; the walls are at 3.5
_REWARDS = ("dense", "sparse")


class RoomsEnv(WindowEnv[np.int64]):
    """Search for the red object, the sphere, or the object of the odd colour in a room.

    Actions: Discrete(4): 0 = move forward by 0.25 m, 1 = move back by 0.25 m, 2 = turn left by 15
    degrees, 3 = turn right. Walls and objects stop the agent, a disc of radius 0.25 m.

    Observations: the frame of the agent's camera, Box(0, 255, (image_size, image_size, 3), uint8);
    with observation="state" the ground-truth state, Box(-4, 4, (N + 1, 18), float32), which needs
    no OpenGL: a row per object, zeros for absent ones, and the agent in the last row, with the
    columns `ENV_STATE_COLUMNS`.

    Rewards: 1 for success; with reward="dense" also the decrease of the distance to the target (m)
    and of its bearing (half turns) in this step. In an empty room 0.

    Success: the distance between the outlines of agent and target is at most 0.5 m, and the angle
    from the heading to the target at most 20 degrees.

    Termination: at success. Truncation: after 100 steps in environments made by `gym.make`.

    Info: `is_success` and `num_objects`; with `state_in_info` `true_state`, see observations; with
    `masks_in_info` `true_masks`, (image_size, image_size) uint8: 0 = background, i + 1 = row i of
    the state.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> env = gym.make("genesis_rl/Rooms-v0", target="odd")
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": RENDER_MODES,
        "render_fps": 10,
    }

    def __init__(
        self,
        *,
        target: Target = "red",
        num_objects: int | tuple[int, int] = MAX_OBJECTS,
        textures: TextureSet = "train",
        empty: bool = False,
        reward: Literal["dense", "sparse"] = "dense",
        image_size: int = 64,
        observation: ObservationKind = "image",
        state_in_info: bool = False,
        masks_in_info: bool = False,
        render_mode: str | None = None,
        render_size: int = 256,
    ) -> None:
        """Create the environment.

        Args:
            target: "red", the one red object; "sphere", the one sphere; or "odd", the one of
                another colour than the others, which have the same colour.
            num_objects: number of objects, 1 to 3, or a pair (smallest, largest), sampled for every
                episode; 3 for "odd".
            textures: set of textures of walls and floors, "train", "test" or "all".
            empty: without objects, to record the background of a scene model.
            reward: "dense" or "sparse".
            image_size: side of the frames in pixels, 8 to 1024.
            observation: "image", or "state" for the ground truth.
            state_in_info: add the ground-truth state as `info["true_state"]`.
            masks_in_info: add the instance masks as `info["true_masks"]`.
            render_mode: "rgb_array", "human" (needs an OpenCV with windows) or None.
            render_size: side of the rendered frame in pixels, 8 to 1024.

        Raises:
            ValueError: for an invalid value.
        """
        pair: Any = (num_objects, num_objects) if isinstance(num_objects, int) else num_objects
        self.task = Navigation(target, pair, textures, empty)
        if reward not in _REWARDS:
            raise ValueError(f"reward must be one of {', '.join(_REWARDS)}, got {reward!r}.")
        check_sizes(8, image_size=image_size, render_size=render_size)
        super().__init__(
            image_size=image_size,
            observation=observation,
            state_in_info=state_in_info,
            masks_in_info=masks_in_info,
            render_mode=render_mode,
            render_size=render_size,
        )
        self.reward = reward
        self._rows = 0 if empty else self.task.num_objects[1]
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        shape = (self._rows + 1, len(ENV_STATE_COLUMNS))
        self.observation_space = (
            gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
            if observation == "image"
            else gym.spaces.Box(-_BOUND, _BOUND, shape, np.float32)
        )
        self._episode: Episode | None = None
        self._agent = Agent(0, 0, 0)
        self._terminated = False

    @property
    def episode(self) -> Episode:
        """Room, target and start of the episode.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._episode is None:
            raise RuntimeError("call reset() first")
        return self._episode

    @property
    def agent(self) -> Agent:
        """The agent's pose."""
        return self._agent

    def _start(self) -> None:
        self._episode = self.task.sample(self.np_random)
        self._agent = self._episode.agent
        self._terminated = False

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move or turn.

        Args:
            action: 0 = forward, 1 = back, 2 = left, 3 = right.

        Returns:
            Observation, reward, terminated, truncated (always False) and info.

        Raises:
            ValueError: for any other action.
            RuntimeError: before the first reset, and after an episode's end.
        """
        episode, before = self.episode, self._agent
        if self._terminated:
            raise RuntimeError("the episode has ended: call reset()")
        if not self.action_space.contains(action):
            raise ValueError(f"action must be an integer in 0..3, got {action!r}.")
        self._agent = before.act(int(action), episode.room)
        self._terminated = self._is_success()
        reward = float(self._terminated)
        target = episode.target_object
        if self.reward == "dense" and target is not None:
            reward += remaining(before, target) - remaining(self._agent, target)
        observation, info = self._observe()
        return observation, reward, self._terminated, False, info

    def draw(self, size: int) -> Frame:
        """Render the current scene: (size, size, 3) uint8.

        Raises:
            RuntimeError: before the first reset.
        """
        return self._loaded(size).image(self._agent.camera)

    def draw_labelled(self, size: int) -> tuple[Frame, Frame]:
        """Render the current scene and its instance masks, see `draw`."""
        return self._loaded(size).render(self._agent.camera)

    def make_renderer(self, size: int) -> RoomRenderer:
        """Create a renderer of (size, size) frames."""
        return RoomRenderer(size)

    def _loaded(self, size: int) -> RoomRenderer:
        renderer: RoomRenderer = self.renderer(size)
        renderer.load(self.episode.room)
        return renderer

    def _is_success(self) -> bool:
        target = self.episode.target_object
        return target is not None and is_success(self._agent, target)

    def _info(self) -> dict[str, Any]:
        return {"is_success": self._is_success(), "num_objects": len(self.episode.room.objects)}

    def _state(self) -> npt.NDArray[np.float32]:
        objects, camera = self.episode.room.objects, self._agent.camera
        state = np.zeros((self._rows + 1, len(ENV_STATE_COLUMNS)), np.float32)
        state[:-1, : len(STATE_COLUMNS)] = room_state(objects, self._rows)
        state[-1, :5] = *camera[:3], np.cos(camera.yaw), np.sin(camera.yaw)
        state[: len(objects), -3] = state[-1, -2] = 1
        if self.episode.target is not None:
            state[self.episode.target, -1] = 1
        return state
