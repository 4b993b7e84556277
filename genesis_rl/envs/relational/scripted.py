"""Scripted and random policies, the upper bound and chance level, and their success rates."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat
from time import process_time
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np

from genesis_rl.envs import TASKS
from genesis_rl.envs.planning import Outcome, search
from genesis_rl.envs.relational.env import SpriteEnv
from genesis_rl.utils.checks import Checked, Count, one_of
from genesis_rl.worlds.sprites import Scene, get_agent

_HEURISTIC_WEIGHT = 3.0  # of weighted A*, used where objects can be moved


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

    def advance(scene: Scene, action: int) -> Outcome[Scene]:
        step = env.advance(scene, action)
        return Outcome(step.scene, step.success, step.terminated)

    def estimate(scene: Scene) -> float:
        return weight * env.world.remaining_distance(scene) / env.step_size

    return search(env.scene, len(env.MOVES), advance, _positions, estimate, max_steps)


def _positions(scene: Scene) -> tuple[float, ...]:
    """Positions of the agent and the objects, rounded to 6 digits, far below a step."""
    sprites = (get_agent(scene), *scene.objects)
    return tuple(round(value, 6) for sprite in sprites for value in (sprite.x, sprite.y))


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


@dataclass(frozen=True)
class TasksConfig(Checked):
    """Settings of the measurement."""

    tasks: tuple[Annotated[str, one_of(TASKS)], ...] = TASKS
    """names of the tasks"""
    options: dict[str, str] = field(default_factory=dict)
    """options of the environments, as name value pairs; values are parsed as JSON if possible"""
    episodes: Count = 1000
    """episodes per policy and task"""
    n_envs: Count = 64
    """number of environments in the batched measurement"""
    seed: int = 0
    """seed of the first episode; episode i has seed + i"""


class Measurement(NamedTuple):
    """Results of one task. Speeds are total environment steps per second, with frames.

    Attributes:
        scripted: successful episodes of the scripted policy.
        scripted_steps: mean length of its episodes.
        random: successful episodes of the random policy.
        random_steps: mean length of its episodes.
        single_speed: one environment in a SyncVectorEnv.
        batched_speed: the batched vector environment.
        sync_speed: the same number of environments in Gymnasium's SyncVectorEnv.
    """

    scripted: int
    scripted_steps: float
    random: int
    random_steps: float
    single_speed: float
    batched_speed: float
    sync_speed: float


def measure(task: str, config: TasksConfig, options: dict[str, Any]) -> Measurement:
    """Measure one task.

    Args:
        task: name of the task.
        config: settings of the measurement.
        options: options of the environment.

    Raises:
        ValueError: for an invalid value of an option.
        TypeError: for an unknown option.
    """
    id_ = f"genesis_rl/{task}-v0"
    # The policies ignore the observation; the state is cheaper than the frame.
    env: Any = gym.make(id_, disable_env_checker=True, **{**options, "observation": "state"})
    scripted, random = (
        run_episodes(env, policy, config.episodes, seed=config.seed)
        for policy in (scripted_policy, random_policy)
    )
    speeds = (
        steps_per_second(gym.make_vec(id_, n, vectorization_mode=mode, **options))
        for n, mode in (
            (1, "sync"),
            (config.n_envs, "vector_entry_point"),
            (config.n_envs, "sync"),
        )
    )
    return Measurement(*scripted, *random, *speeds)


def steps_per_second(
    envs: gym.vector.VectorEnv[Any, Any, Any], *, steps: int = 2000, repeats: int = 3
) -> float:
    """Measure environment steps per second of CPU time under random actions, resets included.

    Args:
        envs: vector environment with autoreset.
        steps: minimum number of steps per repeat, over all environments.
        repeats: number of repeats; the fastest one is returned.
    """
    envs.action_space.seed(0)
    best = 0.0
    envs.reset(seed=0)
    for _ in range(repeats):
        actions = [envs.action_space.sample() for _ in range(-(-steps // envs.num_envs))]
        start = process_time()
        for batch in actions:
            envs.step(batch)
        best = max(best, len(actions) * envs.num_envs / (process_time() - start))
    return best
