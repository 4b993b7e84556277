"""Settings of a distillation."""

from dataclasses import dataclass
from pathlib import Path

from genesis_rl.data.convert import parse_options
from genesis_rl.utils.checks import Count, Natural, Positive, Seed, check_fields


@dataclass(frozen=True)
class DistillConfig:
    """Settings of a distillation."""

    teacher: str
    """teacher: a run directory of pretrain/train.py, a folder of a pretrained model, or a Hub id"""
    data: str | None = None
    """name of a dataset or folder of a pack; None: the training data of the teacher's run"""
    data_options: str = "{}"
    """options of the dataset as JSON"""
    num_images: Count = 50_000
    """largest number of training images; the teacher encodes each once before the training"""
    refine_steps: Natural = 0
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
    mask_weight: Positive = 1.0
    """weight of the masks in the loss; the latents have weight 1"""
    steps: Count = 20_000
    """number of updates"""
    max_minutes: Positive | None = None
    """time limit of the training; the learning-rate schedule then depends on time"""
    batch_size: Count = 64
    """images per update"""
    learning_rate: Positive = 2e-3
    """peak learning rate of Adam; warm-up over 100 updates, decay to 0 at the end"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's default"""
    seed: Seed = 0
    """seed of the initial weights and the order of images"""
    out: Path = Path("runs/student")
    """run directory"""
    resume: bool = False
    """resume the run in that directory"""
    log_every: Count = 200
    """updates between log rows"""
    eval_every: Count = 1_000
    """updates between validations"""
    eval_images: Count = 1_000
    """number of held-out images"""
    save_every: Count = 1_000
    """updates between checkpoints"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """report to Weights & Biases"""

    def __post_init__(self) -> None:
        """Validate values."""
        check_fields(self)
        parse_options(self.data_options)
