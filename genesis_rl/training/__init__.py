"""Training loop with checkpoints, logging and resumption, and pretraining of scene models."""

from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import Run
from genesis_rl.training.loop import NonFiniteError, State, Task, Training
from genesis_rl.training.parallel import LostProcessError
from genesis_rl.training.pretraining import Trainer, train_terms

__all__ = [
    "LostProcessError",
    "NonFiniteError",
    "PretrainConfig",
    "Run",
    "State",
    "Task",
    "Trainer",
    "Training",
    "train_terms",
]
