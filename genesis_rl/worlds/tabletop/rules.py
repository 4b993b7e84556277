"""Rules of multi-object Fetch: colours, positions, success and rewards.

The tasks follow SOLD (Mosbach et al., ICML 2025, arXiv:2410.08822). Positions are in metres.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.tabletop.colours import PALETTE, RED, ciede2000, rgb_to_lab

Vector = npt.NDArray[np.float64]

Skill = Literal["Reach", "Push", "Pick"]
Relation = Literal["Red", "Reddest", "Odd", "OddGroups"]

SKILLS: tuple[Skill, ...] = get_args(Skill)
RELATIONS: tuple[Relation, ...] = get_args(Relation)

#: Minimum number of distractors of each relation.
MIN_DISTRACTORS: dict[Relation, int] = {"Red": 0, "Reddest": 0, "Odd": 2, "OddGroups": 4}
MAX_DISTRACTORS = 4

TABLE_TOP = 0.4  # height
SPHERE = 0.04  # radius of the goal and of the spheres of Reach
CUBE = 0.045  # half edge
REACH = 0.15  # of the objects around the gripper's start, per axis
TOLERANCE = 0.05  # distance of success
_GOAL_LIFT = 0.3  # maximum height of a goal of Pick above the table
_MIN_DISTANCE = {"Reach": 2 * SPHERE, "Push": 2 * 2**0.5 * CUBE, "Pick": 2 * 2**0.5 * CUBE}
_ATTEMPTS = 50  # of one position, before all are sampled anew


@dataclass(frozen=True)
class Layout:
    """Objects of an episode; by default none.

    Attributes:
        positions: centres of the objects (N, 3).
        colours: indices into `PALETTE` (N,).
        target: index of the target; None on an empty table.
        goal: centre of the goal (3,); None in Reach and on an empty table.
    """

    positions: Vector = field(default_factory=lambda: np.empty((0, 3)))
    colours: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    target: int | None = None
    goal: Vector | None = None


def sample_layout(
    skill: Skill, relation: Relation, distractors: int, start: Vector, rng: np.random.Generator
) -> Layout:
    """Sample the objects of an episode; the target has a random index.

    Args:
        skill: what to do with the target.
        relation: what distinguishes the target.
        distractors: number of other objects, see `MIN_DISTRACTORS`.
        start: the gripper's initial position (3,).
        rng: random generator.
    """
    colours, target = sample_colours(relation, distractors, rng)
    lift = rng.uniform(0, _GOAL_LIFT) if skill == "Pick" and rng.random() < 0.5 else 0.0
    positions = None
    while positions is None:  # at times, no free place is left
        positions = _sample_positions(skill, len(colours), start, lift, rng)
    if skill == "Reach":
        return Layout(positions, colours, target, None)
    return Layout(positions[:-1], colours, target, positions[-1])


def sample_colours(
    relation: Relation, distractors: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], int]:
    """Sample colours, and the index of the target.

    Returns:
        Indices into `PALETTE` (distractors + 1,), and the target's index.
    """
    index = int(rng.integers(distractors + 1))
    if relation == "Reddest":
        colours = rng.permutation(len(PALETTE))[: distractors + 1]
        red = ciede2000(rgb_to_lab(PALETTE[RED]), rgb_to_lab([PALETTE[i] for i in colours]))
        return colours, int(red.argmin())
    if relation == "Red":
        target, others = RED, rng.integers(len(PALETTE) - 1, size=distractors)
        others = others + (others >= RED)
    else:
        target, *groups = rng.permutation(len(PALETTE))[: 2 if relation == "Odd" else 3]
        others = np.resize(groups, distractors)
    return np.insert(others, index, target), index


def _sample_positions(
    skill: Skill, objects: int, start: Vector, lift: float, rng: np.random.Generator
) -> Vector | None:
    """Sample positions of the objects and the goal, if any, last; None if one has no place.

    The goal is ``lift`` metres above the height of the cubes.
    """
    positions: list[Vector] = []
    for number in range(objects + (skill != "Reach")):
        is_goal = number == objects
        distance = SPHERE + 2**0.5 * CUBE if is_goal else _MIN_DISTANCE[skill]
        for _ in range(_ATTEMPTS):
            position = start + rng.uniform(-REACH, REACH, 3)
            if skill == "Reach":
                position[2] = max(position[2], TABLE_TOP + SPHERE)
            else:
                position[2] = TABLE_TOP + CUBE + is_goal * lift
            if all(np.linalg.norm(position - other) >= distance for other in positions):
                positions.append(position)
                break
        else:
            return None
    return np.array(positions)


def is_success(target: Vector, gripper: Vector, goal: Vector | None) -> bool:
    """Return whether the target is at the goal or, without a goal, touched by the gripper.

    Args:
        target: the target's centre (3,).
        gripper: position between the fingertips (3,).
        goal: the goal's centre (3,); None in Reach.
    """
    return bool(np.linalg.norm(target - (gripper if goal is None else goal)) < TOLERANCE)


def dense_reward(target: Vector, gripper: Vector, goal: Vector | None) -> float:
    """Compute the dense reward, in (0, 1]. Arguments as in `is_success`.

    With d(.,.) the distance: exp(-20 d(target, gripper)) without a goal, else
    0.9 exp(-20 d(target, goal)) + 0.1 exp(-10 d(target, gripper)).
    """
    to_gripper = float(np.linalg.norm(target - gripper))
    if goal is None:
        return float(np.exp(-20 * to_gripper))
    to_goal = float(np.linalg.norm(target - goal))
    return float(0.9 * np.exp(-20 * to_goal) + 0.1 * np.exp(-10 * to_gripper))
