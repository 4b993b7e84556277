"""Stacking of blocks in simulation."""

from dataclasses import replace
from math import cos, radians, sin, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.towers.gl import load_mujoco
from genesis_rl.worlds.towers.rules import Shape
from genesis_rl.worlds.towers.simulation import physics_model

Array = npt.NDArray[np.float64]

_GAP = 0.001  # metres between a new block and the tower
_FALLEN = 0.2  # metres of descent of a fallen block: less than half of any block
_REST = 0.02  # metres or radians per second; below, blocks are at rest
_LEAST_STEPS = 100  # steps before rest is checked: a toppling block starts slowly


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
