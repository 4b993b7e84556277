"""Settings of a world model's training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genesis_rl.checks import check_integers, check_limits
from genesis_rl.world_model.model import WorldModelConfig

_POSITIVE = (
    "steps",
    "batch_size",
    "horizon",
    "log_every",
    "eval_every",
    "eval_windows",
    "save_every",
    "report_horizon",
    "report_windows",
)


@dataclass(frozen=True)
class WorldTrainConfig:
    """What to train a world model on, and how."""

    encoder: str
    """the frozen scene model: a run of pretrain/train.py, a folder of a saved model, a Hub id"""
    data: Path
    """folder of a recording by envs/collect.py"""
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    """the model's shape"""
    mask_geometry: bool = True
    """slots end with their masks' centroid and area, as agents see them by default"""
    align: bool = True
    """keep every object in its slot within an episode"""
    baseline: Literal["none", "mlp"] = "none"
    """also train a network without slots, an MLP over all latents in a row, to compare with"""
    steps: int = 6_000
    """updates in all"""
    max_minutes: float | None = None
    """end after this time even if steps remain; the schedule then runs over the time"""
    batch_size: int = 32
    """windows per update"""
    horizon: int = 5
    """steps that the model is unrolled on its own predictions"""
    learning_rate: float = 3e-3
    """Adam's largest step size; it rises over the first 100 updates and falls to 0 at the end"""
    weight_decay: float = 1e-4
    """of AdamW"""
    clip_norm: float = 1.0
    """largest norm of the whole gradient"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    seed: int = 0
    """of initial weights, order of windows and the ensemble's shares"""
    out: Path = Path("runs/world")
    """the run's folder"""
    resume: bool = False
    """go on with the run in that folder"""
    cache: Path | None = None
    """folder where encoded recordings are kept; None: slots in that of the generated data sets"""
    log_every: int = 100
    """updates between lines in the log"""
    eval_every: int = 500
    """updates between validations with pictures"""
    eval_windows: int = 512
    """validation windows scored"""
    save_every: int = 500
    """updates between checkpoints"""
    report_horizon: int = 20
    """steps of the report's rollouts"""
    report_windows: int = 512
    """windows of the report at most"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """report to Weights & Biases"""

    def __post_init__(self) -> None:
        """Check values."""
        check_integers(self, 1, *_POSITIVE)
        check_limits(self)
        if self.baseline not in ("none", "mlp"):
            raise ValueError(f"baseline is {self.baseline!r}; wanted 'none' or 'mlp'.")
        if self.baseline == "mlp" and self.model.trunk == "mlp":
            raise ValueError("baseline is the MLP, and so is model.trunk; wanted two models.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; wanted 0 to 2**63 - 1.")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value > 0.")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; wanted a value >= 0.")
        for name in ("max_minutes", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; wanted a value > 0.")
