"""Imagination: scenes of the model's own that a world model sets in motion, many at once.

PyTorch only; the environments over it are in `genesis_rl.envs.imagination`.
"""

from genesis_rl.imagination.dream import Dream, DreamStep
from genesis_rl.imagination.options import DreamOptions

__all__ = ["Dream", "DreamOptions", "DreamStep"]
