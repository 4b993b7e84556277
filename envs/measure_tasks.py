"""Measure success of a scripted and a random policy on the relational tasks, and steps/s.

python envs/measure_tasks.py
python envs/measure_tasks.py --tasks ObjectGoal --options num_objects 6 --episodes 200
"""

import sys

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.agents.evaluation import wilson_interval
from genesis_rl.envs.relational.scripted import TasksConfig, measure
from genesis_rl.envs.watch import read_options
from genesis_rl.utils.flags import program


def rate(successes: int, episodes: int) -> str:
    """Format a success rate with its 95 % confidence interval."""
    low, high = wilson_interval(successes, episodes)
    return f"{successes / episodes:.3f} ({low:.3f} to {high:.3f})"


@program("measure_tasks.py", TasksConfig, __doc__, errors=(ValueError, TypeError))
def main(config: TasksConfig) -> int:
    """Run the program; return the exit status."""
    options = read_options(config.options)
    measured = [measure(task, config, options) for task in config.tasks]
    print(
        "| task | scripted: success | steps | random: success | steps"
        f" | steps/s, 1 env | {config.n_envs} batched | {config.n_envs} in SyncVectorEnv |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for task, m in zip(config.tasks, measured, strict=True):
        cells = (
            task,
            rate(m.scripted, config.episodes),
            f"{m.scripted_steps:.1f}",
            rate(m.random, config.episodes),
            f"{m.random_steps:.1f}",
            *(f"{speed:,.0f}" for speed in (m.single_speed, m.batched_speed, m.sync_speed)),
        )
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
