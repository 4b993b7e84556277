"""Training loop: updates, logging, validation, stopping, checkpoints and resumption."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.training.config import RunConfig
from genesis_rl.training.folder import TrainingFolder
from genesis_rl.training.parallel import LostProcessError, Processes
from genesis_rl.utils.log import ProgressBar, RunLog
from genesis_rl.utils.process import StoppedError, StopSignal

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


class Validation(NamedTuple):
    """Results of a validation.

    Attributes:
        scores: scores for the log, by name.
        pictures: images for the log, (H, W, 3), uint8, by name.
        selection_score: score by which the best model is selected; higher is better unless
            ``Task.lowest_is_best``.
    """

    scores: dict[str, float]
    pictures: dict[str, npt.NDArray[np.uint8]]
    selection_score: float


@dataclass
class State:
    """Progress of a training, as a checkpoint contains it."""

    config: RunConfig
    """the settings"""
    step: int = 0
    """number of updates made"""
    seconds: float = 0.0
    """training time, over all resumptions"""
    best: float = -math.inf
    """selection score of the best validation"""

    @property
    def progress(self) -> float:
        """The completed fraction of the training in [0, 1], the argument of schedules.

        It is the fraction of steps, or of ``max_minutes`` if that is larger by a margin. A training
        that makes all of its steps in time is therefore reproducible.
        """
        done = self.step / self.config.steps
        if self.config.max_minutes is not None:
            clock = self.seconds / (60 * self.config.max_minutes)
            done = max(done, (clock - _CLOCK_SLACK) / (1 - _CLOCK_SLACK))
        return min(done, 1.0)

    def learning_rate(
        self, warmup_steps: int, schedule: Literal["constant", "cosine"] = "cosine"
    ) -> float:
        """Return the learning rate of the next update.

        Args:
            warmup_steps: updates of linear warm-up.
            schedule: constant after the warm-up, or cosine decay to 0 over the training.
        """
        rate = self.config.learning_rate * min(1.0, (self.step + 1) / max(warmup_steps, 1))
        if schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.progress))
        return rate

    @property
    def counters(self) -> dict[str, float]:
        """Steps and seconds."""
        return {"step": self.step, "seconds": self.seconds}


@dataclass
class Task:
    """What is trained, and the functions of its training.

    Random numbers of an update must be a function of the seed and the step (see `noise_key`); a
    resumed run then equals an uninterrupted one.
    """

    model: nn.Module
    """the model to train, on its device"""
    stateful: Mapping[str, Stateful]
    """further objects whose state a checkpoint contains, by name"""
    terms: tuple[str, ...]
    """names of the terms of an update"""
    train_step: Callable[[State], Tensor]
    """makes update number ``state.step``; returns the terms, (len(terms),), detached, on any
    device; they are read only for log entries and checks"""
    describe: Callable[[State, Mapping[str, float]], tuple[dict[str, float], str]]
    """returns further values for the log and the text of the progress bar, given the means of the
    terms since the last log entry"""
    validate: Callable[[State], Validation]
    """evaluates the model on held-out data, and returns it to training mode"""
    lowest_is_best: bool = False
    """whether lower selection scores are better"""
    advice: str = "Try a lower learning_rate."
    """suggestion in the error for a term that is not finite"""
    weights_advice: str = "Try a lower learning_rate."
    """suggestion in the error for a weight that is not finite"""
    title: str | None = None
    """title of the progress bar; None: the name of the run directory"""
    measured: Callable[[State, float], None] = lambda state, seconds: None
    """receives the time per update, measured once after the first updates"""
    complete: Callable[[], dict[str, Any] | None] = lambda: None
    """completes the best model after the last update; returns entries of its config.json, or None
    if it has not changed"""
    processes: Processes = field(default_factory=Processes)
    """the processes of distributed training"""


class Training:
    """A training in a run directory.

    Attributes:
        config: the settings.
        folder: the run directory.
        task: the model and the functions of the training.
        state: progress, loaded from the last checkpoint.
    """

    def __init__(self, config: RunConfig, folder: TrainingFolder, task: Task) -> None:
        """Write the settings, and load the last checkpoint if there is one.

        Args:
            config: the settings.
            folder: the run directory, already checked against the settings.
            task: the model and the functions of the training.

        Raises:
            ValueError: if a file of the checkpoint is damaged.
        """
        self.config, self.folder, self.task = config, folder, task
        self.state = State(config, best=math.inf if task.lowest_is_best else -math.inf)
        self._window: list[Tensor] = []
        self._means: dict[str, float] = {}
        self._stop = StopSignal()
        self._stopping = False
        try:
            if self.main:
                folder.lock()
                folder.check()  # again, since another process may have written before the lock
                folder.write_settings()
            if folder.started:
                saved = folder.load_last(task.model, next(task.model.parameters()).device)
                for name, holder in task.stateful.items():
                    holder.load_state_dict(saved[name])
                self.state = State(config, saved["step"], saved["seconds"], saved["best"])
        except BaseException:
            folder.unlock()
            raise

    @property
    def main(self) -> bool:
        """Whether this process writes files and validates, in distributed training."""
        return self.task.processes.main

    @property
    def step(self) -> int:
        """Number of updates made."""
        return self.state.step

    @property
    def finished(self) -> bool:
        """Whether the last update has been made."""
        return self.state.progress >= 1

    @property
    def stopped(self) -> bool:
        """Whether SIGINT or SIGTERM ended the run before its last update."""
        return self._stopping and not self.finished

    @property
    def interrupted(self) -> bool:
        """Whether SIGINT or SIGTERM was received, even after the last update."""
        return self._stop.received

    @property
    def stop_status(self) -> int:
        """Exit status of a stopped run: 130 after SIGINT, else 143."""
        return self._stop.status

    def run(self) -> dict[str, float]:
        """Train to the end, or until SIGINT or SIGTERM, upon which a checkpoint is saved.

        Returns:
            The scores of the last validation; empty if stopped before one.

        Raises:
            NonFiniteError: if a term or a weight is not finite.
            LostProcessError: if another process of distributed training has ended.
        """
        config, state = self.config, self.state
        try:
            if self.main:
                self.folder.lock()
            log = RunLog(
                self.folder.out,
                tensorboard=config.tensorboard,
                wandb=config.wandb,
                config=self.folder.settings,
                resume_step=state.step,
                enabled=self.main,
            )
            limit = None if config.max_minutes is None else 60 * config.max_minutes - state.seconds
            bar = ProgressBar(
                desc=self.task.title or self.folder.out.name,
                total=config.steps,
                initial=state.step,
                unit="step",
                disable=not self.main,
                seconds=limit,
            )
            with log, bar, self._stop:
                try:
                    return self._fit(log, bar)
                except NonFiniteError as error:
                    log.scalars(state.step, error.row)
                    raise
        except (NonFiniteError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            if self.task.processes.count == 1:
                raise
            raise LostProcessError(
                f"communication of the {self.task.processes.count} processes failed after step "
                f"{state.step}: {error} The last checkpoint is in {self.folder.last}; resume with "
                "--resume."
            ) from error
        finally:
            self.folder.unlock()

    def run_to_end(self) -> None:
        """Train as `run` does, and raise StoppedError if a signal ended the run early."""
        self.run()
        if self.stopped:
            raise StoppedError(f"stopped at step {self.step}; --resume continues", self.stop_status)

    def _fit(self, log: RunLog, bar: ProgressBar) -> dict[str, float]:
        config, task, state = self.config, self.task, self.state
        scores: dict[str, float] = {}
        first, warm, began = state.step, state.seconds, time.monotonic() - state.seconds
        task.model.train()
        while not self.finished and not self._stopping:
            self._window.append(task.train_step(state))
            state.step += 1
            clock = task.processes.clock(state.step, time.monotonic() - began, self._stop.received)
            if clock is not None:
                state.seconds, self._stopping = clock
            ends = self.finished
            if state.step % config.log_every == 0 or ends:
                self._report(log, bar)
            if state.step - first == _WARM_STEPS:
                warm = state.seconds
            elif state.step - first == _WARM_STEPS + _PACE_STEPS:
                task.measured(state, (state.seconds - warm) / _PACE_STEPS)
            if state.step % config.eval_every == 0 or ends:
                scores = self._run_validation(log)
            if state.step % config.save_every == 0 or ends:
                self._save()
            bar.update()
        if self._stopping:
            self._save()
        card = task.complete() if self.finished and self.main else None
        if card is not None:
            results = self._log_validation(log)
            scores, state.best = results.scores, results.selection_score
            self.folder.save_best(task.model, {**card, "validation": scores})
        task.processes.wait()
        return scores

    def _read_terms(self) -> dict[str, float]:
        """Read the terms since the last call, and raise NonFiniteError for a non-finite one.

        Synchronises host and device, which no other part of the loop does.

        Returns:
            The means of the terms.
        """
        window = torch.stack(self._window).tolist() if self._window else []
        rows = [dict(zip(self.task.terms, values, strict=True)) for values in window]
        self._window.clear()
        for step, row in enumerate(rows, self.step - len(rows)):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"{name} is {value} at step {step}; the last checkpoint is in "
                        f"{self.folder.last}. {self.task.advice}",
                        {f"train/{n}": v for n, v in row.items()},
                    )
        if rows:
            self._means = {n: sum(row[n] for row in rows) / len(rows) for n in self.task.terms}
        return self._means

    def _check_weights(self) -> None:
        """Raise NonFiniteError if a weight is NaN or infinite."""
        bad = int(sum((~p.detach().isfinite()).sum() for p in self.task.model.parameters()))
        if bad:
            raise NonFiniteError(
                f"a weight is not finite at step {self.step}; the last checkpoint is in "
                f"{self.folder.last}. {self.task.weights_advice}",
                {"train/nonfinite_weights": bad},
            )

    def _report(self, log: RunLog, bar: ProgressBar) -> None:
        means, state = self._read_terms(), self.state
        more, text = self.task.describe(state, means)
        row = means | more | {"seconds": state.seconds}
        log.scalars(state.step, {f"train/{name}": value for name, value in row.items()})
        bar.set_postfix_str(f"{text}, {state.progress:.0%}")

    def _run_validation(self, log: RunLog) -> dict[str, float]:
        """Validate, log the results, and save the model if it is the best so far."""
        self._read_terms()
        scores: dict[str, float] = {}
        state = self.state
        if self.main:
            scores, _, score = self._log_validation(log)
            if score <= state.best if self.task.lowest_is_best else score >= state.best:
                state.best = score
                card = {**state.counters, "validation": scores}
                self.folder.save_best(self.task.model, card)
        self.task.processes.wait()
        return scores

    def _log_validation(self, log: RunLog) -> Validation:
        """Validate and log the results."""
        self._check_weights()
        results = self.task.validate(self.state)
        log.scalars(self.step, {f"validation/{name}": v for name, v in results.scores.items()})
        log.images(self.step, results.pictures)
        return results

    def _save(self) -> None:
        """Check that terms and weights are finite, and write the last checkpoint."""
        self._read_terms()
        self._check_weights()
        if self.main:
            state, task = self.state, self.task
            states = {name: holder.state_dict() for name, holder in task.stateful.items()}
            saved = {**state.counters, "best": state.best, **states}
            self.folder.save_last(task.model, state.counters, saved)
        self.task.processes.wait()


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def noise_key(seed: int, step: int, process: int = 0) -> int:
    """Return the 64-bit seed of a step's noise, so that checkpoints need no RNG state."""
    entropy = np.random.SeedSequence((seed, step, process))
    return int(entropy.generate_state(1, np.uint64)[0])
