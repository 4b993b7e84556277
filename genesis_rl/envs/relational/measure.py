"""Success rates of the scripted and the random policy on the relational tasks, and speed."""

from dataclasses import dataclass, field
from time import process_time
from typing import Any, NamedTuple

import gymnasium as gym

from genesis_rl.envs import TASKS
from genesis_rl.envs.relational.scripted import random_policy, run_episodes, scripted_policy


@dataclass(frozen=True)
class TasksConfig:
    """Settings of the measurement."""

    tasks: tuple[str, ...] = TASKS
    """names of the tasks"""
    options: dict[str, str] = field(default_factory=dict)
    """options of the environments, as name value pairs; values are parsed as JSON if possible"""
    episodes: int = 1000
    """episodes per policy and task"""
    n_envs: int = 64
    """number of environments in the batched measurement"""
    seed: int = 0
    """seed of the first episode; episode i has seed + i"""

    def __post_init__(self) -> None:
        """Validate every field."""
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"tasks must be among {', '.join(TASKS)}, got {task!r}.")
        for name in ("episodes", "n_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")


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
