"""Measure where the time of a PPO run goes, and what observations weigh, by what agents see.

    python agents/benchmark.py --obs state pixels genesis=runs/eyes
    python agents/benchmark.py --obs pixels genesis=runs/eyes --num-envs 32 --out speed.json

Prints the shares of environments, encoder, acting and updating at each number of environments, and
the bytes of an observation in rollout and replay buffers; writes JSON.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.agents.benchmark import SpeedConfig, measure
from genesis_rl.files import write_json
from genesis_rl.process import report_stop
from genesis_rl.text_tables import as_text


@report_stop("benchmark.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return the exit status."""
    try:
        config = tyro.cli(SpeedConfig, args=argv, description=__doc__)
        result = measure(config)
    except (ValueError, TypeError, OSError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    print(result["hardware"])
    print(as_text(result["tables"]))
    if config.out is not None:
        write_json(config.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
