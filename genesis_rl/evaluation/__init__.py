"""Evaluation of pretraining runs: every score on one split, over seeds, as tables and JSON."""

from genesis_rl.evaluation.runs import EvaluateConfig, evaluate, group
from genesis_rl.evaluation.tables import (
    SECTIONS,
    baseline_columns,
    format_score,
    group_title,
    tables,
)

__all__ = [
    "SECTIONS",
    "EvaluateConfig",
    "baseline_columns",
    "evaluate",
    "format_score",
    "group",
    "group_title",
    "tables",
]
