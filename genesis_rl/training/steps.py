"""Training loop: updates, logging, validation, stopping, checkpoints and resumption."""

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.training.folder import TrainingFolder
from genesis_rl.utils.flags import report_error
from genesis_rl.utils.log import ProgressBar, RunLog
from genesis_rl.utils.process import StopSignal
from genesis_rl.utils.tables import as_text

#: Objects other than the model whose state a checkpoint contains.
Stateful = nn.Module | torch.optim.Optimizer

# Steps before and during the measurement of the time per step; the first may include compilation.
_WARM_STEPS, _PACE_STEPS = 5, 20
# Progress by time may exceed progress by steps by this share of the training, as it does during
# compilation, before schedules follow it. Trainings that finish in time are thus reproducible.
_CLOCK_SLACK = 0.05


class NonFiniteError(RuntimeError):
    """A term of the loss or a weight is not finite; the last checkpoint is unaffected.

    Attributes:
        row: log entry: the terms of the step, or the number of non-finite weights.
    """

    def __init__(self, message: str, row: dict[str, float]) -> None:
        super().__init__(message)
        self.row = row


class StepConfig(Protocol):
    """Settings common to all trainings."""

    @property
    def steps(self) -> int:
        """Total number of updates."""

    @property
    def max_minutes(self) -> float | None:
        """Maximum training time in minutes; None: unlimited."""

    @property
    def log_every(self) -> int:
        """Updates between log entries."""

    @property
    def eval_every(self) -> int:
        """Updates between validations."""

    @property
    def save_every(self) -> int:
        """Updates between checkpoints."""

    @property
    def tensorboard(self) -> bool:
        """Whether to write TensorBoard events."""

    @property
    def wandb(self) -> bool:
        """Whether to log to Weights & Biases."""


class Validation(NamedTuple):
    """Results of a validation.

    Attributes:
        scores: scores for the log, by name.
        pictures: images for the log, (H, W, 3), uint8, by name.
        selection_score: score by which the best model is selected; higher is better unless
            ``StepTrainer.lowest_is_best``.
    """

    scores: dict[str, float]
    pictures: dict[str, npt.NDArray[np.uint8]]
    selection_score: float


class StepTrainer(ABC):
    """Base class of trainings.

    A subclass builds its data, model and optimiser, passes them to ``__init__``, and implements
    updates (`_step`), log entries (`_describe`) and validation (`_validate`). Random numbers of a
    step must be a function of the seed and ``step`` (see `noise_key`); a resumed run then equals an
    uninterrupted one.

    Attributes:
        config: the settings.
        folder: the run directory.
        model: the trained model.
        step: number of updates made.
        seconds: training time, over all resumptions.
        best: selection score of the best validation.
    """

    #: Names of the terms that `_step` returns.
    terms: ClassVar[tuple[str, ...]]
    #: Suggestions in the error for a term, or a weight, that is not finite.
    terms_advice: ClassVar[str] = "Try a lower learning_rate."
    weights_advice: ClassVar[str] = "Try a lower learning_rate."
    #: Whether lower selection scores are better.
    lowest_is_best: ClassVar[bool] = False

    config: StepConfig
    folder: TrainingFolder
    model: nn.Module

    def __init__(
        self,
        config: StepConfig,
        folder: TrainingFolder,
        model: nn.Module,
        stateful: Mapping[str, Stateful],
        *,
        title: str | None = None,
    ) -> None:
        """Write the settings, and load the last checkpoint if there is one.

        Args:
            config: the settings.
            folder: the run directory, already checked against the settings.
            model: the model to train, on its device.
            stateful: further objects whose state a checkpoint contains, by name.
            title: title of the progress bar.

        Raises:
            ValueError: if a file of the checkpoint is damaged.
        """
        self.config, self.folder, self.model = config, folder, model
        self.step, self.seconds = 0, 0.0
        self.best = math.inf if self.lowest_is_best else -math.inf
        self._stateful, self._title = dict(stateful), title
        self._window: list[Tensor] = []
        self._stop = StopSignal()
        self._stopping = False
        try:
            if self.main:
                folder.lock()
                folder.check()  # again, since another process may have written before the lock
                folder.write_settings()
            if folder.started:
                state = folder.load_last(model, next(model.parameters()).device)
                for name, holder in self._stateful.items():
                    holder.load_state_dict(state[name])
                self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        except BaseException:
            folder.unlock()
            raise

    # ---- methods of subclasses -----------------------------------------------------------------

    @abstractmethod
    def _step(self) -> Tensor:
        """Make update number ``step``.

        Returns:
            The terms, (len(terms),), detached, on any device; read only for log entries and checks.
        """

    @abstractmethod
    def _describe(self, means: dict[str, float]) -> tuple[dict[str, float], str]:
        """Describe progress, given the means of the terms since the last log entry.

        Returns:
            Further values for the log, by name, and the text of the progress bar.
        """

    @abstractmethod
    def _validate(self) -> Validation:
        """Evaluate the model on held-out data, and return it to training mode."""

    def _report_step_time(self, seconds: float) -> None:  # noqa: B027 - optional
        """Report the time per step, measured once after the first steps."""

    def _complete(self, log: RunLog) -> dict[str, float]:
        """Complete the run after its last update; return any further scores."""
        return {}

    @property
    def main(self) -> bool:
        """Whether this process writes files and validates, in distributed training."""
        return True

    def _wait(self) -> None:  # noqa: B027 - optional
        """Wait for the other processes of distributed training."""

    # ---- the loop ------------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train to the end, or until SIGINT or SIGTERM, upon which a checkpoint is saved.

        Returns:
            The scores of the last validation; empty if stopped before one.

        Raises:
            NonFiniteError: if a term or a weight is not finite.
        """
        try:
            if self.main:
                self.folder.lock()
            return self._run()
        finally:
            self.folder.unlock()

    def _run(self) -> dict[str, float]:
        config = self.config
        log = RunLog(
            self.folder.out,
            tensorboard=config.tensorboard,
            wandb=config.wandb,
            config=self.folder.settings,
            resume_step=self.step,
            enabled=self.main,
        )
        bar = ProgressBar(
            desc=self._title or self.folder.out.name,
            total=config.steps,
            initial=self.step,
            unit="step",
            disable=not self.main,
            seconds=None if config.max_minutes is None else 60 * config.max_minutes - self.seconds,
        )
        with log, bar, self._stop:
            try:
                return self._loop(log, bar)
            except NonFiniteError as error:
                log.scalars(self.step, error.row)
                raise

    @property
    def stopped(self) -> bool:
        """Whether SIGINT or SIGTERM ended the run before its last update."""
        return self._stopping and not self._finished()

    @property
    def interrupted(self) -> bool:
        """Whether SIGINT or SIGTERM was received, even after the last update."""
        return self._stop.received

    @property
    def stop_status(self) -> int:
        """Exit status of a stopped run: 130 after SIGINT, else 143."""
        return self._stop.status

    def progress(self) -> float:
        """Return the completed fraction of the training in [0, 1], the argument of schedules.

        It is the fraction of steps, or of ``max_minutes`` if that is larger by a margin. A training
        that makes all of its steps in time is therefore reproducible.
        """
        return completed(self.config, self.step, self.seconds)

    def _loop(self, log: RunLog, bar: ProgressBar) -> dict[str, float]:
        config, scores = self.config, dict[str, float]()
        first, before, began = self.step, self.seconds, time.monotonic()
        warm = before
        self.model.train()
        while not self._finished() and not self._stopping:
            self._update()
            self._update_clock(before + time.monotonic() - began)
            ends = self._finished()
            if self._due(config.log_every) or ends:
                self._report(log, bar)
            if self.step - first == _WARM_STEPS:
                warm = self.seconds
            elif self.step - first == _WARM_STEPS + _PACE_STEPS:
                self._report_step_time((self.seconds - warm) / _PACE_STEPS)
            if self._due(config.eval_every) or ends:
                self._check_finite()
                scores = self._run_validation(log)
            if self._due(config.save_every) or ends:
                self._save()
            bar.update()
        if self._stopping:
            self._save()
        return (self._complete(log) if self._finished() else {}) or scores

    def _update_clock(self, seconds: float) -> None:
        """Update elapsed time to ``seconds`` and check for a stop request."""
        self.seconds, self._stopping = seconds, self._stop.received

    def _finished(self) -> bool:
        return self.progress() >= 1

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _update(self) -> None:
        self._window.append(self._step())
        self.step += 1

    # ---- logging and validation ----------------------------------------------------------------

    def _check_finite(self) -> dict[str, float]:
        """Read the terms since the last check, and raise NonFiniteError for a non-finite one.

        Synchronises host and device, which no other part of the loop does.

        Returns:
            The means of the terms.
        """
        window = torch.stack(self._window).tolist() if self._window else []
        rows = [dict(zip(self.terms, values, strict=True)) for values in window]
        self._window.clear()
        for step, row in enumerate(rows, self.step - len(rows)):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"{name} is {value} at step {step}; the last checkpoint is in "
                        f"{self.folder.last}. {self.terms_advice}",
                        {f"train/{n}": v for n, v in row.items()},
                    )
        if rows:
            self._means = {n: sum(row[n] for row in rows) / len(rows) for n in self.terms}
        return self._means

    def _report(self, log: RunLog, bar: ProgressBar) -> None:
        means = self._check_finite()
        more, text = self._describe(means)
        row = means | more | {"seconds": self.seconds}
        log.scalars(self.step, {f"train/{name}": value for name, value in row.items()})
        bar.set_postfix_str(f"{text}, {self.progress():.0%}")

    def _run_validation(self, log: RunLog) -> dict[str, float]:
        """Validate, log the results, and save the model if it is the best so far."""
        scores: dict[str, float] = {}
        if self.main:
            scores, _, score = self._log_validation(log)
            if score <= self.best if self.lowest_is_best else score >= self.best:
                self.best = score
                self.folder.save_best(self.model, {**self._counters(), "validation": scores})
        self._wait()
        return scores

    def _log_validation(self, log: RunLog) -> Validation:
        """Validate and log the results."""
        self._check_weights()
        results = self._validate()
        log.scalars(self.step, {f"validation/{name}": v for name, v in results.scores.items()})
        log.images(self.step, results.pictures)
        return results

    # ---- saving --------------------------------------------------------------------------------

    def _counters(self) -> dict[str, float]:
        return {"step": self.step, "seconds": self.seconds}

    def _save(self) -> None:
        """Check that terms and weights are finite, and write the last checkpoint."""
        self._check_finite()
        self._check_weights()
        if self.main:
            states = {name: holder.state_dict() for name, holder in self._stateful.items()}
            state = {**self._counters(), "best": self.best, **states}
            self.folder.save_last(self.model, self._counters(), state)
        self._wait()

    def _check_weights(self) -> None:
        """Raise NonFiniteError if a weight is NaN or infinite."""
        bad = int(sum((~p.detach().isfinite()).sum() for p in self.model.parameters()))
        if bad:
            raise NonFiniteError(
                f"a weight is not finite at step {self.step}; the last checkpoint is in "
                f"{self.folder.last}. {self.weights_advice}",
                {"train/nonfinite_weights": bad},
            )


def completed(config: StepConfig, step: int, seconds: float) -> float:
    """Return the completed fraction of a training in [0, 1]; see `StepTrainer.progress`."""
    done = step / config.steps
    if config.max_minutes is not None:
        clock = seconds / (60 * config.max_minutes)
        done = max(done, (clock - _CLOCK_SLACK) / (1 - _CLOCK_SLACK))
    return min(done, 1.0)


def noise_key(seed: int, step: int, process: int = 0) -> int:
    """Return the 64-bit seed of a step's noise, so that checkpoints need no RNG state."""
    entropy = np.random.SeedSequence((seed, step, process))
    return int(entropy.generate_state(1, np.uint64)[0])


def run_and_report(name: str, settings: Any, train: Callable[[], dict[str, Any]]) -> int:
    """Train, and print the report's tables and the run directory.

    Args:
        name: name of the program, for error messages.
        settings: dataclass of the program's flags, as passed to `tyro.cli`.
        train: function that trains and returns the report: ``tables``, the input of `as_text`, and
            ``settings`` with ``out``.

    Returns:
        The exit status: 0 for success, 2 for invalid settings, 1 for a failed training.

    Raises:
        StoppedError: after SIGINT or SIGTERM.
    """
    try:
        report = train()
        sys.stdout.write(f"{as_text(report['tables'])}\n{report['settings']['out']}\n")
    except (ValueError, TypeError, OSError, NonFiniteError) as error:
        report_error(name, error, settings)
        return 1 if isinstance(error, NonFiniteError) else 2
    return 0
