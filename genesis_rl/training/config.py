"""Configs of trainings in a run directory: their common fields, and those of pretraining."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.convert import parse_options
from genesis_rl.models import GenesisConfig, GenesisSConfig, ModelConfig
from genesis_rl.models.geco import GecoConfig
from genesis_rl.utils.checks import Checked, Count, Natural, Positive, Seed, at_least


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked):
    """Settings of every training in a run directory."""

    steps: Count
    """total number of updates"""
    max_minutes: Positive | None = None
    """maximum training time in minutes, within which schedules are completed; None: unlimited"""
    batch_size: Count
    """items per update"""
    learning_rate: Positive
    """maximum learning rate"""
    device: str = "auto"
    """auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice"""
    seed: Seed = 0
    """seed of initial weights, order of the data and noise"""
    out: Path
    """run directory"""
    resume: bool = False
    """resume the run in directory out"""
    log_every: Count = 100
    """updates between log entries"""
    eval_every: Count = 1_000
    """updates between validations"""
    save_every: Count = 1_000
    """updates between checkpoints"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """log to Weights & Biases"""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Config of pretraining; defaults are the paper's (appendix B.4)."""

    model: ModelConfig = field(default_factory=GenesisConfig)
    """model class and architecture"""
    init: str | None = None
    """model whose weights initialise this one, of the same architecture (a run directory, a model
    folder or a Hub id), for curricula and fine-tuning; None: random weights"""
    reinit_modules: tuple[str, ...] = ()
    """modules that init does not initialise, such as component_decoder; their weights are random
    and may differ in shape"""
    data: str = "multi_dsprites"
    """name of a dataset, or folder of a pack"""
    data_options: str = "{}"
    """options of the dataset as JSON, e.g. '{"num_images": 20000}'"""
    background_data: str | None = None
    """folder of a pack without objects, such as a recording of the empty scene, whose median image
    is the static background; None: the median of the training images"""
    steps: Count = 500_000
    batch_size: Count = 32
    """images per update, summed over processes"""
    learning_rate: Positive = 1e-4
    """learning rate of Adam"""
    warmup_steps: Natural = 0
    """updates of linear learning rate warm-up"""
    schedule: Literal["constant", "cosine"] = "constant"
    """learning rate after the warm-up: constant, or cosine decay to 0"""
    clip_norm: Positive | None = None
    """maximum norm of the gradient; None: not clipped"""
    objective: Literal["geco", "elbo"] = "geco"
    """GECO, or the evidence lower bound with KL weight beta"""
    beta: Positive = 1.0
    """KL weight of objective "elbo", the initial one if annealed"""
    beta_end: Positive | None = None
    """final KL weight of objective "elbo", by geometric annealing; None: constant"""
    beta_anneal_fraction: Positive = 0.5
    """fraction of the training over which the KL weight is annealed"""
    trained_modules: Literal["all", "background", "objects"] = "all"
    """modules to train: all; the background alone, with pixels of objects as outliers; or, for
    "objects", all but the background, whose KL is then not part of the loss"""
    occluders: Natural = 0
    """random shapes pasted into each image when the background is trained, which is predicted
    without them: so the network learns to replace objects by what is behind them"""
    sigma_x_start: Positive | None = None
    """initial standard deviation of the components, annealed to the model's; None: constant"""
    sigma_x_anneal_fraction: Positive = 0.2
    """fraction of the training over which sigma_x is annealed"""
    likelihood_stride: Count = 1
    """stride of the rows and columns in the likelihood, at a random offset in every update: an
    unbiased estimate at a fraction of the cost; requires local masks (model.mask_decoder)"""
    prior_steps: Natural = 0
    """updates of the prior alone after the training, of the best model; they change samples, but no
    slots; requires model.posterior attention"""
    geco: GecoConfig = field(default_factory=GecoConfig)
    """config of GECO"""
    foreground_weight: Annotated[float, at_least(1)] = 1.0
    """initial weight in the loss of pixels that differ from the image's median colour, annealed to
    1"""
    foreground_anneal_fraction: Positive = 0.5
    """fraction of the training over which foreground_weight is annealed"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """precision of convolutions; weights, latents and losses are float32. "auto" is bf16 where the
    device has native support, else fp32"""
    compile: bool = False
    """compile the forward pass of training by torch.compile"""
    activation_checkpointing: bool = False
    """recompute the decoders' activations in the backward pass: a third more computation for
    several times less memory; GENESIS and GENESIS-S only"""
    seed: Seed = 0
    """seed of initial weights, order of images and noise"""
    out: Path = Path("runs/pretrain")
    eval_every: Count = 5_000
    eval_images: Count = 320
    """number of validation images"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        if self.reinit_modules and self.init is None:
            raise ValueError(
                f"reinit_modules must be empty without init, got {self.reinit_modules}."
            )
        if self.activation_checkpointing and not isinstance(self.model, GenesisSConfig):
            kind = type(self.model).__name__.removesuffix("Config")
            raise ValueError(
                "activation_checkpointing must be off unless model is GENESIS or GENESIS-S, got "
                f"{kind}."
            )
        if self.activation_checkpointing and self.compile:
            raise ValueError("activation_checkpointing must be off with compile.")
        self._check_modules()
        parse_options(self.data_options)

    @property
    def background(self) -> str:
        """The model's background: "none" also for models without that option."""
        name: str = getattr(self.model, "background", "none")
        return name

    def _check_modules(self) -> None:
        """Check the settings that depend on the model's modules."""
        background = self.background
        if self.trained_modules != "all" and background == "none":
            raise ValueError(
                "trained_modules must be 'all' for a model without background, got "
                f"{self.trained_modules!r}."
            )
        if self.trained_modules == "background" and background == "static":
            raise ValueError(
                "trained_modules must be 'all' or 'objects' with model.background='static', which "
                "has no parameters, got 'background'."
            )
        if self.occluders and self.trained_modules != "background":
            raise ValueError(
                "occluders must be 0 unless trained_modules is 'background', got "
                f"{self.occluders} with {self.trained_modules!r}."
            )
        if self.background_data is not None and background != "static":
            raise ValueError(
                "background_data must be None unless model.background is 'static', got "
                f"{self.background_data!r} with {background!r}."
            )
        if self.prior_steps and getattr(self.model, "posterior", None) != "attention":
            raise ValueError(
                f"prior_steps must be 0 without model.posterior='attention', got "
                f"{self.prior_steps}."
            )
        side, stride = self.model.image_size, self.likelihood_stride
        if side % stride:
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
            raise ValueError("compile must be off with sigma_x_start.")

    def open_data(self, split: str) -> Pack:
        """Open a split of the data and check its image size.

        Raises:
            ValueError: if the data are unknown, damaged, too few or of another image size.
        """
        pack = open_split(self.data, self.data_options, split, self.eval_images)
        self._check_size("data", pack)
        if split == "train" and len(pack) < self.batch_size:
            raise ValueError(
                f"batch_size must be at most the {len(pack)} images of data {self.data!r}, got "
                f"{self.batch_size}."
            )
        return pack

    def open_background_data(self) -> Pack | None:
        """Open the training images without objects, if there are any, and check their size.

        Raises:
            ValueError: if the pack is damaged or of another image size.
        """
        if self.background_data is None:
            return None
        pack = open_dataset(self.background_data, "train")
        self._check_size("background_data", pack)
        return pack

    def _check_size(self, name: str, pack: Pack) -> None:
        size, (height, width) = self.model.image_size, pack.images.shape[1:3]
        if (height, width) != (size, size):
            raise ValueError(
                f"{name} must have images of {size} x {size} px (model.image_size), got {height} x "
                f"{width} px in {getattr(self, name)!r}."
            )


def open_split(data: str, data_options: str, split: str, eval_images: int) -> Pack:
    """Open a split of a dataset; no more held-out images are generated than are evaluated."""
    options = parse_options(data_options)
    if split != "train" and "num_images" in options:
        options["num_images"] = min(options["num_images"], eval_images)
    return open_dataset(data, split, **options)
