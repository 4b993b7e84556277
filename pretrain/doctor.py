"""Diagnose a pretraining run: report problems of its log and model, and flags to change.

    python pretrain/doctor.py runs/small
    python pretrain/doctor.py runs/small --which last --images 1000
    python pretrain/doctor.py runs/small --json

Reads the run's log and evaluates its model on held-out images. The exit status is 0 without errors
and warnings, 1 with some, and 2 if the run or its data cannot be read.
"""

import sys

import tyro

from genesis_rl.evaluation.diagnostics import DoctorConfig, diagnose
from genesis_rl.utils.files import json_text
from genesis_rl.utils.flags import program


@program("doctor.py", tyro.conf.PositionalRequiredArgs[DoctorConfig], __doc__)
def main(config: DoctorConfig) -> int:
    """Diagnose a run; return the exit status."""
    diagnosis = diagnose(config)
    print(json_text(diagnosis.as_json(), indent=2) if config.json else diagnosis)
    return 0 if diagnosis.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
