"""Measure the throughput of PPO and the memory of its observations, by observation type.

    python tools/benchmark_agents.py --obs state pixels genesis=runs/encoder
    python tools/benchmark_agents.py --obs pixels genesis=runs/encoder --n-envs 32 --out speed.json

Prints, for each number of environments, the shares of environments, encoder, acting and updating in
the time, and the bytes of an observation in rollout and replay buffers; writes JSON.
"""

import sys
from collections.abc import Sequence

from benchmarks.agents import SpeedConfig, measure
from genesis_rl.utils.files import write_json
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop
from genesis_rl.utils.tables import as_text


@report_stop("benchmark_agents.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    try:
        config = parse_flags(SpeedConfig, argv, __doc__)
        result = measure(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("benchmark_agents.py", error, SpeedConfig)
        return 2
    print(result["hardware"])
    print(as_text(result["tables"]))
    if config.out is not None:
        write_json(config.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
