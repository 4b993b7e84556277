"""Settings of a distillation."""

from dataclasses import dataclass
from pathlib import Path

from genesis_rl.data.originals import parse_options
from genesis_rl.utils.checks import check_integers, check_limits

_POSITIVE = (
    "num_images",
    "steps",
    "batch_size",
    "log_every",
    "eval_every",
    "eval_images",
    "save_every",
)


@dataclass(frozen=True)
class DistillConfig:
    """Settings of a distillation."""

    teacher: str
    """teacher: a run directory of pretrain/train.py, a folder of a pretrained model, or a Hub id"""
    data: str | None = None
    """name of a dataset or folder of a pack; None: the training data of the teacher's run"""
    data_options: str = "{}"
    """options of the dataset as JSON"""
    num_images: int = 50_000
    """largest number of training images; the teacher encodes each once before the training"""
    refine_steps: int = 0
    """refinement steps on the teacher's latents before the training"""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """channels of the student's 3x3 convolutions"""
    halvings: int = 3
    """number of these, the first ones, with stride 2; 2 doubles the resolution of the masks and
    costs three to four times as much"""
    context_size: int = 128
    """width of the global context vector at every position"""
    slot_size: int = 128
    """hidden units of the head of each slot's latents"""
    mask_weight: float = 1.0
    """weight of the masks in the loss; the latents have weight 1"""
    steps: int = 20_000
    """number of updates"""
    max_minutes: float | None = None
    """time limit of the training; the learning-rate schedule then depends on time"""
    batch_size: int = 64
    """images per update"""
    learning_rate: float = 2e-3
    """peak learning rate of Adam; warm-up over 100 updates, decay to 0 at the end"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's default"""
    seed: int = 0
    """seed of the initial weights and the order of images"""
    out: Path = Path("runs/student")
    """run directory"""
    resume: bool = False
    """resume the run in that directory"""
    log_every: int = 200
    """updates between log rows"""
    eval_every: int = 1_000
    """updates between validations"""
    eval_images: int = 1_000
    """number of held-out images"""
    save_every: int = 1_000
    """updates between checkpoints"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """report to Weights & Biases"""

    def __post_init__(self) -> None:
        """Validate values."""
        check_integers(self, 1, *_POSITIVE)
        check_integers(self, 0, "refine_steps")
        check_limits(self)
        for name in ("learning_rate", "mask_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("max_minutes", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in 0..2**63 - 1, got {self.seed}.")
        parse_options(self.data_options)
