"""Imagined rollouts of a world model, in batches.

PyTorch only; `genesis_rl.envs.imagination.env` has the environments.
"""

from genesis_rl.envs.imagination.scenes import ImaginationOptions, ImaginedScenes, ImaginedStep

__all__ = ["ImaginationOptions", "ImaginedScenes", "ImaginedStep"]
