"""Scripted policy for navigation in rooms: an upper bound, from the ground-truth positions."""

from collections.abc import Hashable, Iterable
from itertools import repeat
from typing import Any

import gymnasium as gym
import numpy as np

from genesis_rl.envs.planning import Outcome, search
from genesis_rl.envs.rooms.env import RoomsEnv
from genesis_rl.worlds.rooms.navigation import (
    ACTIONS,
    FACING,
    REACH,
    STEP,
    TURN,
    Agent,
    is_success,
)

_CELL = STEP / 2  # of positions that count as the same in the search


def rooms_policy(env: gym.Env[Any, Any], rng: np.random.Generator) -> Iterable[int]:
    """Return the actions of a plan to the target of the current episode; without one, turn left.

    Use the policy with `genesis_rl.envs.relational.scripted.run_episodes`.

    Args:
        env: the environment, with objects; it has been reset.
        rng: not used.

    Raises:
        TypeError: for another environment.
        ValueError: for an empty room.
    """
    task = env.unwrapped
    if not isinstance(task, RoomsEnv):
        raise TypeError(f"env must be genesis_rl/Rooms-v0, got {task}.")
    room, target = task.episode.room, task.episode.target_object
    if target is None:
        raise ValueError("env must have objects, got empty=True.")

    def advance(agent: Agent, action: int) -> Outcome[Agent]:
        after = agent.act(action, room)
        return Outcome(after, is_success(after, target))

    def estimate(agent: Agent) -> float:
        moves = max(0.0, agent.distance(target) - REACH) / STEP
        return moves + max(0.0, abs(agent.bearing(target)) - FACING) / TURN

    return search(task.agent, len(ACTIONS), advance, _cell, estimate, 100) or repeat(2)


def _cell(agent: Agent) -> Hashable:
    return round(agent.x / _CELL), round(agent.y / _CELL), round(agent.yaw / TURN)
