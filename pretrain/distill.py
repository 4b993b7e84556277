"""Distil a pretrained encoder into a student of about ten MFLOP per frame.

    python pretrain/distill.py runs/encoder --out runs/student
    python pretrain/distill.py runs/encoder --data data/cars --out runs/student
    python pretrain/distill.py runs/encoder --out runs/student --resume

The teacher encodes its training images (or --data) once; the student is trained to predict its
posterior means and masks. The run directory is a valid encoder for wrappers, agents and world
models. report.json contains the student's fidelity and speed.
"""

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from genesis_rl.training.distillation import DistillConfig, distill
from genesis_rl.training.program import run_and_report
from genesis_rl.utils.flags import parse_flags
from genesis_rl.utils.process import report_stop


@report_stop("distill.py", "add --resume to resume")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a student; return the exit status."""
    settings = tyro.conf.PositionalRequiredArgs[DistillConfig]

    def train() -> dict[str, Any]:
        return distill(parse_flags(settings, argv, __doc__))

    return run_and_report("distill.py", settings, train)


if __name__ == "__main__":
    sys.exit(main())
