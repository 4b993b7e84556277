"""Multi-object Fetch: a robot reaches, pushes or picks one of several coloured objects.

The tasks and the scene follow SOLD (Mosbach et al., ICML 2025, arXiv:2410.08822).
"""

from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from genesis_rl.envs.window import RENDER_MODES, Frame, WindowEnv, check_sizes
from genesis_rl.worlds.tabletop import (
    ACTION_TIME,
    CAMERAS,
    MAX_DISTRACTORS,
    MIN_DISTRACTORS,
    RELATIONS,
    SKILLS,
    STATE_COLUMNS,
    FetchSimulation,
    Layout,
    Relation,
    Skill,
    TableRenderer,
    dense_reward,
    is_success,
    sample_layout,
)

_BOUND = 10.0  # of positions (m) and velocities (m/s); there is no floor beside the table


class FetchEnv(WindowEnv[npt.NDArray[np.float32]]):
    """Fetch robot that reaches, pushes or picks the red, the reddest or the odd object.

    Actions: Box(-1, 1, (4,), float32): displacement of the gripper in x, y and z, times 0.05 m,
    and the opening of the fingers, which only Pick uses. Values are clipped to the bounds. An
    action takes 0.04 s.

    Observations: Dict of "image", Box(0, 255, (image_size, image_size, 3), uint8), and
    "proprioception", Box(-10, 10, (10,), float32): gripper position (m), displacements of the
    right and left finger (m), gripper velocity (m/s) and finger velocities (m/s). With
    observation="image" the image; with "state" the ground-truth state, Box(-10, 10, (N, 14),
    float32), which needs no OpenGL: a row per object, a row for the goal in Push and Pick, and
    the gripper in the last row; the columns are `genesis_rl.worlds.tabletop.STATE_COLUMNS`. Rows of
    absent objects are 0.

    Rewards, summed over repeats of the action: "dense" is exp(-20 d(target, gripper)) in Reach,
    else 0.9 exp(-20 d(target, goal)) + 0.1 exp(-10 d(target, gripper)), with distances in metres;
    "sparse" is 0 for success, else -1. On an empty table 0.

    Success: the distance between target and gripper (Reach) or goal is below 0.05 m.

    Termination: never. Truncation: after 50 (Reach) or 100 steps in environments made by
    `gym.make`.

    Info: `is_success` and `num_objects`; with `state_in_info` `true_state`, see observations;
    with `masks_in_info` `true_masks`, (image_size, image_size) uint8: 0 = background with table,
    torso and base, i + 1 = row i of the state; the row of the gripper is the arm.

    Example:
        >>> import gymnasium as gym, genesis_rl
        >>> env = gym.make("genesis_rl/FetchReachOdd-v0", num_distractors=2)  # doctest: +SKIP
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": RENDER_MODES,
        "render_fps": round(1 / ACTION_TIME),
    }

    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("dict", "image", "state")

    def __init__(
        self,
        *,
        skill: Skill = "Reach",
        relation: Relation = "Red",
        num_distractors: int | tuple[int, int] = MAX_DISTRACTORS,
        reward: Literal["dense", "sparse"] = "dense",
        camera: str = "frontview",
        action_repeat: int = 1,
        empty_table: bool = False,
        image_size: int = 64,
        observation: Literal["dict", "image", "state"] = "dict",
        state_in_info: bool = False,
        masks_in_info: bool = False,
        render_mode: str | None = None,
        render_size: int = 256,
    ) -> None:
        """Create the environment.

        Args:
            skill: "Reach", "Push" or "Pick"; set by the id.
            relation: "Red", "Reddest", "Odd" or "OddGroups"; set by the id.
            num_distractors: number of objects besides the target, 0 to 4, or a pair (minimum,
                maximum), sampled for every episode; at least 2 for Odd, 4 for OddGroups.
            reward: "dense" or "sparse".
            camera: "frontview" or "topview".
            action_repeat: number of times that each action is executed.
            empty_table: without objects and goal, to record the background of a scene model.
            image_size: side of the frames in pixels, 16 to 1024.
            observation: "dict", "image", or "state" for the ground truth.
            state_in_info: add the ground-truth state as `info["true_state"]`.
            masks_in_info: add the instance masks as `info["true_masks"]`.
            render_mode: "rgb_array", "human" (needs an OpenCV with windows) or None.
            render_size: side of the rendered frame in pixels, 16 to 1024.

        Raises:
            ValueError: for an invalid value.
            ImportError: if gymnasium-robotics is not installed, or its robot cannot be loaded by
                the installed MuJoCo.
        """
        for name, value, choices in (
            ("skill", skill, SKILLS),
            ("relation", relation, RELATIONS),
            ("reward", reward, ("dense", "sparse")),
            ("camera", camera, tuple(CAMERAS)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
        self.distractor_range = _distractor_range(num_distractors, relation)
        if not isinstance(action_repeat, int) or not 1 <= action_repeat <= 100:
            raise ValueError(f"action_repeat must be an integer in 1..100, got {action_repeat!r}.")
        check_sizes(16, image_size=image_size, render_size=render_size)
        super().__init__(
            image_size=image_size,
            observation=observation,
            state_in_info=state_in_info,
            masks_in_info=masks_in_info,
            render_mode=render_mode,
            render_size=render_size,
        )
        self.skill, self.relation = skill, relation
        self.reward = reward
        self.camera = camera
        self.action_repeat = action_repeat
        self.empty_table = empty_table
        self._simulation = FetchSimulation(
            skill, 0 if empty_table else self.distractor_range[1] + 1
        )
        rows = self._simulation.objects + self._simulation.has_goal + 1
        image = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = {
            "dict": gym.spaces.Dict(
                {
                    "image": image,
                    "proprioception": gym.spaces.Box(-_BOUND, _BOUND, (10,), np.float32),
                }
            ),
            "image": image,
            "state": gym.spaces.Box(-_BOUND, _BOUND, (rows, len(STATE_COLUMNS)), np.float32),
        }[observation]
        self.action_space = gym.spaces.Box(-1, 1, (4,), np.float32)
        self._is_reset = False

    @property
    def simulation(self) -> FetchSimulation:
        """The simulation.

        Raises:
            RuntimeError: before the first reset.
        """
        if not self._is_reset:
            raise RuntimeError("call reset() first")
        return self._simulation

    def _start(self) -> None:
        layout = Layout()
        if not self.empty_table:
            least, most = self.distractor_range
            count = int(self.np_random.integers(least, most + 1))
            start = self._simulation.start
            layout = sample_layout(self.skill, self.relation, count, start, self.np_random)
        self._simulation.reset(layout)
        self._is_reset = True

    def step(self, action: npt.ArrayLike) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the gripper.

        Args:
            action: (4,), see the class.

        Returns:
            Observation, reward, terminated, truncated (both always False) and info.

        Raises:
            ValueError: for an action that is not four numbers.
            RuntimeError: before the first reset.
        """
        moves = np.asarray(action, float)
        if moves.shape != (4,) or not np.isfinite(moves).all():
            raise ValueError(f"action must be four finite numbers, got {action!r}.")
        moves = np.clip(moves, -1, 1)
        reward = 0.0
        for _ in range(self.action_repeat):
            self.simulation.step(moves)
            reward += self._reward()
        observation, info = self._observe()
        return observation, reward, False, False, info

    def draw(self, size: int) -> Frame:
        """Render the current scene: (size, size, 3) uint8.

        Raises:
            RuntimeError: before the first reset.
        """
        frame: Frame = self.renderer(size).image()
        return frame

    def draw_labelled(self, size: int) -> tuple[Frame, Frame]:
        """Render the current scene and its instance masks, see `draw`."""
        return self.draw(size), self.renderer(size).instances()

    def make_renderer(self, size: int) -> TableRenderer:
        """Create a renderer of (size, size) frames.

        Raises:
            RuntimeError: before the first reset.
        """
        return TableRenderer(self.simulation, size, camera=self.camera)

    def _poses(self) -> tuple[Any, Any, Any] | None:
        """Return positions of target, gripper and goal; None on an empty table."""
        simulation = self.simulation
        target, goal = simulation.layout.target, simulation.layout.goal
        if target is None:
            return None
        return simulation.positions[target], simulation.gripper, goal

    def _is_success(self) -> bool:
        poses = self._poses()
        return poses is not None and is_success(*poses)

    def _reward(self) -> float:
        poses = self._poses()
        if poses is None:
            return 0.0
        return dense_reward(*poses) if self.reward == "dense" else is_success(*poses) - 1.0

    def _info(self) -> dict[str, Any]:
        objects = len(self.simulation.layout.positions)
        return {"is_success": self._is_success(), "num_objects": objects}

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        observation, info = super()._observe()
        if self.observation != "dict":
            return observation, info
        senses = np.clip(self.simulation.proprioception, -_BOUND, _BOUND).astype(np.float32)
        return {"image": observation, "proprioception": senses}, info

    def _state(self) -> npt.NDArray[np.float32]:
        return np.clip(self.simulation.state, -_BOUND, _BOUND)


def _distractor_range(value: Any, relation: Relation) -> tuple[int, int]:
    """Return minimum and maximum number of distractors.

    Raises:
        ValueError: unless these are integers in the range of the relation.
    """
    least = MIN_DISTRACTORS[relation]
    pair = (value, value) if isinstance(value, int) else value
    if (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(count, int) for count in pair)
        and least <= pair[0] <= pair[1] <= MAX_DISTRACTORS
    ):
        return pair[0], pair[1]
    reason = f"; {relation} needs {least} to define the odd colour" if least else ""
    raise ValueError(
        f"num_distractors must be in {least}..{MAX_DISTRACTORS} for {relation}, or a pair"
        f" (minimum, maximum), got {value!r}{reason}."
    )
