"""The relational tasks played by plan and at random: what is possible, and what is chance."""

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count, repeat
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from genesis_rl.envs.sprites import SpriteEnv
from genesis_rl.worlds import Scene, agent_of

_GREED = 3.0  # weight of the way that is left, where objects can be moved and scenes abound


class _Trail(NamedTuple):
    """The actions that led to a scene, the last one first."""

    before: "_Trail | None"
    action: int


def plan(env: SpriteEnv, max_steps: int = 100) -> list[int] | None:
    """Find actions that solve the task from an environment's current scene.

    A search through the scenes that the environment's own rules lead to: breadth first, so that
    the plan is a shortest one; where objects can be moved, weighted A* (Pohl, 1970), which finds
    one that is a few per cent longer in a fraction of the time.

    Args:
        env: the environment, without wrappers; it stays as it is.
        max_steps: length of the longest plan to look for.

    Returns:
        The actions, or None if none within `max_steps` solve the task.

    Raises:
        RuntimeError: before the environment's first reset.
    """
    greed = _GREED if env.world.objects_move else 0.0
    number = count()  # of scenes that promise the same, the first found is the first looked at
    queue: list[tuple[float, int, int, Scene, _Trail | None]] = [
        (0.0, next(number), 0, env.scene, None)
    ]
    seen = {_places(env.scene)}
    while queue:
        _, _, steps, scene, trail = heappop(queue)
        if steps == max_steps:
            continue
        for action in range(len(env.MOVES)):
            result, step = env.advance(scene, action), _Trail(trail, action)
            if result.success:
                return list(_actions(step))[::-1]
            places = _places(result.scene)
            if result.terminated or places in seen:
                continue
            seen.add(places)
            left = greed * env.world.remaining(result.scene) / env.step_size
            heappush(queue, (steps + 1 + left, next(number), steps + 1, result.scene, step))
    return None


def _places(scene: Scene) -> tuple[float, ...]:
    """Where the agent and the objects are, to a millionth, which steps cannot resolve."""
    sprites = (agent_of(scene), *scene.objects)
    return tuple(round(value, 6) for sprite in sprites for value in (sprite.x, sprite.y))


def _actions(trail: _Trail | None) -> Iterator[int]:
    while trail is not None:
        yield trail.action
        trail = trail.before


#: Chooses an episode's actions, given the environment just reset and a source of randomness.
Player = Callable[[gym.Env[Any, Any], np.random.Generator], Iterable[int]]


def scripted_player(env: gym.Env[Any, Any], rng: np.random.Generator) -> Iterable[int]:
    """Play by plan, and upwards if there is none.

    Raises:
        TypeError: for an environment that is no relational task.
    """
    task = env.unwrapped
    if not isinstance(task, SpriteEnv):
        raise TypeError(f"the scripted policy plays relational tasks, got {task}")
    return plan(task) or repeat(0)


def random_player(env: gym.Env[Any, Any], rng: np.random.Generator) -> Iterable[int]:
    """Draw every action evenly."""
    actions = int(env.action_space.n)  # type: ignore[attr-defined]
    return (int(rng.integers(actions)) for _ in repeat(None))


def play(
    env: gym.Env[Any, Any], player: Player, episodes: int, *, seed: int = 0
) -> tuple[int, float]:
    """Play episodes, the first of which starts from `seed`, the next from `seed + 1` and so on.

    Args:
        env: an environment that cuts its episodes and reports `is_success`.
        player: who chooses the actions.
        episodes: how many, at least 1.
        seed: of the episodes and of the player's chance.

    Returns:
        How many succeeded, and their mean length in steps, failures included.

    Raises:
        ValueError: if `episodes` is not at least 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be >= 1, got {episodes}")
    rng = np.random.default_rng(seed)
    successes = steps = 0
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        for action in player(env, rng):
            _, _, terminated, truncated, info = env.step(action)
            steps += 1
            if terminated or truncated:
                successes += bool(info["is_success"])
                break
    return successes, steps / episodes
