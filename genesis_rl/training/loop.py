"""The training loop: one update, logging, validation, checkpoints, resuming."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from genesis_rl.checkpoint import pick_device
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.geco import Geco
from genesis_rl.log import RunLog
from genesis_rl.models import build_model
from genesis_rl.process import StopSignal, keep_freed_memory
from genesis_rl.slots import ElboTerms
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import RunFolder
from genesis_rl.training.validate import pictures, validate

TERMS = ("nll", "kl_m", "kl_c", "beta")
# A run longer than this on a CPU is worth a word before it starts.
_LONG_HOURS = 2.0


class NonFiniteError(RuntimeError):
    """A term of the loss or a weight is not finite; the last good checkpoint is left as it is.

    Attributes:
        row: what the log is told: the terms of the step, or the number of weights.
    """

    def __init__(self, message: str, row: dict[str, float]) -> None:
        super().__init__(message)
        self.row = row


def train_terms(
    model: Callable[..., ElboTerms],
    images: Tensor,
    generator: torch.Generator,
    foreground_weight: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch means of nll, kl_m and kl_c in nats per image, for one update.

    Args:
        model: the model, called as its ``elbo``.
        images: (B, 3, H, W), float in [0, 1].
        generator: of the posterior's noise.
        foreground_weight: weight of pixels that differ from the image's median colour, >= 1.
    """
    weight = None
    if foreground_weight > 1:
        background = images.flatten(2).median(-1).values[:, :, None, None]
        foreground = (images - background).abs().amax(1, keepdim=True) > 0.1
        weight = 1 + (foreground_weight - 1) * foreground.float()
    terms = model(images, generator=generator, pixel_weight=weight)
    return terms.nll.mean(), terms.kl_m.sum(1).mean(), terms.kl_c.sum(1).mean()


class Trainer:
    """One pretraining run in one folder.

    The folder holds ``train.json`` (the settings), ``metrics.jsonl`` and ``tensorboard/``,
    ``last/`` (model and training state) and ``best/`` (the model of the best validation: highest
    mSC where there are masks, lowest nll + kl elsewhere). Everything that is random is a function
    of the seed and the step, so a resumed run ends where an uninterrupted one would.
    """

    def __init__(self, config: PretrainConfig) -> None:
        """Open the data, build the model, and take up the folder's last checkpoint to resume.

        Raises:
            ValueError: if the data do not fit the model, the folder holds another run, or there is
                nothing to resume.
        """
        self.config = config
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        device = pick_device(config.device)
        # Its precision is one for the whole process, ours one for each run: see _autocast.
        self.accelerator = Accelerator(mixed_precision="no", cpu=device.type == "cpu")
        self.device = self.accelerator.device
        if device.type != self.device.type or device.index not in (None, self.device.index or 0):
            raise ValueError(
                f"device is {config.device!r}, but this process trains on {self.device}; choose a "
                "GPU by CUDA_VISIBLE_DEVICES, and start another process for another device."
            )
        if config.batch_size % self.accelerator.num_processes:
            raise ValueError(
                f"batch_size is {config.batch_size}; wanted a multiple of the "
                f"{self.accelerator.num_processes} processes."
            )
        keep_freed_memory()
        self.folder = RunFolder(config)
        if self.main:
            self.folder.write_settings()
        with self.accelerator.main_process_first():
            self.train_data = config.open_data("train")
            self.validation_data = config.open_data("validation")
        torch.manual_seed(config.seed)
        self.model = build_model(config.model)
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.geco = Geco.from_config(config.geco, config.model.image_size).to(self.device)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True
        )
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        if config.resume:
            state = self.folder.load_last(self.model, self.device)
            self.geco.load_state_dict(state["geco"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.generator = torch.Generator(self.device)
        self.feed = ImageFeed(self.train_data, self.device)
        self._parallel, self._optimiser = self.accelerator.prepare(self.model, self.optimiser)
        self._forward = torch.compile(self._parallel) if config.compile else self._parallel
        self._window: list[Tensor] = []
        self._stop = StopSignal()

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    # ---- the loop ----------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train to the end, or until SIGTERM, which saves and leaves.

        Returns:
            The last validation's figures; empty if stopped before one.

        Raises:
            NonFiniteError: naming the step and the term.
        """
        config = self.config
        log = RunLog(
            config.out,
            tensorboard=config.tensorboard,
            wandb=config.wandb,
            config=self.folder.settings,
            resume_step=self.step,
            enabled=self.main,
        )
        bar = tqdm(
            total=config.steps, initial=self.step, unit="step", disable=None if self.main else True
        )
        with log, bar, self._stop:
            try:
                return self._loop(log, bar)
            except NonFiniteError as error:  # the log is what is left to look at
                log.scalars(self.step, error.row)
                raise

    def _loop(self, log: RunLog, bar: "tqdm[Any]") -> dict[str, float]:
        config, scores = self.config, dict[str, float]()
        began, first = time.monotonic() - self.seconds, self.step
        self.model.train()
        while not self._finished() and not self._stop.received:
            self._update()
            self.seconds = time.monotonic() - began
            ends = self._finished()
            if self._due(config.log_every) or ends:
                self._report(log, bar)
            if self.step - first == 20:
                self._warn_if_long(first, began)
            if self._due(config.eval_every) or ends:
                self._check_finite()
                scores = self._validate(log)
            if self._due(config.save_every) or ends:
                self._save()
            bar.update()
        if self._stop.received:
            self._save()
        return scores

    @property
    def stopped(self) -> bool:
        """Whether SIGTERM ended the run early."""
        return self._stop.received and not self._finished()

    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]: of the steps, or of the time if less."""
        done = self.step / self.config.steps
        if self.config.max_minutes is not None:
            done = max(done, self.seconds / (60 * self.config.max_minutes))
        return min(done, 1.0)

    def _autocast(self) -> torch.autocast:
        bf16 = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def _finished(self) -> bool:
        return self.progress() >= 1

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _update(self) -> None:
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        indices = batch_indices(self.step, config.batch_size, self.feed.num_images, config.seed)[
            self.accelerator.process_index :: self.accelerator.num_processes
        ]
        images = self.feed(indices)
        self.generator.manual_seed(
            noise_key(config.seed, self.step, self.accelerator.process_index)
        )
        with self._autocast():
            nll, kl_m, kl_c = train_terms(
                self._forward, images, self.generator, self._foreground_weight()
            )
        use_geco = config.objective == "geco"
        beta = self.geco.beta.float() if use_geco else nll.new_tensor(self._beta())
        loss = self.geco(nll, kl_m + kl_c) if use_geco else nll + beta * (kl_m + kl_c)
        self.accelerator.backward(loss)
        if config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self._optimiser.step()
        self._optimiser.zero_grad()
        terms = torch.stack([nll.detach(), kl_m.detach(), kl_c.detach(), beta])
        if self.accelerator.num_processes > 1:
            terms = self.accelerator.reduce(terms, "mean")
        if use_geco:
            self.geco.update(terms[0])
        self._window.append(terms)
        self.step += 1

    def _learning_rate(self) -> float:
        config = self.config
        rate = config.learning_rate * min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        if config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.progress()))
        return rate

    def _beta(self) -> float:
        config = self.config
        if config.beta_end is None:
            return config.beta
        share = min(1.0, self.progress() / config.beta_until)
        return config.beta * math.pow(config.beta_end / config.beta, share)

    def _foreground_weight(self) -> float:
        left = max(0.0, 1 - self.progress() / self.config.foreground_until)
        return 1 + (self.config.foreground_weight - 1) * left

    # ---- looking -----------------------------------------------------------------------------

    def _check_finite(self) -> list[float]:
        """Read the terms since the last look, the only place where the host waits.

        Returns:
            Their means in the order of TERMS.
        """
        window = torch.stack(self._window).tolist() if self._window else []
        first = self.step - len(window)
        self._window.clear()
        for i, terms in enumerate(window):
            for name, value in zip(TERMS, terms, strict=True):
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"{name} is {value} at step {first + i}; the last good checkpoint is in "
                        f"{self.folder.last}. Try a lower learning_rate, clip_norm, or a higher "
                        "geco.beta_min or model.posterior_sigma_floor.",
                        {f"train/{n}": v for n, v in zip(TERMS, terms, strict=True)},
                    )
        if window:
            self._means = [sum(column) / len(window) for column in zip(*window, strict=True)]
        return self._means

    def _report(self, log: RunLog, bar: "tqdm[Any]") -> None:
        means = dict(zip(TERMS, self._check_finite(), strict=True))
        rate = self.step * self.config.batch_size / max(self.seconds, 1e-9)
        means |= {
            "learning_rate": self._learning_rate(),
            "images_per_second": rate,
            "seconds": self.seconds,
        }
        log.scalars(self.step, {f"train/{name}": value for name, value in means.items()})
        bar.set_postfix_str(
            f"{rate:.0f} img/s, nll {means['nll']:.0f}, kl {means['kl_m'] + means['kl_c']:.0f}, "
            f"beta {means['beta']:.1e}, {self.progress():.0%}"
        )

    def _warn_if_long(self, first: int, began: float) -> None:
        pace = (time.monotonic() - began) / max(self.step - first, 1)
        hours = (self.config.steps - self.step) * pace / 3600
        if self.config.max_minutes is not None:
            hours = min(hours, self.config.max_minutes / 60)
        if self.main and self.device.type == "cpu" and hours > _LONG_HOURS:
            tqdm.write(
                f"On this CPU the {self.config.steps:,} steps will take about {hours:,.0f} hours "
                f"({pace:.2f} s each). A CUDA GPU is what these settings are for; "
                "--preset multi-dsprites-small fits a CPU.",
                file=sys.stderr,
            )

    def _validate(self, log: RunLog) -> dict[str, float]:
        """Score held-out images and keep the model if it is the best so far."""
        scores: dict[str, float] = {}
        if self.main:
            with self._autocast():
                scores = validate(self.model, self.validation_data, self.config.eval_images)
                images = pictures(self.model, self.validation_data)
            log.scalars(self.step, {f"validation/{name}": v for name, v in scores.items()})
            log.images(self.step, images)
            merit = scores.get("msc", -scores["nll"] - scores["kl_m"] - scores["kl_c"])
            if merit >= self.best:
                self.best = merit
                self.folder.save_best(self.model, {**self._place(), "validation": scores})
        self.accelerator.wait_for_everyone()
        return scores

    # ---- saving ------------------------------------------------------------------------------

    def _place(self) -> dict[str, float]:
        return {"step": self.step, "seconds": self.seconds}

    def _save(self) -> None:
        """Write the last checkpoint, having seen that it is worth going on from."""
        self._check_finite()
        bad = sum((~p.detach().isfinite()).sum() for p in self.model.parameters())
        if bad:
            raise NonFiniteError(
                f"a weight is not finite at step {self.step}; the last good checkpoint is in "
                f"{self.folder.last}. Try a lower learning_rate, or clip_norm.",
                {"train/nonfinite_weights": int(bad)},
            )
        if self.main:
            state = {
                **self._place(),
                "best": self.best,
                "geco": self.geco.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
            self.folder.save_last(self.model, self._place(), state)
        self.accelerator.wait_for_everyone()


def noise_key(seed: int, step: int, process: int) -> int:
    """Seed of a step's noise, 64 bits: nothing random has to be saved to resume."""
    entropy = np.random.SeedSequence((seed, step, process))
    return int(entropy.generate_state(1, np.uint64)[0])
