"""Measure the throughput of PPO and the memory of its observations, by observation type.

    python tools/benchmark_agents.py --obs state pixels genesis=runs/encoder
    python tools/benchmark_agents.py --obs pixels genesis=runs/encoder --n-envs 32 --out speed.json

Prints, for each number of environments, the shares of environments, encoder, acting and updating in
the time, and the bytes of an observation in rollout and replay buffers; writes JSON.
"""

import sys

from benchmarks.agents import SpeedConfig, measure
from genesis_rl.utils.files import write_json
from genesis_rl.utils.flags import program
from genesis_rl.utils.tables import as_text


@program("benchmark_agents.py", SpeedConfig, __doc__)
def main(config: SpeedConfig) -> int:
    """Run the benchmark; return the exit status."""
    result = measure(config)
    print(result["hardware"])
    print(as_text(result["tables"]))
    if config.out is not None:
        write_json(config.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
