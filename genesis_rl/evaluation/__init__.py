"""Evaluation of pretraining runs: every score on one split, over seeds, as tables and JSON."""

from genesis_rl.evaluation.runs import EvaluateConfig, evaluate, group
from genesis_rl.evaluation.tables import tables

__all__ = ["EvaluateConfig", "evaluate", "group", "tables"]
