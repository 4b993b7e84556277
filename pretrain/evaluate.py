"""Evaluate pretrained models: every score, beside what no model gets on the same images.

    python pretrain/evaluate.py runs/eyes
    python pretrain/evaluate.py runs/eyes-0 runs/eyes-1 runs/eyes-2 --out eyes.json
    python pretrain/evaluate.py someone/eyes --data object_goal --out eyes.json --frechet none

Prints tables and writes JSON: to evaluation-SPLIT.json in each run's folder, or all into one file.
Runs that differ in their seed only are summed up as mean and standard deviation. Segmentations are
scored by the masks of posterior means; bounds are those of the model that scenes are sampled from.
"""

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from genesis_rl.evaluation import EvaluateConfig, evaluate, tables
from genesis_rl.process import report_stop

# Rows are wider than the terminal that a pipe is taken for.
_PIPE_WIDTH = 160


@report_stop("evaluate.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate and report; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[EvaluateConfig]
        config = tyro.cli(settings, args=argv, description=__doc__)
        result = evaluate(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"evaluate.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    first = result["runs"][0]
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(
        f"{first['data']}, the first {first['num_images']} images of the {first['split']} split, "
        f"{first['iw_samples']} samples for the bounds"
    )
    for table in tables(result):
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
