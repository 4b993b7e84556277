"""Settings of a pretraining."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genesis_rl.checks import check_integers, check_limits
from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.originals import parse_options
from genesis_rl.geco import GecoConfig
from genesis_rl.models import GenesisConfig, GenesisSConfig, ModelConfig

_COUNTS = ("steps", "batch_size", "log_every", "eval_every", "eval_images", "save_every")
_CHOICES = {
    "schedule": ("constant", "cosine"),
    "objective": ("geco", "elbo"),
    "precision": ("auto", "bf16", "fp32"),
    "trains": ("all", "background", "objects"),
}


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of a pretraining; defaults are the paper's (appendix B.4)."""

    model: ModelConfig = field(default_factory=GenesisConfig)
    """the model and its shape"""
    init: str | None = None
    """start from the weights of this model, of the same shape (a run, a folder, a Hub id), instead
    of fresh ones: for a curriculum, or to go on with frames of one's own"""
    fresh: tuple[str, ...] = ()
    """parts of the model that start fresh in spite of init, and so may be of another shape, such as
    component_decoder"""
    data: str = "multi_dsprites"
    """name of a data set, or the folder of a pack"""
    data_options: str = "{}"
    """options of the data set as JSON, e.g. '{"num_images": 20000}'"""
    steps: int = 500_000
    """updates in all"""
    max_minutes: float | None = None
    """end after this time even if steps remain; schedules then run over the time"""
    batch_size: int = 32
    """images per update, over all processes together"""
    learning_rate: float = 1e-4
    """Adam's step size"""
    warmup_steps: int = 0
    """updates over which the learning rate rises to its value"""
    schedule: Literal["constant", "cosine"] = "constant"
    """learning rate after the warm-up: kept, or falling to 0 at the end"""
    clip_norm: float | None = None
    """largest norm of the whole gradient; None: not clipped"""
    objective: Literal["geco", "elbo"] = "geco"
    """GECO, or the evidence lower bound with a weight of the KL that is set by hand"""
    beta: float = 1.0
    """weight of the KL under "elbo", at the start"""
    beta_end: float | None = None
    """weight of the KL under "elbo" from beta_until on, reached geometrically; None: stays"""
    beta_until: float = 0.5
    """share of the training over which the weight of the KL moves"""
    trains: Literal["all", "background", "objects"] = "all"
    """the whole model, its background alone with the pixels of objects as outliers, or everything
    but the background, whose KL then does not count"""
    sigma_x_start: float | None = None
    """standard deviation of the components at the start, which moves to that of the model; None:
    that of the model throughout"""
    sigma_x_fraction: float = 0.2
    """share of the training over which it moves"""
    likelihood_stride: int = 1
    """score every n-th row and column of an image, at a random offset in every update: an unbiased
    estimate at a fraction of the cost; needs local masks"""
    geco: GecoConfig = field(default_factory=GecoConfig)
    """GECO's goal and speed"""
    foreground_weight: float = 1.0
    """weight in the loss of pixels that differ from the image's median colour; falls to 1"""
    foreground_until: float = 0.5
    """share of the training after which the foreground's weight has fallen to 1"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """arithmetic of convolutions; weights, latents and losses are float32 in any. auto: bf16 where
    the GPU or the CPU computes in it, which others do far more slowly than in fp32"""
    compile: bool = False
    """compile the training pass with torch.compile"""
    recompute: bool = False
    """compute the decoders' activations again for the gradient instead of keeping them: a third
    more work, several times less memory, for many slots and large images; GENESIS and GENESIS-S"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    seed: int = 0
    """of initial weights, order of images and noise"""
    out: Path = Path("runs/pretrain")
    """the run's folder"""
    resume: bool = False
    """go on with the run in that folder"""
    log_every: int = 100
    """updates between lines in the log"""
    eval_every: int = 5_000
    """updates between validations with pictures"""
    eval_images: int = 320
    """validation images scored"""
    save_every: int = 1_000
    """updates between checkpoints"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """report to Weights & Biases"""

    def __post_init__(self) -> None:
        """Check values."""
        check_integers(self, 1, *_COUNTS)
        check_limits(self)
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; wanted at least 0.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; wanted 0 to 2**63 - 1.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; wanted {' or '.join(map(repr, choices))}."
                )
        for name in ("learning_rate", "foreground_until", "beta", "beta_until", "sigma_x_fraction"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value > 0.")
        for name in ("max_minutes", "clip_norm", "threads", "beta_end", "sigma_x_start"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; wanted a value > 0.")
        if not self.foreground_weight >= 1:
            raise ValueError(f"foreground_weight is {self.foreground_weight}; wanted at least 1.")
        if self.fresh and self.init is None:
            raise ValueError(f"fresh is {self.fresh}, but init is None; wanted both or neither.")
        if self.recompute and not isinstance(self.model, GenesisSConfig):
            kind = type(self.model).__name__.removesuffix("Config")
            raise ValueError(f"recompute is set, but model is a {kind}; wanted a GENESIS or none.")
        if self.recompute and self.compile:
            raise ValueError("recompute and compile are both set; wanted one of them.")
        self._check_parts()
        parse_options(self.data_options)

    def _check_parts(self) -> None:
        """Check what the training does to parts of the model against the model."""
        background = getattr(self.model, "background", "none")
        if self.trains != "all" and background == "none":
            raise ValueError(
                f"trains must be 'all' for a model without background, got {self.trains!r}."
            )
        if self.trains == "background" and background == "static":
            raise ValueError(
                "trains must be 'all' or 'objects' with model.background='static', which is the "
                "median of the frames and not trained, got 'background'."
            )
        side, stride = self.model.image_size, self.likelihood_stride
        if stride < 1 or side % stride:
            raise ValueError(
                f"likelihood_stride must be a divisor of the image size {side}, got {stride}."
            )
        if stride > 1 and getattr(self.model, "mask_decoder", None) != "local":
            raise ValueError(
                f"likelihood_stride must be 1 without model.mask_decoder='local', got {stride}."
            )
        if stride > 1 and self.foreground_weight > 1 and self.compile:
            raise ValueError("compile must be off with likelihood_stride above 1.")
        if self.compile and self.sigma_x_start is not None:
            raise ValueError("compile must be off with sigma_x_start, which would compile anew.")

    def open_data(self, split: str) -> Pack:
        """Open a split of the data and check that the model can take it.

        Raises:
            ValueError: if the data are unknown, broken, too few or of another size.
        """
        options = parse_options(self.data_options)
        if split != "train" and "num_images" in options:
            # Of what is generated on demand, no more is held out than is scored.
            options["num_images"] = min(options["num_images"], self.eval_images)
        pack = open_dataset(self.data, split, **options)
        height, width = pack.images.shape[1:3]
        if (height, width) != (self.model.image_size, self.model.image_size):
            raise ValueError(
                f"data {self.data!r} has images of {height} x {width} px; the model takes "
                f"{self.model.image_size} x {self.model.image_size} (model.image_size)."
            )
        if split == "train" and len(pack) < self.batch_size:
            raise ValueError(
                f"data {self.data!r} has {len(pack)} images; batch_size is {self.batch_size}."
            )
        return pack
