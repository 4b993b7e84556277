r"""Train a PPO agent on object slots, or on what they are compared with.

    python agents/train.py --encoder runs/multi-dsprites-small
    python agents/train.py --encoder runs/cars --env CarRacing-v3 --policy.extractor mlp
    python agents/train.py --obs state --env genesis_rl/ObjectComparison-v0
    python agents/train.py --obs pixels --preset published --total-steps 2000000
    python agents/train.py --encoder sprites-fast --preset relational --total-steps 500000 \
        --env genesis_rl/ObjectComparison-v0

Any registered Gymnasium environment that shows frames will do; module:id imports a module first.
Every field of the settings is a flag. The preset "published" has the PPO settings of the published
results on the relational tasks, "relational" calmer updates than the defaults: rules that relate
objects to each other want them when the objects are latents. agents/evaluate.py takes the folder
that is written.
"""

import argparse
import sys
from collections.abc import Sequence

import tyro

from genesis_rl.agents.config import PRESETS, AgentConfig, preset_flags
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.process import TERMINATED


def parse(argv: Sequence[str] | None) -> AgentConfig:
    """Read the preset first: its settings stand before the other flags, which change them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="ours")
    known, rest = first.parse_known_args(argv)
    description = f"{__doc__}\npresets (--preset NAME): {', '.join(PRESETS)}"
    return tyro.cli(AgentConfig, args=[*preset_flags(known.preset), *rest], description=description)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        trainer = AgentTrainer(parse(argv))
    except (ValueError, TypeError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    try:
        figures = trainer.run()
    except (TrainingError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    if trainer.stopped:
        print(f"stopped at step {trainer.model.num_timesteps}", file=sys.stderr)
        return TERMINATED
    best = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
    print(f"{trainer.config.out}: {trainer.model.num_timesteps} steps; best: {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
