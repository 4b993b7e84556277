"""Measure training, encoding and loading speed; print tables and write JSON.

    python tools/benchmark.py
    python tools/benchmark.py --model.num-slots 9 --no-compile --out speed.json
    python tools/benchmark.py --parts --scaling

Every rate is also given per TFLOP/s of the machine's float32 matrix product, and relative to the
machine's convolution.
"""

import sys
from collections.abc import Sequence

import tyro

from benchmarks import (
    BenchmarkConfig,
    measure_parts,
    measure_scaling,
    parts_tables,
    run,
    scaling_tables,
)
from genesis_rl.utils.files import write_json
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop
from genesis_rl.utils.tables import as_text


@report_stop("benchmark.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure speed; return the exit status."""
    try:
        config = parse_flags(
            tyro.conf.AvoidSubcommands[BenchmarkConfig], argv, __doc__, default=BenchmarkConfig()
        )
        result = run(config)
        print(as_text(result["tables"]))
        for enabled, name, measure, make_tables in (
            (config.parts, "parts", measure_parts, parts_tables),
            (config.scaling, "scaling", measure_scaling, scaling_tables),
        ):
            if enabled:
                result[name] = measure(config)
                tables = make_tables(result[name])
                result["tables"] += tables
                print(f"\n{as_text(tables)}")
        if config.out is not None:
            write_json(config.out, result)
    except (ValueError, OSError) as error:
        report_error("benchmark.py", error, BenchmarkConfig)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
