"""Settings of a world model's training."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genesis_rl.slots import ALIGN, MASK_GEOMETRY
from genesis_rl.utils.checks import Count, NonNegative, Positive, Seed, check_fields
from genesis_rl.world_model.model import WorldModelConfig


@dataclass(frozen=True)
class WorldTrainConfig:
    """Settings of a world model's training."""

    encoder: str
    """frozen encoder: run directory of pretrain/train.py, folder of a pretrained model or Hub id"""
    data: Path
    """folder of a recording (envs/collect.py)"""
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    """architecture of the world model"""
    mask_geometry: bool = MASK_GEOMETRY
    """append each slot's mask centroid and area to its features, as for agents by default"""
    align: bool = ALIGN
    """keep every object in its slot within an episode"""
    baseline: Literal["none", "mlp"] = "none"
    """also train a baseline for comparison: mlp, an MLP over all concatenated latents"""
    steps: Count = 6_000
    """updates"""
    max_minutes: Positive | None = None
    """time limit, over which the learning rate is then scheduled"""
    batch_size: Count = 32
    """windows per update"""
    horizon: Count = 5
    """steps of the training rollouts on the model's own predictions"""
    learning_rate: Positive = 3e-3
    """maximum learning rate of AdamW, with a warm-up of 100 updates and a cosine schedule to 0"""
    weight_decay: NonNegative = 1e-4
    """weight decay of AdamW"""
    clip_norm: Positive = 1.0
    """maximum gradient norm"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's default"""
    seed: Seed = 0
    """seed of initial weights, batches and the data of ensemble heads"""
    out: Path = Path("runs/world")
    """run directory"""
    resume: bool = False
    """resume the run in out"""
    cache: Path | None = None
    """folder of encoded recordings; None: slots in the folder of generated datasets"""
    log_every: Count = 100
    """updates between log entries"""
    eval_every: Count = 500
    """updates between validations with images"""
    eval_windows: Count = 512
    """windows per validation"""
    save_every: Count = 500
    """updates between checkpoints"""
    report_horizon: Count = 20
    """steps of the report's rollouts"""
    report_windows: Count = 512
    """maximum number of windows of the report"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """log to Weights & Biases"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if self.baseline == "mlp" and self.model.trunk == "mlp":
            raise ValueError("baseline must be 'none' for model.trunk 'mlp', got 'mlp'.")
