"""Settings of a distillation."""

from dataclasses import dataclass
from pathlib import Path

from genesis_rl.checks import check_integers, check_limits
from genesis_rl.data.originals import parse_options

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
    """Whose slots to learn, on which images, and how."""

    teacher: str
    """the model to learn from: a run of pretrain/train.py, a folder of a saved model, a Hub id"""
    data: str | None = None
    """name of a dataset, or the folder of a pack; None: what the teacher's run was trained on"""
    data_options: str = "{}"
    """options of the dataset as JSON"""
    num_images: int = 50_000
    """images to learn from at most; the teacher sees each once, before the training"""
    refine_steps: int = 0
    """gradient steps on the teacher's latents of each image, before the student learns them: what
    it learns is then better than what the teacher's encoder gives"""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """channels of the student's 3x3 convolutions"""
    halvings: int = 3
    """how many of these, the first ones, have stride 2; with 2 the student costs three to four
    times as much and sees what is half as large"""
    context_size: int = 128
    """width of what every place is told of the whole image"""
    slot_size: int = 128
    """units of the hidden layer that makes each slot's latents"""
    mask_weight: float = 1.0
    """weight of the masks in the loss, beside the latents' 1"""
    steps: int = 20_000
    """updates in all"""
    max_minutes: float | None = None
    """end after this time even if steps remain; the schedule then runs over the time"""
    batch_size: int = 64
    """images per update"""
    learning_rate: float = 2e-3
    """Adam's largest step size; it rises over the first 100 updates and falls to 0 at the end"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    seed: int = 0
    """of initial weights and the order of images"""
    out: Path = Path("runs/student")
    """the run's folder"""
    resume: bool = False
    """go on with the run in that folder"""
    log_every: int = 200
    """updates between lines in the log"""
    eval_every: int = 1_000
    """updates between validations"""
    eval_images: int = 1_000
    """held-out images scored"""
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
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value > 0.")
        for name in ("max_minutes", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; wanted a value > 0.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; wanted 0 to 2**63 - 1.")
        parse_options(self.data_options)
