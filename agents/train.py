r"""Train an agent (PPO, SAC, TD3, RecurrentPPO) on object slots, ground-truth state or pixels.

    python agents/train.py --encoder runs/multi-dsprites-small
    python agents/train.py --encoder runs/cars --env CarRacing-v3 --policy.extractor mlp
    python agents/train.py --encoder runs/multi-dsprites-small --resume
    python agents/train.py --obs state --env genesis_rl/ObjectComparison-v0
    python agents/train.py --obs pixels --preset published --total-timesteps 2000000
    python agents/train.py --encoder sprites-fast --preset relational --total-timesteps 500000 \
        --env genesis_rl/ObjectComparison-v0
    python agents/train.py --encoder runs/fetch --env gymnasium_robotics:FetchReach-v4 --render \
        --algo sac --her --keep observation achieved_goal desired_goal
    python agents/train.py --encoder fetch --preset robot --keep proprioception \
        --env genesis_rl/FetchReachOdd-v0

The environment is any registered Gymnasium environment with image observations or rendering;
module:id imports a module first, also one of the working directory. ppo.NAME are settings of PPO
and RecurrentPPO, off-policy.NAME those of SAC and TD3. The preset "published" has the PPO settings
of the published results on the relational tasks. "relational" has smaller updates than the
defaults, for tasks that compare objects when observations are slots; "robot" has settings of SAC
for multi-object Fetch. agents/evaluate.py evaluates the run directory.
"""

import argparse
import sys
from collections.abc import Sequence

from genesis_rl.agents.config import PRESETS, TrainConfig, preset_flags
from genesis_rl.agents.learning import AgentTrainer, TrainingError
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


def parse(argv: Sequence[str] | None) -> TrainConfig:
    """Parse the flags after those of the preset, which they override."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    known, rest = first.parse_known_args(argv)
    description = f"{__doc__}\npresets (--preset NAME): {', '.join(PRESETS)}"
    return parse_flags(TrainConfig, [*preset_flags(known.preset), *rest], description)


@report_stop("train.py", "--resume continues from the last checkpoint, if there is one")
def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        config = parse(argv)
        trainer = AgentTrainer(config.agent, resume=config.resume)
    except (ValueError, TypeError, OSError) as error:
        report_error("train.py", error, TrainConfig)
        return 2
    if config.resume:
        print(_resumed(trainer), file=sys.stderr)
    try:
        metrics = trainer.run()
    except (TrainingError, OSError) as error:
        report_error("train.py", error, TrainConfig)
        return 1
    if trainer.stopped:
        step = trainer.model.num_timesteps
        print(f"stopped at step {step}; --resume continues", file=sys.stderr)
        return trainer.stop_status
    best = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    best = best or "not evaluated, which agents/evaluate.py does"
    print(f"{trainer.config.out}: {trainer.model.num_timesteps} steps; best: {best}")
    return 0


def _resumed(trainer: AgentTrainer) -> str:
    """Describe the step at which a run is resumed."""
    step, out = trainer.model.num_timesteps, trainer.config.out
    if trainer.finished:
        return (
            f"{out} is completed at step {step}; increase --total-timesteps or --max-minutes to "
            "continue"
        )
    return f"resuming {out} at step {step}" if step else f"no checkpoint in {out}: starting at 0"


if __name__ == "__main__":
    sys.exit(main())
