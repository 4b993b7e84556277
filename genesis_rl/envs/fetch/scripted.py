"""Scripted policy for multi-object Fetch: an upper bound, from the ground-truth positions."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from genesis_rl.envs.fetch.env import FetchEnv
from genesis_rl.worlds.tabletop import CUBE, STRIDE, TABLE_TOP, FetchSimulation

_ABOVE = TABLE_TOP + 2 * CUBE + 0.06  # height of the gripper over the cubes
_PUSH_HEIGHT = TABLE_TOP + CUBE + 0.005
_GAP = 0.03  # between the gripper and the pushed face, before
_PUSH = 0.03  # metres per action while a cube is pushed
_NEAR = 0.025  # distance at which the cube is at its goal
_GRASP = 0.01  # height of the gripper above the cube's centre
_PATIENCE = 25  # actions per motion
_OPEN, _CLOSED = 1.0, -1.0

Vector = npt.NDArray[np.float64]


def fetch_policy(
    env: gym.Env[Any, Any], rng: np.random.Generator
) -> Iterator[npt.NDArray[np.float32]]:
    """Reach, push or pick the target of the current episode.

    Push moves the cube along x and y, one after the other, by its faces. Use the policy with
    `genesis_rl.envs.relational.scripted.run_episodes`.

    Args:
        env: one of the tasks, with objects; it has been reset.
        rng: not used.

    Yields:
        Actions (4,) float32.

    Raises:
        TypeError: for another environment.
        ValueError: for an empty table.
    """
    task = env.unwrapped
    if not isinstance(task, FetchEnv):
        raise TypeError(f"env must be a task of multi-object Fetch, got {task}.")
    simulation = task.simulation
    if simulation.layout.target is None:
        raise ValueError("env must have objects, got empty_table=True.")
    target, goal = simulation.layout.target, simulation.layout.goal
    if goal is None:
        actions = _reach(simulation, target)
    else:
        actions = (_push if task.skill == "Push" else _pick)(simulation, target, goal)
    for action in actions:
        yield np.clip(action, -1, 1).astype(np.float32)


def _move(simulation: FetchSimulation, place: Vector, opening: float = 0.0) -> Vector:
    """Return the action that moves the gripper towards a place (3,)."""
    return np.append((place - simulation.gripper) / STRIDE, opening)


def _approach(simulation: FetchSimulation, place: Vector, opening: float = 0.0) -> Iterator[Vector]:
    """Move over a place at a safe height, then down to it."""
    for height in (_ABOVE, place[2]):
        for _ in range(_PATIENCE):
            x, y, z = place[0], place[1], height
            far = np.linalg.norm(simulation.gripper[:2] - place[:2]) > 0.02
            if far and simulation.gripper[2] < _ABOVE - 0.02 and height == _ABOVE:
                x, y = simulation.gripper[:2]
            if np.linalg.norm(simulation.gripper - (x, y, z)) < 0.012 and (x, y) == tuple(
                place[:2]
            ):
                break
            yield _move(simulation, np.array([x, y, z]), opening)


def _reach(simulation: FetchSimulation, target: int) -> Iterator[Vector]:
    while True:
        yield _move(simulation, simulation.positions[target])


def _push(simulation: FetchSimulation, target: int, goal: Vector) -> Iterator[Vector]:
    while True:
        error = (goal - simulation.positions[target])[:2]
        if np.linalg.norm(error) < _NEAR:
            yield _move(simulation, np.array([*simulation.gripper[:2], _ABOVE]))
            continue
        behind = _landing(simulation, target, error)
        axis = int(np.abs(behind[:2] - simulation.positions[target][:2]).argmax())
        yield from _approach(simulation, behind)
        for _ in range(_PATIENCE):
            cube = simulation.positions[target]
            left = goal[axis] - cube[axis]
            if left * error[axis] < 0 or abs(left) < 0.01:
                break
            place = cube.copy()
            place[axis] = simulation.gripper[axis] + np.sign(left) * min(abs(left), _PUSH)
            place[2] = _PUSH_HEIGHT
            if np.abs(np.delete(simulation.gripper[:2] - cube[:2], axis)).max() > CUBE:
                break
            yield _move(simulation, place)


def _landing(simulation: FetchSimulation, target: int, error: Vector) -> Vector:
    """Return the place behind one face of the cube, from which to push it: the freest one."""
    cube = simulation.positions[target]
    others = np.delete(simulation.positions, target, axis=0)[:, :2]
    best, found = -np.inf, np.array(cube)
    for axis in (0, 1):
        if abs(error[axis]) < 0.015:
            continue
        place = cube.copy()
        place[axis] -= np.sign(error[axis]) * (CUBE + _GAP)
        place[2] = _PUSH_HEIGHT
        free = np.abs(others - place[:2]).max(1).min(initial=0.07)
        score = min(free, 0.07) * 10 + abs(error[axis])
        if score > best:
            best, found = score, place
    return found


def _pick(simulation: FetchSimulation, target: int, goal: Vector) -> Iterator[Vector]:
    while True:
        place = simulation.positions[target] + (0, 0, _GRASP)
        yield from _approach(simulation, place, _OPEN)
        for _ in range(6):
            yield _move(simulation, simulation.positions[target] + (0, 0, _GRASP), _CLOSED)
        while np.linalg.norm(simulation.gripper - simulation.positions[target]) < 0.06:
            cube = simulation.positions[target]
            error = goal - cube
            if np.linalg.norm(error[:2]) > 0.03 and cube[2] < TABLE_TOP + CUBE + 0.1:
                error[2] += 0.1  # over the other cubes
            yield np.append(error / STRIDE, _CLOSED)
