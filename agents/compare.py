"""Compare observations: train a grid of PPO runs and summarise them with the published results.

    python agents/compare.py --obs state pixels --agent.total-timesteps 200000
    python agents/compare.py --obs state genesis=runs/genesis vae=runs/bd-vae --jobs 4
    python agents/compare.py --preset published --agent.total-timesteps 2000000 --seeds 0 1 2
    python agents/compare.py --obs state pixels --jobs 40 --executor slurm
    python agents/compare.py --obs pixels --include runs/compare --out runs/pixels

The grid is task x obs x seed. The same command resumes an interrupted comparison: completed runs
are kept, others resume from their last checkpoint. Each run writes run.json to its folder. The
summary (comparison.json) contains success rates as interquartile means with bootstrap intervals;
learning curves over steps and over time are saved as images in the same folder. The settings of
agents/train.py have the prefix --agent.
"""

import argparse
import sys
from collections.abc import Sequence

from genesis_rl.agents.comparison.grid import CompareConfig, read_included, train_all
from genesis_rl.agents.comparison.summary import write_summary
from genesis_rl.agents.config import PRESETS, preset_flags
from genesis_rl.agents.learning import TrainingError
from genesis_rl.utils.flags import parse_flags, program
from genesis_rl.utils.tables import as_text

_SET_BY_GRID = tuple(f"agent.{name}" for name in ("env", "obs", "encoder", "seed", "out"))


def parse(argv: Sequence[str] | None) -> CompareConfig:
    """Parse the flags after those of the preset, which they override."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    known, rest = first.parse_known_args(argv)
    flags = [*preset_flags(known.preset, "agent."), *rest]
    description = f"{__doc__}\npresets (--preset NAME): {', '.join(PRESETS)}"
    return parse_flags(CompareConfig, flags, description)


@program(
    "compare.py",
    CompareConfig,
    advice="the same command resumes",
    parse=parse,
    failures=(TrainingError,),
    ignored=_SET_BY_GRID,
)
def main(config: CompareConfig) -> int:
    """Run the comparison; return the exit status."""
    included = read_included(config)
    records = [*train_all(config, report=lambda line: print(line, flush=True)), *included]
    path = config.summary or config.out / "comparison.json"
    summary = write_summary(records, path)
    print(as_text(summary["tables"]))
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
