"""Train a PPO agent on object slots.

    python agents/train.py --encoder runs/multi-dsprites-small
    python agents/train.py --encoder runs/cars --env CarRacing-v3 --policy.extractor mlp

Any registered Gymnasium environment that shows frames will do; module:id imports a module first.
Every field of the settings is a flag. agents/evaluate.py takes the folder that is written.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.learning import AgentTrainer, TrainingError

# What a process ended by SIGTERM returns.
_TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        trainer = AgentTrainer(tyro.cli(AgentConfig, args=argv, description=__doc__))
    except (ValueError, TypeError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    try:
        figures = trainer.run()
    except TrainingError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    if trainer.stopped:
        print(f"stopped at step {trainer.model.num_timesteps}", file=sys.stderr)
        return _TERMINATED
    best = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
    print(f"{trainer.config.out}: {trainer.model.num_timesteps} steps; best: {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
