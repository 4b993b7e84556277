"""What a relational task takes: success by plan and by chance, and processor time."""

from dataclasses import dataclass, field
from time import process_time
from typing import Any, NamedTuple

import gymnasium as gym

from genesis_rl.envs import TASKS
from genesis_rl.envs.scripted import play, random_player, scripted_player


@dataclass(frozen=True)
class TasksConfig:
    """Which tasks to measure, and how long."""

    tasks: tuple[str, ...] = TASKS
    """names of tasks"""
    options: dict[str, str] = field(default_factory=dict)
    """options of the environments, as name value pairs; values are read as JSON where they are"""
    episodes: int = 1000
    """episodes of each policy in each task"""
    num_envs: int = 64
    """environments in the measurement of batched steps"""
    seed: int = 0
    """seed of the first episode; the next ones count up"""

    def __post_init__(self) -> None:
        """Check every field."""
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"unknown task {task!r}: use one of {', '.join(TASKS)}")
        for name in ("episodes", "num_envs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")


class Measurement(NamedTuple):
    """What was measured of one task.

    Attributes:
        scripted: episodes that the scripted policy solved.
        scripted_steps: mean length of its episodes.
        random: episodes that the random policy solved.
        random_steps: mean length of its episodes.
        single_speed: steps a second of one environment in a SyncVectorEnv, frames drawn.
        batched_speed: steps a second of the batched environments, all together, frames drawn.
        sync_speed: steps a second of as many in Gymnasium's SyncVectorEnv.
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
        task: its name.
        config: how long.
        options: of its environment.

    Raises:
        ValueError: for an option's bad value.
        TypeError: for an unknown option.
    """
    id_ = f"genesis_rl/{task}-v0"
    # The policies need no observation, and the state is the cheaper one.
    env: Any = gym.make(id_, disable_env_checker=True, **{**options, "observation": "state"})
    scripted, random = (
        play(env, player, config.episodes, seed=config.seed)
        for player in (scripted_player, random_player)
    )
    speeds = (
        steps_per_second(gym.make_vec(id_, n, vectorization_mode=mode, **options))
        for n, mode in (
            (1, "sync"),
            (config.num_envs, "vector_entry_point"),
            (config.num_envs, "sync"),
        )
    )
    return Measurement(*scripted, *random, *speeds)


def steps_per_second(
    envs: gym.vector.VectorEnv[Any, Any, Any], *, steps: int = 2000, repeats: int = 3
) -> float:
    """Measure the environment steps in a second of processor time, under random actions.

    Resets are included, waiting for a busy machine is not.

    Args:
        envs: the environments, which reset themselves.
        steps: of all environments together in one repeat, at least.
        repeats: the best one counts.
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
