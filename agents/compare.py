"""Compare what agents see: train a grid of runs, sum them up beside the published table.

    python agents/compare.py --obs state pixels --agent.total-steps 200000
    python agents/compare.py --obs state genesis=runs/eyes random=runs/eyes vae=runs/bd-vae --jobs 4
    python agents/compare.py --preset published --agent.total-steps 2000000 --seeds 0 1 2
    python agents/compare.py --obs pixels --also runs/compare --out runs/pixels

The grid is task x obs x seed. The same command goes on where it was stopped: runs that ended are
kept, others resume from their last checkpoint. Each run leaves run.json in its folder; the summary
(comparison.json) holds success rates as interquartile means with bootstrap intervals, with learning
curves over steps and over time beside it. All settings of agents/train.py stand behind --agent.
"""

import argparse
import sys
from collections.abc import Sequence

import tyro

from genesis_rl.agents.comparison import (
    CompareConfig,
    read_others,
    train_all,
    write_summary,
)
from genesis_rl.agents.config import PRESETS, preset_flags
from genesis_rl.agents.learning import TrainingError
from genesis_rl.process import report_stop
from genesis_rl.text_tables import as_text


def parse(argv: Sequence[str] | None) -> CompareConfig:
    """Read the preset first: its settings stand before the other flags, which change them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="ours")
    known, rest = first.parse_known_args(argv)
    flags = [*preset_flags(known.preset, "agent."), *rest]
    description = f"{__doc__}\npresets (--preset NAME): {', '.join(PRESETS)}"
    return tyro.cli(CompareConfig, args=flags, description=description)


@report_stop("compare.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return the exit status."""
    try:
        config = parse(argv)
        others = read_others(config)
        records = [*train_all(config, report=lambda line: print(line, flush=True)), *others]
        path = config.summary or config.out / "comparison.json"
        summary = write_summary(records, path)
    except TrainingError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    print(as_text(summary["tables"]))
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
