"""Measure training, encoding and loading speed; print tables and write JSON.

    python tools/benchmark.py
    python tools/benchmark.py --model.num-slots 9 --no-compile --out speed.json
    python tools/benchmark.py --parts --scaling

Every rate is also given per TFLOP/s of the machine's float32 matrix product, and relative to the
machine's convolution.
"""

import sys

import tyro

from benchmarks.harness import BenchmarkConfig
from benchmarks.models import measure_parts, measure_rates, measure_scaling
from genesis_rl.utils.files import write_json
from genesis_rl.utils.flags import program
from genesis_rl.utils.tables import as_text


@program(
    "benchmark.py",
    tyro.conf.AvoidSubcommands[BenchmarkConfig],
    __doc__,
    errors=(ValueError, OSError),
)
def main(config: BenchmarkConfig) -> int:
    """Measure speed; return the exit status."""
    result, tables = measure_rates(config)
    print(as_text(tables))
    for enabled, name, measure in (
        (config.parts, "parts", measure_parts),
        (config.scaling, "scaling", measure_scaling),
    ):
        if enabled:
            result[name], more = measure(config)
            tables += more
            print(f"\n{as_text(more)}")
    if config.out is not None:
        write_json(config.out, {"tables": tables, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
