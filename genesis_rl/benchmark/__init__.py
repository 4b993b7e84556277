"""Benchmarks of training, encoding and sampling, relative to the machine's own speed."""

from genesis_rl.benchmark.config import BenchmarkConfig
from genesis_rl.benchmark.parts import measure_parts, parts_tables
from genesis_rl.benchmark.scaling import measure_scaling, scaling_tables
from genesis_rl.benchmark.speed import run

__all__ = [
    "BenchmarkConfig",
    "measure_parts",
    "measure_scaling",
    "parts_tables",
    "run",
    "scaling_tables",
]
