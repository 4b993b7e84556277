"""Training of agents in imagination, and their evaluation in the real environment."""

from genesis_rl.agents.imagination.config import ImaginationConfig
from genesis_rl.agents.imagination.experiment import compare
from genesis_rl.agents.imagination.trainer import ImaginationTrainer

__all__ = ["ImaginationConfig", "ImaginationTrainer", "compare"]
