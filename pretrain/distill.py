"""Distil a pretrained encoder: a network of some ten MFLOP that sees the same slots.

    python pretrain/distill.py runs/eyes --out runs/fast-eyes
    python pretrain/distill.py runs/eyes --data data/cars --out runs/fast-eyes
    python pretrain/distill.py runs/eyes --out runs/fast-eyes --resume

The teacher sees the images that it was trained on (or --data) once; the student then learns its
posterior means and masks. The run's folder is an encoder like any other: wrappers, agents and
world models take it. At the end report.json tells how close it comes, and how fast it is.
"""

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from genesis_rl.distillation import DistillConfig, distill
from genesis_rl.process import report_stop
from genesis_rl.training.program import run_and_report


@report_stop("distill.py", "add --resume to resume")
def main(argv: Sequence[str] | None = None) -> int:
    """Train and report; return the exit status."""

    def train() -> dict[str, Any]:
        settings = tyro.conf.PositionalRequiredArgs[DistillConfig]
        return distill(tyro.cli(settings, args=argv, description=__doc__))

    return run_and_report("distill.py", train)


if __name__ == "__main__":
    sys.exit(main())
