"""Distil a pretrained encoder into a student of about ten MFLOP per frame.

    python pretrain/distill.py runs/encoder --out runs/student
    python pretrain/distill.py runs/encoder --data data/cars --out runs/student
    python pretrain/distill.py runs/encoder --out runs/student --resume

The teacher encodes its training images (or --data) once; the student is trained to predict its
posterior means and masks. The run directory is a valid encoder for wrappers, agents and world
models. report.json contains the student's fidelity and speed.
"""

import sys

import tyro

from genesis_rl.training import NonFiniteError
from genesis_rl.training.distillation import DistillConfig, distill
from genesis_rl.utils.flags import program
from genesis_rl.utils.tables import as_text


@program(
    "distill.py",
    tyro.conf.PositionalRequiredArgs[DistillConfig],
    __doc__,
    advice="add --resume to resume",
    failures=(NonFiniteError,),
)
def main(config: DistillConfig) -> int:
    """Train a student; return the exit status."""
    report = distill(config)
    print(as_text(report["tables"]))
    print(report["settings"]["out"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
