"""Pretrain an encoder, train agents on slots and on pixels, and write a report (`make demo`).

    python tools/demo.py
    python tools/demo.py --agent-steps 200000 --agent-minutes 20 --out runs/longer
    python tools/demo.py --encoder sprites-fast --agent-steps 300000 --agent-minutes 4

The first takes six and a half minutes on two CPU cores.
"""

import sys

from demonstration.demo import DemoConfig, run
from genesis_rl.utils.flags import program


@program("demo.py", DemoConfig, __doc__, errors=(ValueError, OSError))
def main(config: DemoConfig) -> int:
    """Run the demonstration; return the exit status."""
    print(f"report: {run(config).resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
