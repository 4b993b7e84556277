"""Measure training, encoding and loading speed; print a table and write JSON.

    python pretrain/benchmark.py
    python pretrain/benchmark.py --model.num-slots 9 --no-compile --out speed.json

Every rate is also given per TFLOP/s of the machine's own float32 matrix product, beside the
authors' code on that scale.
"""

import json
import sys
from collections.abc import Sequence

import tyro

from genesis_rl.benchmark import BenchmarkConfig, run, table
from genesis_rl.files import new_file


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return the exit status."""
    try:
        config = tyro.cli(
            tyro.conf.AvoidSubcommands[BenchmarkConfig],
            default=BenchmarkConfig(),
            args=argv,
            description=__doc__,
        )
        result = run(config)
    except ValueError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    print(table(result))
    if config.out is not None:
        with new_file(config.out) as temporary:
            temporary.write_text(json.dumps(result, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
