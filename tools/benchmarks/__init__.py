"""Benchmarks of training, encoding and sampling, relative to the machine's own speed."""

from benchmarks.config import BenchmarkConfig
from benchmarks.parts import measure_parts, parts_tables
from benchmarks.scaling import measure_scaling, scaling_tables
from benchmarks.speed import run

__all__ = [
    "BenchmarkConfig",
    "measure_parts",
    "measure_scaling",
    "parts_tables",
    "run",
    "scaling_tables",
]
