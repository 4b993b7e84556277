"""Distillation of a pretrained encoder into a small, fast student."""

from genesis_rl.distillation.config import DistillConfig
from genesis_rl.distillation.program import distill

__all__ = ["DistillConfig", "distill"]
