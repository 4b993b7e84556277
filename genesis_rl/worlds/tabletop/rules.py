"""Rules of multi-object Fetch: colours, positions, success and rewards.

The tasks follow SOLD (Mosbach et al., ICML 2025, arXiv:2410.08822). Positions are in metres.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

#: Colours of the objects, RGB in 0..255.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 255, 0),
    (47, 79, 79),
    (139, 69, 19),
    (25, 25, 112),
    (0, 100, 0),
    (189, 183, 107),
    (72, 209, 204),
    (255, 0, 0),
    (255, 165, 0),
    (255, 255, 0),
    (199, 21, 133),
    (0, 0, 205),
    (0, 250, 154),
    (216, 191, 216),
    (255, 0, 255),
    (30, 144, 255),
)
#: Index of pure red in `PALETTE`.
RED = 7

_TO_XYZ = np.array(  # from linear sRGB, with the white point D65
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
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


def rgb_to_lab(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Convert sRGB colours in 0..255, (..., 3), to CIE L*a*b* (white point D65), (..., 3)."""
    value = np.asarray(rgb, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _TO_XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(lab1: npt.ArrayLike, lab2: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Compute the CIEDE2000 difference of L*a*b* colours (Sharma et al., 2005).

    Args:
        lab1: (..., 3).
        lab2: (..., 3), broadcast against ``lab1``.

    Returns:
        (...), >= 0.
    """
    l1, a1, b1 = np.moveaxis(np.asarray(lab1, float), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(lab2, float), -1, 0)
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1 = np.degrees(np.arctan2(b1, a1 * stretch)) % 360
    h2 = np.degrees(np.arctan2(b2, a2 * stretch)) % 360
    grey = c1 * c2 == 0  # no hue
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    delta_l, delta_c = l2 - l1, c2 - c1
    delta_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = np.where(grey, h1 + h2, (h1 + turn / 2) % 360)
    angle = np.radians(mean_h)
    t = (
        1
        - 0.17 * np.cos(angle - np.radians(30))
        + 0.24 * np.cos(2 * angle)
        + 0.32 * np.cos(3 * angle + np.radians(6))
        - 0.20 * np.cos(4 * angle - np.radians(63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c = 1 + 0.045 * mean_c
    s_h = 1 + 0.015 * mean_c * t
    rotation = 60 * np.exp(-(((mean_h - 275) / 25) ** 2))  # degrees
    r_c = 2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    r_t = -np.sin(np.radians(rotation)) * r_c
    terms = delta_l / s_l, delta_c / s_c, delta_h / s_h
    square = terms[0] ** 2 + terms[1] ** 2 + terms[2] ** 2 + r_t * terms[1] * terms[2]
    return np.asarray(np.sqrt(np.maximum(square, 0)))


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
