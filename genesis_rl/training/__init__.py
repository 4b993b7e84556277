"""Pretraining: settings, one update, validation, and the loop that saves, resumes and reports."""

from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.loop import NonFiniteError, Trainer, train_terms
from genesis_rl.training.run import Run

__all__ = ["NonFiniteError", "PretrainConfig", "Run", "Trainer", "train_terms"]
