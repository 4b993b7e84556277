"""Comparing agents: a grid of runs, what they are summed up to, and the published table."""

from genesis_rl.agents.comparison.aggregate import bootstrap_interval, iqm
from genesis_rl.agents.comparison.grid import (
    CompareConfig,
    Run,
    read_others,
    read_record,
    runs,
    train_all,
)
from genesis_rl.agents.comparison.published import PUBLISHED, Published
from genesis_rl.agents.comparison.summary import summarise, write_summary

__all__ = [
    "PUBLISHED",
    "CompareConfig",
    "Published",
    "Run",
    "bootstrap_interval",
    "iqm",
    "read_others",
    "read_record",
    "runs",
    "summarise",
    "train_all",
    "write_summary",
]
