"""Say what is wrong with a pretraining: why slots do not bind, and which flag to change.

    python pretrain/doctor.py runs/small
    python pretrain/doctor.py runs/small --which last --images 1000
    python pretrain/doctor.py runs/small --json

Reads the run's log and looks at its model on held-out images. The exit status is 0 if there is
neither an error nor a warning, 1 if there is, and 2 if there is nothing to examine.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.doctor import DoctorConfig, examine
from genesis_rl.files import json_text
from genesis_rl.process import report_stop


@report_stop("doctor.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Examine a run; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[DoctorConfig]
        config = tyro.cli(settings, args=argv, description=__doc__)
        diagnosis = examine(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"doctor.py: {error}", file=sys.stderr)
        return 2
    print(json_text(diagnosis.as_json(), indent=2) if config.json else diagnosis)
    return 0 if diagnosis.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
