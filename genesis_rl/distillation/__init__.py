"""Distillation: a small network that sees what a pretrained scene model sees, many times faster."""

from genesis_rl.distillation.config import DistillConfig
from genesis_rl.distillation.program import distill

__all__ = ["DistillConfig", "distill"]
