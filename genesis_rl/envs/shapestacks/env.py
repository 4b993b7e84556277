"""Block stacking environment with physics, rendered as ShapeStacks.

Blocks, room, lights and cameras follow ShapeStacks (Groth et al., ECCV 2018).
"""

from dataclasses import replace
from typing import Any

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
from genesis_rl.worlds.towers import (
    CAMERAS,
    FAMILIES,
    HEIGHTS,
    KINDS,
    Pile,
    Pose,
    RoomAppearance,
    Shape,
    TowerRenderer,
    sample_appearance,
    sample_shape,
    shuffled_colours,
)

#: Columns of the ground-truth state; a row per block, zeros for blocks not in the scene yet.
STATE_COLUMNS = (
    *("x", "y", "z"),  # centre in metres
    *("qw", "qx", "qy", "qz"),  # rotation as a quaternion
    *("size_x", "size_y", "size_z"),  # half sizes in metres, in the block's own axes
    *KINDS,  # one of them is 1
    *("red", "green", "blue"),  # 0 to 1
    "next",  # 1 for the next block, above the tower
)

_ROOM = 10.0  # half width of the room in metres; positions are clipped to it
_CLEARANCE = 0.4  # metres between the tower and the next block
_TIME_STEP = 0.003


class ShapeStacksEnv(WindowEnv[npt.NDArray[np.float32]]):
    """Stacking of blocks, one per step, on a tower that starts as a single block.

    The next block is shown above the tower, displaced from its axis by up to `hover_offset` in x
    and y. The action moves and releases it. Blocks that carry others are cuboids or upright
    cylinders; in the family "ccs" the top block is of any kind.

    Actions: Box(-1, 1, (3,), float32): displacement of the block in x and y, times `reach`, and
    its rotation about the vertical axis in half turns. Values are clipped to the bounds.

    Observations: the frame of one of 16 cameras, Box(0, 255, (image_size, image_size, 3), uint8);
    with observation="state" the ground-truth state, Box(-10, 10, (height, 17), float32), which
    needs no OpenGL: a row per block, from bottom to top, with the columns `STATE_COLUMNS`.

    Rewards: 1 / (height - 1) for every block after which the tower is stable, 1 in total; with
    `sparse_reward` 1 for the complete tower and 0 before. A tower is stable if no block sinks by
    0.2 m within `settle_time`.

    Termination: when all blocks are placed, or the tower has collapsed.

    Info: `is_success` (all blocks are placed and stable) and `blocks_standing` (including the
    first; 0 after a collapse); with `state_in_info` `true_state`, see observations; with
    `masks_in_info` `true_masks`, (image_size, image_size) uint8: 0 = background, i + 1 = row i of
    the state.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> env = gym.make("genesis_rl/ShapeStacks-v0", height=3, camera=13)
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": RENDER_MODES,
        "render_fps": 2,
    }

    def __init__(
        self,
        *,
        height: int = 4,
        family: str = "ccs",
        camera: int = 13,
        hover_offset: float = 0.5,
        reach: float = 1.0,
        appearance: tuple[int, int, int] | None = None,
        settle_time: float = 1.5,
        sparse_reward: bool = False,
        image_size: int = 64,
        observation: ObservationKind = "image",
        state_in_info: bool = False,
        masks_in_info: bool = False,
        textures: str | None = None,
        render_mode: str | None = None,
        render_size: int = 256,
    ) -> None:
        """Create the environment.

        Args:
            height: blocks of a complete tower, 2 to 6, including the first one.
            family: "blocks" (cuboids) or "ccs" (cuboids, cylinders, spheres).
            camera: 1 to 16; 13 to 16 have a pitch of 45 degrees, the others of 15.
            hover_offset: maximum displacement of the next block from the tower's axis in x and y,
                in metres; with 0, the action is its position on the tower.
            reach: displacement of the block by an action of 1, in metres.
            appearance: indices of the wall's and the floor's texture (0..5) and of the light that
                casts shadows (0..4); None: sampled for every episode.
            settle_time: maximum simulated time after each block, in seconds.
            sparse_reward: whether only a complete tower is rewarded.
            image_size: side of the frames in pixels.
            observation: "image", or "state" for the ground truth.
            state_in_info: add the ground-truth state as `info["true_state"]`.
            masks_in_info: add the instance masks as `info["true_masks"]`.
            textures: folder of custom textures, see `genesis_rl.worlds.towers.texture_files`.
            render_mode: "rgb_array", "human" (needs an OpenCV with windows) or None.
            render_size: side of the rendered frame in pixels.

        Raises:
            ValueError: for an invalid value.
        """
        if height not in HEIGHTS:
            raise ValueError(f"height must be in 2..6, got {height!r}.")
        if family not in FAMILIES:
            raise ValueError(f"family must be one of {FAMILIES}, got {family!r}.")
        if camera not in range(1, len(CAMERAS) + 1):
            raise ValueError(f"camera must be in 1..{len(CAMERAS)}, got {camera!r}.")
        if not 0 <= hover_offset <= 2:
            raise ValueError(f"hover_offset must be in 0..2 metres, got {hover_offset!r}.")
        if not 0 < reach <= 2:
            raise ValueError(f"reach must be in (0, 2] metres, got {reach!r}.")
        if not 0.3 <= settle_time <= 60:
            raise ValueError(f"settle_time must be in 0.3..60 seconds, got {settle_time!r}.")
        if appearance is not None and len(appearance) != 3:
            raise ValueError(
                f"appearance must be three indices (wall, floor, light), got {appearance!r}."
            )
        check_sizes(8, image_size=image_size, render_size=render_size)
        super().__init__(
            image_size=image_size,
            observation=observation,
            state_in_info=state_in_info,
            masks_in_info=masks_in_info,
            render_mode=render_mode,
            render_size=render_size,
        )
        self.height = height
        self.family = family
        self.hover_offset = hover_offset
        self.appearance = None if appearance is None else RoomAppearance(*appearance)
        self.camera = camera
        self.reach = reach
        self.settle_steps = round(settle_time / _TIME_STEP)
        self.sparse_reward = sparse_reward
        self.textures = textures
        self.action_space = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = (
            gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
            if observation == "image"
            else gym.spaces.Box(-_ROOM, _ROOM, (height, len(STATE_COLUMNS)), np.float32)
        )
        self._pile: Pile | None = None
        self._waiting: list[Shape] = []  # the first is the next block
        self._success = False
        self._appearance = RoomAppearance()

    @property
    def pile(self) -> Pile:
        """The placed blocks.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._pile is None:
            raise RuntimeError("call reset() first")
        return self._pile

    def _start(self) -> None:
        blocks = [
            replace(
                sample_shape(self.np_random, self.family, top=number == self.height), colour=colour
            )
            for number, colour in enumerate(shuffled_colours(self.np_random)[: self.height], 1)
        ]
        x, y = self.np_random.uniform(-1, 1, 2)
        self._appearance = self.appearance or sample_appearance(self.np_random)
        self._pile = Pile(replace(blocks[0], position=(float(x), float(y), 0.0)))
        self._waiting = blocks[1:]
        self._success = False
        self._place_next()

    def step(self, action: npt.ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move, rotate and release the next block.

        Args:
            action: (3,), displacement in x and y and rotation, see the class.

        Returns:
            Observation, reward, terminated, truncated (always False) and info.

        Raises:
            ValueError: for an action that is not three numbers.
            RuntimeError: before the first reset, and after an episode's end.
        """
        pile = self.pile
        if not self._waiting:
            raise RuntimeError("the episode has ended: call reset()")
        moves = np.asarray(action, float)
        if moves.shape != (3,) or not np.isfinite(moves).all():
            raise ValueError(f"action must be three finite numbers, got {action!r}.")
        dx, dy, turns = np.clip(moves, -1, 1)
        block = self._waiting.pop(0)
        x, y, z = block.position
        position = (x + float(dx) * self.reach, y + float(dy) * self.reach, z)
        pile.put(replace(block, position=position, yaw=block.yaw + 180 * float(turns)))
        stable = pile.settle(self.settle_steps)
        self._success = stable and not self._waiting
        if not stable:
            self._waiting = []
        self._place_next()
        if self.sparse_reward:
            reward = float(self._success)
        else:
            reward = stable / (self.height - 1)
        observation, info = self._observe()
        return observation, reward, not self._waiting, False, info

    def draw(self, size: int) -> Frame:
        """Render the current scene: (size, size, 3) uint8."""
        return self.draw_labelled(size)[0]

    def make_renderer(self, size: int) -> TowerRenderer:
        """Create a renderer of (size, size) frames."""
        return TowerRenderer(size, textures=self.textures)

    def _place_next(self) -> None:
        """Place the next block above the tower."""
        if not self._waiting:
            return
        block = self._waiting[0]
        x, y = self.pile.poses[-1].position[:2] + self.np_random.uniform(
            -self.hover_offset, self.hover_offset, 2
        )
        z = self.pile.top + _CLEARANCE + block.half_height
        self._waiting[0] = replace(block, position=(float(x), float(y), z))

    def _visible(self) -> list[tuple[Shape, Pose]]:
        """Return the blocks in the frame, from bottom to top; the next block is last."""
        placed = list(zip(self.pile.shapes, self.pile.poses, strict=True))
        return placed + [(block, Pose.of(block)) for block in self._waiting[:1]]

    def _info(self) -> dict[str, Any]:
        standing = len(self.pile.shapes) if self.pile.stands else 0
        return {"is_success": self._success, "blocks_standing": standing}

    def draw_labelled(self, size: int) -> tuple[Frame, Frame]:
        """Render the current scene and its instance masks, see `draw`."""
        renderer: TowerRenderer = self.renderer(size)
        visible = self._visible()
        renderer.load([shape for shape, _ in visible], self._appearance)
        for number, (_, pose) in enumerate(visible, start=1):
            renderer.move(number, pose.position, pose.rotation)
        return renderer.render(self.camera)

    def _state(self) -> npt.NDArray[np.float32]:
        state = np.zeros((self.height, len(STATE_COLUMNS)), np.float32)
        for row, (shape, pose) in zip(state, self._visible(), strict=False):
            row[0:3] = np.clip(pose.position, -_ROOM, _ROOM)
            # Of the two quaternions of a rotation, the one with w >= 0.
            row[3:7] = pose.quaternion * (1 if pose.quaternion[0] >= 0 else -1)
            row[7:10] = shape.half_sizes
            row[10 + KINDS.index(shape.kind)] = 1
            row[13:16] = np.array(shape.colour) / 255
        if self._waiting:
            state[len(self.pile.shapes), 16] = 1
        return state
