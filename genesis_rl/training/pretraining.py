"""Pretraining of scene models: updates, schedules and validation."""

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from genesis_rl.checkpoints.loading import CONFIG, load_pretrained, load_weights
from genesis_rl.data import Pack
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.models import GenesisSConfig, build_model
from genesis_rl.models.geco import Geco
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.slots import ElboTerms
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import RunFolder
from genesis_rl.training.loop import (
    State,
    Task,
    Training,
    Validation,
    noise_key,
    set_learning_rate,
)
from genesis_rl.training.parallel import AcceleratedProcesses, Processes, synchronised
from genesis_rl.training.prior import fit_prior, infer_posteriors
from genesis_rl.training.validate import pictures, validate
from genesis_rl.utils.extras import require
from genesis_rl.utils.files import read_json
from genesis_rl.utils.process import configure_cpu, has_bfloat16, pick_device

# Images that initialise a background.
_SAMPLE_IMAGES = 1500
# Share of the mean image's squared error below which something is reconstructed, and the update
# from which a training is expected to get there.
_LEARNT_SHARE, _LEARNT_STEP = 0.95, 300
# Entry of config.json that says that the prior has been fitted.
_PRIOR_STEPS = "prior_steps"
# Expected training time on a CPU above which to print a notice.
_LONG_HOURS = 2.0


def train_terms(
    model: Callable[..., ElboTerms],
    images: Tensor,
    generator: torch.Generator,
    foreground_weight: float = 1.0,
    first_slot: int = 0,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute batch means of nll, kl_m and kl_c in nats per image.

    Args:
        model: the model, called as its ``elbo``.
        images: (B, 3, H, W), float in [0, 1].
        generator: random generator of the posterior's noise.
        foreground_weight: weight of pixels that differ from the image's median colour, >= 1.
        first_slot: index of the first slot whose KL is included.
        **options: further arguments of the model, such as ``share``.
    """
    weight = None
    if foreground_weight > 1:
        background = images.flatten(2).median(-1).values[:, :, None, None]
        foreground = (images - background).abs().amax(1, keepdim=True) > 0.1
        weight = 1 + (foreground_weight - 1) * foreground.float()
    terms = model(images, generator=generator, pixel_weight=weight, **options)
    kl_m, kl_c = terms.kl_m[:, first_slot:], terms.kl_c[:, first_slot:]
    return terms.nll.mean(), kl_m.sum(1).mean(), kl_c.sum(1).mean()


def _load_initial_model(source: str) -> Any:
    """Load the model whose weights initialise a training.

    Raises:
        ValueError: if it cannot be loaded.
    """
    path = Path(source)
    if path.parts[0] == "runs" and not path.exists():  # presets' run directories, not a Hub id
        raise ValueError(
            f"init must be an existing run, got {source}. Train it first (--preset NAME)."
        )
    return load_pretrained(source, device="cpu").model


def _copy_weights(model: Any, other: Any, source: str, reinit_modules: Sequence[str]) -> None:
    """Copy the weights of another model, ``source`` in messages, except ``reinit_modules``.

    Raises:
        ValueError: if it is of another class or has other shapes, or a module does not exist.
    """
    if type(other) is not type(model):
        raise ValueError(
            f"init must be a {type(model).__name__}, as model, got a {type(other).__name__} in "
            f"{source}."
        )
    parts = dict(model.named_children())
    for name in reinit_modules:
        if name not in parts:
            raise ValueError(f"reinit_modules must be among {', '.join(parts)}, got {name!r}.")
    target_state, source_state = (
        {k: v for k, v in m.state_dict().items() if k.split(".")[0] not in reinit_modules}
        for m in (model, other)
    )
    for name in sorted(target_state.keys() | source_state.keys()):
        shapes = [
            None if name not in s else tuple(s[name].shape) for s in (target_state, source_state)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"init must have {name} of shape {shapes[0]}, as model, got {shapes[1]} in "
                f"{source}. Change the fields of --model, or list the module in reinit_modules."
            )
    model.load_state_dict(source_state, strict=not reinit_modules)


def select_modules(model: Any, config: PretrainConfig) -> None:
    """Set the likelihood's stride and the trained modules of a model."""
    if config.likelihood_stride > 1:
        model.likelihood_stride = config.likelihood_stride
    if config.trained_modules == "all":
        return
    model.background_only = config.trained_modules == "background"
    model.occluders = config.occluders
    model.requires_grad_(not model.background_only)
    model.background.requires_grad_(model.background_only)


def _mean_image_mse(pack: Pack, count: int) -> float:
    """Return the squared error of the mean of a pack's first images, values in [0, 1]."""
    images = pack.images[:count].astype(np.float32) / 255
    return float(np.square(images - images.mean(0)).mean())


def _advice(config: PretrainConfig) -> str:
    """Return flags that differ from the settings, for a training that learns nothing."""
    model = config.model
    if not isinstance(model, GenesisSConfig) or model.background == "none":
        return "--preset auto, which infers its settings from the images"
    return (
        f"--model.sigma-x {model.sigma_x / 2:.2g} or --model.foreground-threshold "
        f"{model.foreground_threshold / 2:.2g}"
    )


def _sample_images(pack: Pack) -> Tensor:
    """Return a pack's images at equal intervals, (N, 3, H, W), which initialise a background."""
    count = len(pack)
    chosen = torch.arange(0, count, max(1, count // _SAMPLE_IMAGES))[:_SAMPLE_IMAGES]
    return ImageFeed(pack, torch.device("cpu"))(chosen)


def learning_rate(config: PretrainConfig, state: State) -> float:
    """Return the learning rate of the next update."""
    return state.learning_rate(config.warmup_steps, config.schedule)


def kl_weight(config: PretrainConfig, state: State) -> float:
    """Return beta of the next update, for the objective "elbo"."""
    if config.beta_end is None:
        return config.beta
    share = min(1.0, state.progress / config.beta_anneal_fraction)
    return config.beta * math.pow(config.beta_end / config.beta, share)


def sigma_scale(config: PretrainConfig, state: State) -> float:
    """Return the factor on the model's sigma_x of the next update."""
    if config.sigma_x_start is None:
        return 1.0
    left = max(0.0, 1 - state.progress / config.sigma_x_anneal_fraction)
    return 1 + (config.sigma_x_start / config.model.sigma_x - 1) * left


def foreground_weight(config: PretrainConfig, state: State) -> float:
    """Return the weight of foreground pixels in the next update."""
    left = max(0.0, 1 - state.progress / config.foreground_anneal_fraction)
    return 1 + (config.foreground_weight - 1) * left


class Trainer(Training):
    """A pretraining run.

    The run directory contains ``train.json`` (the settings), ``metrics.jsonl`` and
    ``tensorboard/``, ``last/`` (model and training state) and ``best/`` (the model of the best
    validation: highest mSC for data with masks, else lowest nll + kl). Random numbers are functions
    of the seed and the step, so that a resumed run equals an uninterrupted one.
    """

    config: PretrainConfig

    def __init__(self, config: PretrainConfig) -> None:
        """Open the data, build the model, and load the last checkpoint to resume.

        Raises:
            ValueError: if the data do not fit the model, the run directory contains another run, or
                there is nothing to resume.
        """
        configure_cpu(config.threads)
        device = pick_device(config.device)
        # Mixed precision is set per run by _autocast; Accelerator's would apply to the process.
        self.accelerator = require("accelerate").Accelerator(
            mixed_precision="no", cpu=device.type == "cpu"
        )
        processes = Processes()
        if self.accelerator.num_processes > 1:
            processes = AcceleratedProcesses(self.accelerator, config.steps)
        self.device = self.accelerator.device
        if device.type != self.device.type or device.index not in (None, self.device.index or 0):
            raise ValueError(
                f"device must be {str(self.device)!r} in this process, got {config.device!r}. "
                "Select a GPU by CUDA_VISIBLE_DEVICES, and use another process for another device."
            )
        if config.batch_size % processes.count:
            raise ValueError(
                f"batch_size must be a multiple of the {processes.count} processes, got "
                f"{config.batch_size}."
            )
        auto = config.precision == "auto"
        self._bf16 = has_bfloat16(self.device) if auto else config.precision == "bf16"
        folder = RunFolder(config, main=processes.main)
        start = None if config.init is None or folder.started else _load_initial_model(config.init)
        with self.accelerator.main_process_first():
            self.train_data = config.open_data("train")
            self.validation_data = config.open_data("validation")
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        if start is not None:
            _copy_weights(model, start, str(config.init), config.reinit_modules)
        elif hasattr(model, "fit_background") and not folder.started:
            model.fit_background(_sample_images(config.open_background_data() or self.train_data))
        if config.activation_checkpointing:
            model.activation_checkpointing = True
        select_modules(model, config)
        model.preprocessing = self._preprocessing(config, folder, start)
        if processes.count > 1:
            model = synchronised(model, self.device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.geco = Geco.from_config(config.geco, config.model.image_size).to(self.device)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)
        task = Task(
            model=self.model,
            stateful={"optimiser": optimiser, "geco": self.geco},
            terms=("nll", "kl_m", "kl_c", "beta"),
            train_step=self._train_step,
            describe=self._describe,
            validate=self._validate,
            advice="Try a lower learning_rate, clip_norm, or a higher geco.beta_min or "
            "model.posterior_sigma_min.",
            weights_advice="Try a lower learning_rate, or clip_norm.",
            measured=self._report_step_time,
            complete=self._fit_prior,
            processes=processes,
        )
        super().__init__(config, folder, task)
        self.generator = torch.Generator(self.device)
        self.feed = ImageFeed(self.train_data, self.device)
        self._mean_image_mse = _mean_image_mse(self.validation_data, config.eval_images)
        forward, self.optimiser = self.accelerator.prepare(self.model, optimiser)
        self._forward = torch.compile(forward) if config.compile else forward

    def _preprocessing(
        self, config: PretrainConfig, folder: RunFolder, start: Any
    ) -> Preprocessing | None:
        """Return the preprocessing of frames for the model: that of its training images.

        If these were not resized, it is that of the model which initialises the training.
        """
        before: Preprocessing | None = None
        if start is not None:
            before = start.preprocessing or Preprocessing()
        elif folder.started:
            before = folder.last_preprocessing()
        stored = self.train_data.preprocessing
        if stored is None:
            return before
        if before is not None and stored.resize == "none":
            return replace(before, crop=stored.crop, frame_size=stored.frame_size)
        if start is not None and before is not None and stored.resize != before.resize:
            warnings.warn(
                f"init {config.init} resizes frames by {before.resize!r}, but data {config.data!r} "
                f"was created with resize {stored.resize!r}, which the trained model will use.",
                stacklevel=3,
            )
        self.validation_data.check_preprocessing(stored, f"a model of {self.train_data.folder}")
        return stored

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def _train_step(self, state: State) -> Tensor:
        config, processes = self.config, self.task.processes
        set_learning_rate(self.optimiser, learning_rate(config, state))
        indices = batch_indices(state.step, config.batch_size, self.feed.num_images, config.seed)
        images = self.feed(indices[processes.index :: processes.count])
        self.generator.manual_seed(noise_key(config.seed, state.step))
        self.model.sigma_scale = sigma_scale(config, state)
        share = {"share": (processes.index, processes.count)} if processes.count > 1 else {}
        with self._autocast():
            nll, kl_m, kl_c = train_terms(
                self._forward,
                images,
                self.generator,
                foreground_weight(config, state),
                int(config.trained_modules == "objects"),
                **share,
            )
        use_geco = config.objective == "geco"
        beta = self.geco.beta.float() if use_geco else nll.new_tensor(kl_weight(config, state))
        loss = self.geco(nll, kl_m + kl_c) if use_geco else nll + beta * (kl_m + kl_c)
        self.accelerator.backward(loss)
        if config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        terms = torch.stack([nll.detach(), kl_m.detach(), kl_c.detach(), beta])
        if processes.count > 1:
            terms = self.accelerator.reduce(terms, "mean")
        if use_geco:
            self.geco.update(terms[0])
        return terms

    def _describe(self, state: State, means: Mapping[str, float]) -> tuple[dict[str, float], str]:
        rate = state.step * self.config.batch_size / state.seconds if state.seconds else 0.0
        text = (
            f"{rate:.0f} img/s, nll {means['nll']:.0f}, kl {means['kl_m'] + means['kl_c']:.0f}, "
            f"beta {means['beta']:.1e}"
        )
        return {"learning_rate": learning_rate(self.config, state), "images_per_second": rate}, text

    def _validate(self, state: State) -> Validation:
        self.model.sigma_scale = 1.0
        with self._autocast():
            scores = validate(self.model, self.validation_data, self.config.eval_images)
            images = pictures(self.model, self.validation_data)
        self._check_learning(state.step, scores["mse"])
        selection_score = -scores["nll"] - scores["kl_m"] - scores["kl_c"]
        if self.config.trained_modules != "background":
            selection_score = scores.get("msc", selection_score)
        return Validation(scores, images, selection_score)

    def _fit_prior(self) -> dict[str, Any] | None:
        """Fit the prior of the best model, unless that is done, or a stop is requested."""
        config, name = self.config, self.config.out.name
        card = read_json(self.folder.best / CONFIG) if config.prior_steps else {}
        if not card or card.get(_PRIOR_STEPS):
            return None
        load_weights(self.model, self.folder.best)
        posteriors = infer_posteriors(
            self.model, self.feed, seed=config.seed, title=f"{name}, posteriors"
        )
        fitted = fit_prior(
            self.model,
            posteriors,
            config.prior_steps,
            seed=config.seed,
            title=f"{name}, prior",
            stopped=lambda: self.interrupted,
        )
        counters = {name: card[name] for name in self.state.counters}
        return {**counters, _PRIOR_STEPS: config.prior_steps} if fitted else None

    # ---- warnings ----------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train; see `Training.run`. Warns first of a GECO goal that the mean image meets."""
        config, mean = self.config, self._mean_image_mse
        goal = config.geco.goal_mse(config.model.sigma_x)
        if config.objective == "geco" and goal > mean:
            self._warn(
                f"geco.goal {config.geco.goal:g} is a squared error of {goal:.4f}, above the mean "
                f"image's, {mean:.4f}: it can be met without objects. Use {_advice(config)}."
            )
        return super().run()

    def _warn(self, message: str) -> None:
        """Write a line to stderr, in the first process."""
        if self.main:
            tqdm.write(message, file=sys.stderr)

    def _report_step_time(self, state: State, seconds: float) -> None:
        hours = (self.config.steps - state.step) * seconds / 3600
        if self.config.max_minutes is not None:
            hours = min(hours, self.config.max_minutes / 60)
        if self.device.type == "cpu" and hours > _LONG_HOURS:
            self._warn(
                f"The {self.config.steps:,} steps will take about {hours:,.0f} hours on this CPU "
                f"({seconds:.2f} s each). These settings are meant for a CUDA GPU; "
                "--preset multi-dsprites-small is meant for a CPU."
            )

    def _check_learning(self, step: int, mse: float) -> None:
        """Warn if the reconstruction is no better than the mean image after the first updates."""
        config, mean = self.config, self._mean_image_mse
        if config.trained_modules == "background" or step < _LEARNT_STEP:
            return
        if mse > _LEARNT_SHARE * mean:
            self._warn(
                f"step {step}: the reconstruction is no better than the mean image (squared "
                f"error {mse:.4f}, mean image {mean:.4f}). Try {_advice(config)}."
            )
