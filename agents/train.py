r"""Train a PPO agent on object slots, or on what they are compared with.

    python agents/train.py --encoder runs/multi-dsprites-small
    python agents/train.py --encoder runs/cars --env CarRacing-v3 --policy.extractor mlp
    python agents/train.py --encoder runs/multi-dsprites-small --resume
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

from genesis_rl.agents.config import PRESETS, TrainConfig, preset_flags
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.process import report_stop


def parse(argv: Sequence[str] | None) -> TrainConfig:
    """Read the preset first: its settings stand before the other flags, which change them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="ours")
    known, rest = first.parse_known_args(argv)
    description = f"{__doc__}\npresets (--preset NAME): {', '.join(PRESETS)}"
    return tyro.cli(TrainConfig, args=[*preset_flags(known.preset), *rest], description=description)


@report_stop("train.py", "add --resume to go on from the last checkpoint, if there is one")
def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        config = parse(argv)
        trainer = AgentTrainer(config.agent, resume=config.resume)
    except (ValueError, TypeError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    if config.resume:
        print(_resumed(trainer), file=sys.stderr)
    try:
        figures = trainer.run()
    except (TrainingError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    if trainer.stopped:
        step = trainer.model.num_timesteps
        print(f"stopped at step {step}; go on with --resume", file=sys.stderr)
        return trainer.stop_status
    best = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
    print(f"{trainer.config.out}: {trainer.model.num_timesteps} steps; best: {best}")
    return 0


def _resumed(trainer: AgentTrainer) -> str:
    """Describe where a run is resumed."""
    step, out = trainer.model.num_timesteps, trainer.config.out
    if trainer.finished:
        return f"{out} has ended at step {step}; a higher --total-steps or --max-minutes resumes it"
    return f"resuming {out} at step {step}" if step else f"nothing saved in {out}: starting anew"


if __name__ == "__main__":
    sys.exit(main())
