"""Success of the scripted policy in rooms; it needs no OpenGL."""

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.envs.relational.scripted import random_policy, run_episodes
from genesis_rl.envs.rooms.scripted import rooms_policy


def make(**options: Any) -> Any:
    return gym.make("genesis_rl/Rooms-v0", observation="state", **options)


@pytest.mark.parametrize("target", ["red", "sphere", "odd"])
def test_the_scripted_policy_succeeds(target: str) -> None:
    successes, steps = run_episodes(make(target=target), rooms_policy, 25)
    assert successes == 25
    assert steps < 30


def test_the_random_policy_seldom_succeeds() -> None:
    assert run_episodes(make(), random_policy, 40)[0] <= 10


def test_a_plan_is_short() -> None:
    """No action of a plan is undone by the next one."""
    env = make()
    for seed in range(20):
        env.reset(seed=seed)
        actions = list(rooms_policy(env, np.random.default_rng(0)))
        assert all({a, b} not in ({0, 1}, {2, 3}) for a, b in pairwise(actions))


def test_other_environments_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match="env must be genesis_rl/Rooms-v0"):
        rooms_policy(gym.make("genesis_rl/ObjectGoal-v0"), rng)
    env = make(empty=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="env must have objects, got empty=True"):
        rooms_policy(env, rng)
