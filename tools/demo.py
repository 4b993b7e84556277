"""Pretrain an encoder, train agents on slots and on pixels, and write a report (`make demo`).

    python tools/demo.py
    python tools/demo.py --agent-steps 200000 --agent-minutes 20 --out runs/longer
    python tools/demo.py --encoder sprites-fast --agent-steps 300000 --agent-minutes 4

The first takes six and a half minutes on two CPU cores.
"""

import sys
from collections.abc import Sequence

from demonstration.demo import DemoConfig, run
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("demo.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    try:
        report = run(parse_flags(DemoConfig, argv, __doc__))
    except (ValueError, OSError) as error:
        report_error("demo.py", error, DemoConfig)
        return 2
    print(f"report: {report.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
