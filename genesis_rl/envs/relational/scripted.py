"""Scripted and random policies: upper bound and chance level."""

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count, repeat
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from genesis_rl.envs.relational.env import SpriteEnv
from genesis_rl.worlds.sprites import Scene, get_agent

_HEURISTIC_WEIGHT = 3.0  # of weighted A*, used where objects can be moved


class _Node(NamedTuple):
    """An action of a plan, linked to the actions before it."""

    parent: "_Node | None"
    action: int


def plan(env: SpriteEnv, max_steps: int = 100) -> list[int] | None:
    """Search for actions that solve the task from an environment's current scene.

    The search simulates the environment: breadth first, which returns a shortest plan; where
    objects can be moved, weighted A* (Pohl, 1970), whose plans are a few per cent longer in a
    fraction of the time.

    Args:
        env: the environment, without wrappers; it is not changed.
        max_steps: maximum length of the plan.

    Returns:
        The actions, or None if no plan within `max_steps` solves the task.

    Raises:
        RuntimeError: before the environment's first reset.
    """
    weight = _HEURISTIC_WEIGHT if env.world.objects_move else 0.0
    number = count()  # breaks ties: first in, first out
    queue: list[tuple[float, int, int, Scene, _Node | None]] = [
        (0.0, next(number), 0, env.scene, None)
    ]
    visited = {_positions(env.scene)}
    while queue:
        _, _, steps, scene, node = heappop(queue)
        if steps == max_steps:
            continue
        for action in range(len(env.MOVES)):
            result, child = env.advance(scene, action), _Node(node, action)
            if result.success:
                return list(_actions(child))[::-1]
            positions = _positions(result.scene)
            if result.terminated or positions in visited:
                continue
            visited.add(positions)
            estimate = weight * env.world.remaining_distance(result.scene) / env.step_size
            heappush(queue, (steps + 1 + estimate, next(number), steps + 1, result.scene, child))
    return None


def _positions(scene: Scene) -> tuple[float, ...]:
    """Positions of the agent and the objects, rounded to 6 digits, far below a step."""
    sprites = (get_agent(scene), *scene.objects)
    return tuple(round(value, 6) for sprite in sprites for value in (sprite.x, sprite.y))


def _actions(node: _Node | None) -> Iterator[int]:
    while node is not None:
        yield node.action
        node = node.parent


#: Maps an environment just reset, and a random generator, to the actions of an episode.
EpisodePolicy = Callable[[gym.Env[Any, Any], np.random.Generator], Iterable[Any]]


def scripted_policy(env: gym.Env[Any, Any], rng: np.random.Generator) -> Iterable[int]:
    """Return the actions of a plan; without one, repeat the action "up".

    Raises:
        TypeError: for an environment other than a relational task.
    """
    task = env.unwrapped
    if not isinstance(task, SpriteEnv):
        raise TypeError(f"env must be a relational task, got {task}.")
    return plan(task) or repeat(0)


def random_policy(env: gym.Env[Any, Any], rng: np.random.Generator) -> Iterable[Any]:
    """Sample actions of a Discrete or bounded Box space uniformly."""
    space: Any = env.action_space
    if isinstance(space, gym.spaces.Box):
        return (rng.uniform(space.low, space.high).astype(space.dtype) for _ in repeat(None))
    actions = int(space.n)
    return (int(rng.integers(actions)) for _ in repeat(None))


def run_episodes(
    env: gym.Env[Any, Any], policy: EpisodePolicy, episodes: int, *, seed: int = 0
) -> tuple[int, float]:
    """Run episodes, seeded by `seed`, `seed + 1` and so on.

    Args:
        env: an environment with a time limit and `is_success` in its info.
        policy: the policy.
        episodes: number of episodes, at least 1.
        seed: seed of the first episode and of the policy.

    Returns:
        Number of successes, and mean length of all episodes in steps.

    Raises:
        ValueError: if `episodes` is not at least 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be >= 1, got {episodes}.")
    rng = np.random.default_rng(seed)
    successes = steps = 0
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        for action in policy(env, rng):
            _, _, terminated, truncated, info = env.step(action)
            steps += 1
            if terminated or truncated:
                successes += bool(info["is_success"])
                break
    return successes, steps / episodes
