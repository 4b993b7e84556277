"""Diagnose a pretraining run: report problems of its log and model, and flags to change.

    python pretrain/doctor.py runs/small
    python pretrain/doctor.py runs/small --which last --images 1000
    python pretrain/doctor.py runs/small --json

Reads the run's log and evaluates its model on held-out images. The exit status is 0 without errors
and warnings, 1 with some, and 2 if the run or its data cannot be read.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.evaluation.diagnostics import DoctorConfig, diagnose
from genesis_rl.utils.files import json_text
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("doctor.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Diagnose a run; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[DoctorConfig]
        config = parse_flags(settings, argv, __doc__)
        diagnosis = diagnose(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("doctor.py", error, settings)
        return 2
    print(json_text(diagnosis.as_json(), indent=2) if config.json else diagnosis)
    return 0 if diagnosis.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
