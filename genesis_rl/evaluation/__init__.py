"""Evaluation of pretrained models: scores on one split, averaged over seeds, as JSON and tables."""

from genesis_rl.evaluation.candidates import (
    Candidate,
    check_one_data_set,
    open_candidate,
    open_data,
    open_split,
    training_facts,
)
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
    "Candidate",
    "EvaluateConfig",
    "baseline_columns",
    "check_one_data_set",
    "evaluate",
    "format_score",
    "group",
    "group_title",
    "open_candidate",
    "open_data",
    "open_split",
    "tables",
    "training_facts",
]
