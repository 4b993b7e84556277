"""Distillation of a pretrained encoder into a small, fast student."""

from genesis_rl.training.distillation.config import DistillConfig
from genesis_rl.training.distillation.program import distill

__all__ = ["DistillConfig", "distill"]
