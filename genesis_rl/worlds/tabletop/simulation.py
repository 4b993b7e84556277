"""Simulation of the Fetch robot at a table with cubes, or among floating spheres."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.offscreen import load_mujoco
from genesis_rl.worlds.tabletop.rules import CUBE, PALETTE, SPHERE, Layout, Skill

_PACKAGE = "gymnasium_robotics"
_ADVICE = "Install it by the extra fetch: pip install 'genesis_rl[fetch]'"
#: Euler angles (rad), position (m) of the cameras; their field of view is 60 degrees.
CAMERAS = {
    "frontview": ("0 1.0 1.571", "1.9 0.75 0.8"),
    "topview": ("0 0 1.571", "1.3 0.75 1.25"),
}
#: Columns of the ground-truth state; a row per object, the goal (Push, Pick), and the gripper.
STATE_COLUMNS = (
    *("x", "y", "z"),  # centre in metres
    *("qw", "qx", "qy", "qz"),  # rotation as a quaternion
    *("red", "green", "blue"),  # 0 to 1; 0 for the gripper
    *("object", "goal", "gripper"),  # one of them is 1
    "target",  # 1 for the target
)
#: Length of an action in seconds.
ACTION_TIME = 0.04
#: Displacement of the gripper by an action of 1, in metres.
STRIDE = 0.05
_SUBSTEPS = 20
_DOWN = np.array([1.0, 0.0, 1.0, 0.0]) / 2**0.5  # orientation of the gripper
_BASE = {"robot0:slide0": 0.405, "robot0:slide1": 0.48, "robot0:slide2": 0.0}
_TO_START = np.array([-0.498, 0.005, -0.231])  # from the gripper of the straight arm
_PARKED = -5.0  # height of objects that are not in the scene
_FINGERS = ("robot0:r_gripper_finger_joint", "robot0:l_gripper_finger_joint")


def find_assets() -> Path:
    """Return the folder ``assets`` of gymnasium-robotics, which is not imported.

    Its own environments do not work with MuJoCo 3.12 and later; its MJCF files and meshes do.

    Raises:
        ImportError: if gymnasium-robotics is not installed, or contains no Fetch robot.
    """
    spec = find_spec(_PACKAGE)  # a top-level name: nothing is imported
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "envs" / "assets"
        if (folder / "fetch" / "robot.xml").is_file():
            return folder
    found = "it is not installed" if spec is None else f"{spec.origin} contains no Fetch robot"
    raise ImportError(
        f"gymnasium-robotics must be installed for the robot's meshes, got: {found}. {_ADVICE}."
    )


@cache
def robot_files() -> dict[str, bytes]:
    """Return the robot's MJCF files and meshes by name: ``robot.xml``, ``shared.xml``, STL files.

    In ``shared.xml`` the texture of Fetch's own block is removed, and the gripper is welded to the
    mocap body at the same pose.

    Raises:
        ImportError: if gymnasium-robotics is not installed, or some of its files are missing.
    """
    folder = find_assets()
    try:
        shared = ElementTree.parse(folder / "fetch" / "shared.xml").getroot()
        files = {path.name: path.read_bytes() for path in (folder / "stls/fetch").glob("*.stl")}
        files["robot.xml"] = (folder / "fetch" / "robot.xml").read_bytes()
    except (OSError, ElementTree.ParseError) as error:
        raise ImportError(
            f"{folder} must contain the Fetch robot, got: {error}. {_ADVICE}."
        ) from None
    for asset in shared.iter("asset"):
        for texture in asset.findall("texture[@file]"):
            asset.remove(texture)
    for weld in shared.iter("weld"):
        weld.set("relpose", "0 0 0 1 0 0 0")
    files["shared.xml"] = ElementTree.tostring(shared)
    return files


def scene_xml(skill: Skill, objects: int) -> str:
    """Return the MJCF of the scene; it includes ``shared.xml`` and ``robot.xml``.

    Args:
        skill: "Reach" has spheres without contact, the others have cubes and a goal.
        objects: number of spheres or cubes; 0: an empty table, without goal.
    """
    ball = f'type="sphere" size="{SPHERE}" contype="0" conaffinity="0"'
    if skill == "Reach":
        bodies = [
            f'<body name="object{i}" mocap="true" pos="{i} 0 {_PARKED}">'
            f'<geom name="object{i}" {ball}/></body>'
            for i in range(objects)
        ]
    else:
        bodies = [
            f'<body name="object{i}" pos="{i} 0 {_PARKED}" gravcomp="1">'
            f'<joint name="object{i}" type="free" damping="0.01"/>'
            f'<geom name="object{i}" type="box" size="{CUBE} {CUBE} {CUBE}" mass="2"'
            ' material="block_mat" rgba="0 0 0 1"/></body>'
            for i in range(objects)
        ]
        if objects:
            bodies.append(
                f'<body name="goal" mocap="true" pos="0 1 {_PARKED}">'
                f'<geom name="goal" {ball} rgba="1 0 0 1"/></body>'
            )
    cameras = [
        f'<camera name="{name}" euler="{euler}" pos="{position}" fovy="60"/>'
        for name, (euler, position) in CAMERAS.items()
    ]
    fingers = [
        f'<position joint="{name}" ctrllimited="true" ctrlrange="0 0.2" kp="30000"/>'
        for name in _FINGERS[::-1]
    ]
    return f"""<mujoco>
  <compiler angle="radian"/>
  <option timestep="{ACTION_TIME / _SUBSTEPS}"/>
  <statistic center="1.3 0.75 0.5" extent="1"/>
  <include file="shared.xml"/>
  <worldbody>
    <include file="robot.xml"/>
    <geom name="table" type="box" size="0.25 0.35 0.2" pos="1.3 0.75 0.2" material="table_mat"
      rgba="1 1 1 1"/>
    <light directional="true" ambient="0.2 0.2 0.2" diffuse="0.8 0.8 0.8"
      specular="0.3 0.3 0.3" castshadow="false" pos="0 0 4" dir="0 0 -1"/>
    {"".join(bodies + cameras)}
  </worldbody>
  <actuator>{"".join(fingers)}</actuator>
</mujoco>"""


class FetchSimulation:
    """Fetch robot whose gripper follows a mocap body, at a table with objects.

    Attributes:
        model: the `mujoco.MjModel`; geoms of objects are named ``object0`` and so on.
        data: the `mujoco.MjData`.
        objects: maximum number of objects.
        has_goal: whether there is a goal.
        start: the gripper's initial position (3,).
        layout: the objects of the episode.
    """

    def __init__(self, skill: Skill, objects: int) -> None:
        """Compile the scene and move the gripper to its start.

        Args:
            skill: "Reach" and "Push" block the fingers; objects as in `scene_xml`.
            objects: maximum number of objects; 0: an empty table.

        Raises:
            ImportError: if gymnasium-robotics is not installed, or its robot cannot be loaded by
                the installed MuJoCo.
        """
        mujoco = self._mujoco = load_mujoco()
        files = robot_files()
        try:
            self.model: Any = mujoco.MjModel.from_xml_string(scene_xml(skill, objects), files)
            self.data: Any = mujoco.MjData(self.model)
            self._grip = self.model.site("robot0:grip").id
            self._hand = self.model.body("robot0:gripper_link").id
            self._fingers = [self.model.joint(name).id for name in _FINGERS]
            self._mocap = int(self.model.body("robot0:mocap").mocapid[0])
            base = {self.model.joint(name).id: value for name, value in _BASE.items()}
        except (ValueError, KeyError) as error:
            raise ImportError(
                "gymnasium-robotics must contain a Fetch robot that MuJoCo loads, got MuJoCo"
                f" {mujoco.__version__}: {' '.join(str(error).split())} Tested: gymnasium-robotics"
                " 1.4.2 with MuJoCo 3.11 and 4.0."
            ) from error
        self.objects = objects
        self.has_goal = objects > 0 and skill != "Reach"
        self._blocked = skill != "Pick"
        self._finger_qpos = self.model.jnt_qposadr[self._fingers]
        self._finger_dofs = self.model.jnt_dofadr[self._fingers]
        self._bodies = [self.model.body(f"object{i}").id for i in range(objects)]
        self._geoms = [self.model.geom(f"object{i}").id for i in range(objects)]
        self.layout = Layout()
        model, data = self.model, self.data
        model.geom_rgba[model.geom_bodyid == model.body("robot0:mocap").id, 3] = 0
        for joint, value in base.items():
            data.qpos[model.jnt_qposadr[joint]] = value
        mujoco.mj_forward(model, data)
        data.mocap_pos[self._mocap] = data.site_xpos[self._grip] + _TO_START
        data.mocap_quat[self._mocap] = _DOWN
        mujoco.mj_step(model, data, 10 * _SUBSTEPS)
        mujoco.mj_forward(model, data)
        self.start: npt.NDArray[np.float64] = data.site_xpos[self._grip].copy()
        self._initial = data.qpos.copy()
        self._initial_mocap = data.mocap_pos.copy()

    def reset(self, layout: Layout) -> None:
        """Move the robot to its start, and place the objects.

        Args:
            layout: at most as many objects as the scene has; the others are hidden.
        """
        model, data = self.model, self.data
        self.layout = layout
        self._mujoco.mj_resetData(model, data)
        data.qpos[:] = self._initial
        data.mocap_pos[:] = self._initial_mocap
        data.mocap_quat[self._mocap] = _DOWN
        count = len(layout.positions)
        for i, (body, geom) in enumerate(zip(self._bodies, self._geoms, strict=True)):
            model.geom_rgba[geom, 3] = i < count
            model.body_gravcomp[body] = i >= count
            if i < count:
                model.geom_rgba[geom, :3] = np.array(PALETTE[layout.colours[i]]) / 255
                self._place(body, layout.positions[i])
        if layout.goal is not None:
            self._place(model.body("goal").id, layout.goal)
        self._mujoco.mj_forward(model, data)

    def _place(self, body: int, position: npt.NDArray[np.float64]) -> None:
        """Set the position of a free or mocap body."""
        mocap = self.model.body_mocapid[body]
        if mocap >= 0:
            self.data.mocap_pos[mocap] = position
        else:
            address = self.model.jnt_qposadr[self.model.body_jntadr[body]]
            self.data.qpos[address : address + 3] = position

    def step(self, action: npt.NDArray[np.float64]) -> None:
        """Simulate an action for `ACTION_TIME`.

        Args:
            action: (4,) in [-1, 1]: gripper displacement in x, y, z, and finger opening.
        """
        model, data = self.model, self.data
        data.mocap_pos[self._mocap] = data.xpos[self._hand] + STRIDE * action[:3]
        data.mocap_quat[self._mocap] = _DOWN
        opening = 0.0 if self._blocked else action[3]
        data.ctrl[:] = data.qpos[self._finger_qpos[::-1]] + opening
        self._mujoco.mj_step(model, data, _SUBSTEPS)
        if self._blocked:
            data.qpos[self._finger_qpos] = 0
        self._mujoco.mj_forward(model, data)

    @property
    def gripper(self) -> npt.NDArray[np.float64]:
        """Position between the fingertips (3,)."""
        return np.array(self.data.site_xpos[self._grip])

    @property
    def hand_quaternion(self) -> npt.NDArray[np.float64]:
        """Orientation of the gripper, (w, x, y, z)."""
        return np.array(self.data.xquat[self._hand])

    @property
    def fingers(self) -> npt.NDArray[np.float64]:
        """Displacements of the right and the left finger (2,), 0 to 0.05 m."""
        return np.array(self.data.qpos[self._finger_qpos])

    @property
    def proprioception(self) -> npt.NDArray[np.float64]:
        """Gripper position (3), fingers (2), gripper velocity (3), finger velocities (2): (10,)."""
        velocity = np.empty(6)  # rotational, translational
        self._mujoco.mj_objectVelocity(
            self.model, self.data, self._mujoco.mjtObj.mjOBJ_SITE, self._grip, velocity, 0
        )
        return np.concatenate(
            [self.gripper, self.fingers, velocity[3:], self.data.qvel[self._finger_dofs]]
        )

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """Centres of the objects in the scene (N, 3)."""
        return np.array(self.data.xpos[self._bodies[: len(self.layout.positions)]])

    @property
    def quaternions(self) -> npt.NDArray[np.float64]:
        """Orientations of the objects in the scene (N, 4), (w, x, y, z)."""
        return np.array(self.data.xquat[self._bodies[: len(self.layout.positions)]])

    @property
    def state(self) -> npt.NDArray[np.float32]:
        """Ground-truth state (N, 14), see `STATE_COLUMNS`; rows of absent objects are 0."""
        layout, count = self.layout, len(self.layout.positions)
        state = np.zeros((self.objects + self.has_goal + 1, len(STATE_COLUMNS)), np.float32)
        state[:count, 0:3], state[:count, 3:7] = self.positions, self.quaternions
        state[:count, 7:10] = np.reshape([PALETTE[i] for i in layout.colours], (-1, 3)) / 255
        state[:count, 10] = 1
        if layout.target is not None:
            state[layout.target, 13] = 1
        if layout.goal is not None:
            state[-2] = [*layout.goal, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
        state[-1, 0:3], state[-1, 3:7] = self.gripper, self.hand_quaternion
        state[-1, 12] = 1
        # Of the two quaternions of a rotation, the one with w >= 0.
        state[:, 3:7] *= np.where(state[:, 3:4] >= 0, 1, -1)
        return state
