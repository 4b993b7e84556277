"""Imagined rollouts of a world model, in batches.

PyTorch only; `genesis_rl.envs.imagination.env` has the environments.
"""

from genesis_rl.envs.imagination.options import ImaginationOptions
from genesis_rl.envs.imagination.scenes import ImaginedScenes, ImaginedStep

__all__ = ["ImaginationOptions", "ImaginedScenes", "ImaginedStep"]
