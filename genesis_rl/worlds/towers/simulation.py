"""Simulated stability of towers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import cos, radians, sin, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.offscreen import load_mujoco
from genesis_rl.worlds.towers.rules import Shape, Tower
from genesis_rl.worlds.towers.world import TEXTURE_NUMBERS, env_xml, world_xml

TIME_STEP = 0.003  # seconds
BURN_IN = 50  # initial steps without check, until the contacts have settled
SPEED_LIMIT = 0.2  # of any component of the top shape's velocity, in metres per second
STEPS = 1680  # five seconds at the recordings' eight frames per second
_PLAIN = (
    "<assets><asset>"
    + "".join(
        f'<material name="mat_{place}_{number:03d}"/>'
        for place in ("floor", "wall")
        for number in TEXTURE_NUMBERS
    )
    + "</asset></assets>"
)
Array = npt.NDArray[np.float64]
_GAP = 0.001  # metres between a new block and the tower
_FALLEN = 0.2  # metres of descent of a fallen block: less than half of any block
_REST = 0.02  # metres or radians per second; below, blocks are at rest
_LEAST_STEPS = 100  # steps before rest is checked: a toppling block starts slowly


class SimulationResult(NamedTuple):
    """Result of a simulation."""

    collapsed: bool
    step: int
    """first step at which the top shape exceeded the speed limit, or the number of steps"""
    top_speed: float
    """largest component of the top shape's velocity after the burn-in, in metres per second"""


def simulate(tower: Tower, *, steps: int = STEPS) -> SimulationResult:
    """Simulate a tower until it collapses.

    As in the original, a tower has collapsed if, after a burn-in of 50 steps, any component of the
    top shape's velocity exceeds 0.2 m/s. The simulation is deterministic.

    Args:
        tower: the tower, at rest.
        steps: number of steps of 3 ms; 1680 as in the original.

    Raises:
        ValueError: if there are no steps after the burn-in.
    """
    if steps <= BURN_IN:
        raise ValueError(f"steps must be more than the burn-in of {BURN_IN}, got {steps!r}.")
    mujoco = load_mujoco()
    model = physics_model(tower)
    data: Any = mujoco.MjData(model)
    mujoco.mj_step(model, data, BURN_IN)
    fastest = 0.0
    for step in range(BURN_IN, steps):
        mujoco.mj_step(model, data)
        speed = float(np.abs(data.sensordata).max())
        fastest = max(fastest, speed)
        if speed > SPEED_LIMIT:
            return SimulationResult(collapsed=True, step=step, top_speed=fastest)
    return SimulationResult(collapsed=False, step=steps, top_speed=fastest)


class Agreement(NamedTuple):
    """Number of towers whose stability is the same by simulation and by construction, of all."""

    agreeing: int
    towers: int


def count_agreement(towers: Iterable[Tower], *, steps: int = STEPS) -> dict[str, Agreement]:
    """Count towers whose stability is the same by simulation and by construction.

    Args:
        towers: the towers.
        steps: see `simulate`.

    Returns:
        The counts by `Tower.violation`: "none", "vcom cuboid", "vpsf sphere" and so on.
    """
    counts: defaultdict[str, list[bool]] = defaultdict(list)
    for tower in towers:
        collapsed = simulate(tower, steps=steps).collapsed
        counts[tower.violation].append(collapsed != tower.stable)
    return {kind: Agreement(sum(same), len(same)) for kind, same in sorted(counts.items())}


def physics_model(tower: Tower | Sequence[Shape]) -> Any:
    """Compile a scene without textures into a `mujoco.MjModel`.

    The original sets its contact parameters by an override. In MuJoCo 1.50 this did not affect the
    shapes' friction; now it does. The parameters are therefore set on the shapes.
    """
    mujoco = load_mujoco()
    files = {"assets.xml": _PLAIN.encode(), "world_tower.xml": world_xml(tower).encode()}
    model: Any = mujoco.MjModel.from_xml_string(env_xml("tower"), files)
    model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_OVERRIDE)
    model.geom_solref[:] = model.opt.o_solref
    model.geom_solimp[:] = model.opt.o_solimp
    model.geom_margin[:] = model.opt.o_margin
    return model


class Pose(NamedTuple):
    """Position and rotation of a block."""

    position: Array
    """centre (3,)"""
    quaternion: Array
    """rotation (4,): w, x, y, z"""

    @classmethod
    def of(cls, shape: Shape) -> "Pose":
        """Return the pose of a shape."""
        half = radians(shape.yaw) / 2
        quaternion = np.array([cos(half), 0.0, 0.0, sin(half)])
        if shape.lying:  # first rotated by 90 degrees about x
            quaternion = np.array([cos(half), cos(half), sin(half), sin(half)]) * sqrt(0.5)
        return cls(np.array(shape.position), quaternion)

    @property
    def rotation(self) -> Array:
        """Rotation matrix (3, 3)."""
        w, x, y, z = self.quaternion
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )


class Pile:
    """A simulated pile of blocks."""

    def __init__(self, base: Shape) -> None:
        """Place the first block on the ground, at its x and y."""
        x, y, _ = base.position
        self.shapes: list[Shape] = [replace(base, position=(x, y, base.half_height))]
        """blocks in their initial poses, from the bottom to the top"""
        self.poses: list[Pose] = [Pose.of(self.shapes[0])]
        """present poses"""
        self._velocities: list[Array] = [np.zeros(6)]

    @property
    def top(self) -> float:
        """Height of the highest point in metres."""
        return max(
            float(pose.position[2]) + _half_height(shape, pose.rotation)
            for shape, pose in zip(self.shapes, self.poses, strict=True)
        )

    @property
    def stands(self) -> bool:
        """Whether no block has fallen from its initial position."""
        return all(
            shape.position[2] - float(pose.position[2]) < _FALLEN
            for shape, pose in zip(self.shapes, self.poses, strict=True)
        )

    def put(self, shape: Shape) -> None:
        """Place a block on top, at its x and y and with its yaw."""
        x, y, _ = shape.position
        placed = replace(shape, position=(x, y, self.top + shape.half_height + _GAP))
        self.shapes.append(placed)
        self.poses.append(Pose.of(placed))
        self._velocities.append(np.zeros(6))

    def settle(self, steps: int) -> bool:
        """Simulate until the blocks are at rest or one has fallen.

        Args:
            steps: largest number of steps of 3 ms.

        Returns:
            Whether the pile stands.
        """
        mujoco = load_mujoco()
        model = physics_model(self.shapes)
        data: Any = mujoco.MjData(model)
        names = [f"shape_{number}" for number in range(1, len(self.shapes) + 1)]
        bodies = [int(model.geom(name).bodyid[0]) for name in names]
        joints = [int(model.body_jntadr[body]) for body in bodies]
        places = [int(model.jnt_qposadr[joint]) for joint in joints]
        speeds = [int(model.jnt_dofadr[joint]) for joint in joints]
        for pose, velocity, start, speed in zip(
            self.poses, self._velocities, places, speeds, strict=True
        ):
            data.qpos[start : start + 7] = [*pose.position, *pose.quaternion]
            data.qvel[speed : speed + 6] = velocity
        heights = np.array(places) + 2
        lowest = np.array([shape.position[2] - _FALLEN for shape in self.shapes])
        for step in range(steps):
            mujoco.mj_step(model, data)
            if (data.qpos[heights] <= lowest).any():
                break
            if step >= _LEAST_STEPS and np.abs(data.qvel).max() < _REST:
                break
        self._velocities = [np.array(data.qvel[speed : speed + 6]) for speed in speeds]
        self.poses = [
            Pose(np.array(data.qpos[start : start + 3]), np.array(data.qpos[start + 3 : start + 7]))
            for start in places
        ]
        return self.stands


def _half_height(shape: Shape, rotation: Array) -> float:
    """Return half of a shape's vertical extent in any pose."""
    up = np.abs(rotation[2])
    if shape.kind == "sphere":
        return shape.size[0]
    if shape.kind == "cuboid":
        return float(up @ shape.size)
    radius, half_height = shape.size
    return float(up[2] * half_height + radius * np.sqrt(max(0.0, 1 - up[2] ** 2)))
