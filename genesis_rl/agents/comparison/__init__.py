"""Comparison of agents: a grid of runs, their summary and the published results."""

from genesis_rl.agents.comparison.grid import (
    CompareConfig,
    GridRun,
    grid_runs,
    read_included,
    read_record,
    train_all,
)
from genesis_rl.agents.comparison.summary import (
    PUBLISHED,
    PublishedResults,
    bootstrap_interval,
    iqm,
    summarise,
    write_summary,
)

__all__ = [
    "PUBLISHED",
    "CompareConfig",
    "GridRun",
    "PublishedResults",
    "bootstrap_interval",
    "grid_runs",
    "iqm",
    "read_included",
    "read_record",
    "summarise",
    "train_all",
    "write_summary",
]
