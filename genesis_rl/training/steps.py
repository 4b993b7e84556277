"""What all trainings share: the loop over steps, looking at them, stopping, saving, resuming."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from genesis_rl.log import RunLog
from genesis_rl.process import StopSignal
from genesis_rl.training.folder import TrainingFolder

#: What has a state of its own that going on from a checkpoint takes.
Stateful = nn.Module | torch.optim.Optimizer

# So many steps tell the pace, after the first ones, which wait for a compiler.
_WARM_STEPS, _PACE_STEPS = 5, 20
# By so much of the training the clock may be ahead of the steps, as it is while the first one waits
# for a compiler, before schedules heed it: steps that fit the time are the same steps every time.
_CLOCK_SLACK = 0.05


class NonFiniteError(RuntimeError):
    """A term of the loss or a weight is not finite; the last good checkpoint is left as it is.

    Attributes:
        row: what the log is told: the terms of the step, or the number of weights.
    """

    def __init__(self, message: str, row: dict[str, float]) -> None:
        super().__init__(message)
        self.row = row


class StepConfig(Protocol):
    """What the settings of every training say."""

    @property
    def steps(self) -> int:
        """Updates in all."""

    @property
    def max_minutes(self) -> float | None:
        """The training ends after this time even if steps remain."""

    @property
    def log_every(self) -> int:
        """Updates between lines in the log."""

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
        """Whether to report to Weights & Biases."""


class Validation(NamedTuple):
    """What a validation found.

    Attributes:
        scores: numbers for the log, by name.
        pictures: (H, W, 3), uint8, by name.
        merit: the number by which the best model is chosen.
    """

    scores: dict[str, float]
    pictures: dict[str, npt.NDArray[np.uint8]]
    merit: float


class StepTrainer(ABC):
    """A training in steps, in one folder.

    A training of some kind derives from this, builds its data, model and optimiser, hands them to
    ``__init__`` and says what a step does (`_step`), what the log hears of it (`_describe`) and how
    the model is validated (`_validate`). What is random in a step must be a function of the seed
    and ``step`` (see `noise_key`); then a resumed run ends where an uninterrupted one would.

    Attributes:
        config: the settings.
        folder: where the checkpoints lie.
        model: what is trained.
        step: updates made.
        seconds: time they took, over all resumptions.
        best: merit of the best validation.
    """

    #: Names of the terms that `_step` returns.
    terms: ClassVar[tuple[str, ...]]
    #: What to try where a term, or a weight, is not finite.
    terms_advice: ClassVar[str] = "Try a lower learning_rate."
    weights_advice: ClassVar[str] = "Try a lower learning_rate."
    #: Whether the best validation is that of the lowest merit.
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
        """Write the settings, and take up the folder's last checkpoint if there is one.

        Args:
            config: the settings.
            folder: the run's folder, which has seen to it that the checkpoint is of this run.
            model: what is trained, on its device.
            stateful: what a checkpoint holds beside the model, by name.
            title: of the progress bar.

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
                folder.check()  # again: another process may have written it before the lock
                folder.write_settings()
            if folder.started:
                state = folder.load_last(model, next(model.parameters()).device)
                for name, holder in self._stateful.items():
                    holder.load_state_dict(state[name])
                self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        except BaseException:
            folder.unlock()
            raise

    # ---- what a training says ------------------------------------------------------------------

    @abstractmethod
    def _step(self) -> Tensor:
        """Make update number ``step``.

        Returns:
            (len(terms),): the terms, detached, on any device; they are read only when due.
        """

    @abstractmethod
    def _describe(self, means: dict[str, float]) -> tuple[dict[str, float], str]:
        """Say how the training stands, from the means of the terms since the last line.

        Returns:
            More numbers for the log, by name, and what the progress bar shows.
        """

    @abstractmethod
    def _validate(self) -> Validation:
        """Score the model on held-out data, and leave it in training mode."""

    def _tell_pace(self, seconds: float) -> None:  # noqa: B027 - most have nothing to say
        """Hear, once a few steps are made, how long each takes."""

    @property
    def main(self) -> bool:
        """Whether this process, of several that train together, writes files and validates."""
        return True

    def _wait(self) -> None:  # noqa: B027 - most are one process
        """Wait for the other processes."""

    # ---- the loop ------------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train to the end, or until SIGINT or SIGTERM, which saves and leaves.

        Returns:
            The last validation's figures; empty if stopped before one.

        Raises:
            NonFiniteError: naming the step and the term.
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
        hidden = None if self.main else True
        bar = tqdm(
            desc=self._title, total=config.steps, initial=self.step, unit="step", disable=hidden
        )
        with log, bar, self._stop:
            try:
                return self._loop(log, bar)
            except NonFiniteError as error:  # the log is what is left to look at
                log.scalars(self.step, error.row)
                raise

    @property
    def stopped(self) -> bool:
        """Whether SIGINT or SIGTERM ended the run early."""
        return self._stopping and not self._finished()

    @property
    def interrupted(self) -> bool:
        """Whether SIGINT or SIGTERM came, even if only after the last update."""
        return self._stop.received

    @property
    def stop_status(self) -> int:
        """The exit status of a process whose run was stopped: 130 after SIGINT, else 143."""
        return self._stop.status

    def progress(self) -> float:
        """Share of the training that is done, in [0, 1], which schedules go by.

        It is that of the steps, or of the time where the clock is well ahead. A training that has
        the time for all of its steps does not go by the clock, and so repeats.
        """
        done = self.step / self.config.steps
        if self.config.max_minutes is not None:
            clock = self.seconds / (60 * self.config.max_minutes)
            done = max(done, (clock - _CLOCK_SLACK) / (1 - _CLOCK_SLACK))
        return min(done, 1.0)

    def _loop(self, log: RunLog, bar: "tqdm[Any]") -> dict[str, float]:
        config, scores = self.config, dict[str, float]()
        first, before, began = self.step, self.seconds, time.monotonic()
        warm = before
        self.model.train()
        while not self._finished() and not self._stopping:
            self._update()
            self._look_up(before + time.monotonic() - began)
            ends = self._finished()
            if self._due(config.log_every) or ends:
                self._report(log, bar)
            if self.step - first == _WARM_STEPS:
                warm = self.seconds
            elif self.step - first == _WARM_STEPS + _PACE_STEPS:
                self._tell_pace((self.seconds - warm) / _PACE_STEPS)
            if self._due(config.eval_every) or ends:
                self._check_finite()
                scores = self._look(log)
            if self._due(config.save_every) or ends:
                self._save()
            bar.update()
        if self._stopping:
            self._save()
        return scores

    def _look_up(self, seconds: float) -> None:
        """Look at the clock, and whether to stop; ``seconds`` have gone into the training."""
        self.seconds, self._stopping = seconds, self._stop.received

    def _finished(self) -> bool:
        return self.progress() >= 1

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _update(self) -> None:
        self._window.append(self._step())
        self.step += 1

    # ---- looking -------------------------------------------------------------------------------

    def _check_finite(self) -> dict[str, float]:
        """Read the terms since the last look, the only place where the host waits.

        Returns:
            Their means.
        """
        window = torch.stack(self._window).tolist() if self._window else []
        rows = [dict(zip(self.terms, values, strict=True)) for values in window]
        self._window.clear()
        for step, row in enumerate(rows, self.step - len(rows)):
            for name, value in row.items():
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"{name} is {value} at step {step}; the last good checkpoint is in "
                        f"{self.folder.last}. {self.terms_advice}",
                        {f"train/{n}": v for n, v in row.items()},
                    )
        if rows:
            self._means = {n: sum(row[n] for row in rows) / len(rows) for n in self.terms}
        return self._means

    def _report(self, log: RunLog, bar: "tqdm[Any]") -> None:
        means = self._check_finite()
        more, text = self._describe(means)
        row = means | more | {"seconds": self.seconds}
        log.scalars(self.step, {f"train/{name}": value for name, value in row.items()})
        bar.set_postfix_str(f"{text}, {self.progress():.0%}")

    def _look(self, log: RunLog) -> dict[str, float]:
        """Validate, and keep the model if it is the best so far."""
        scores: dict[str, float] = {}
        if self.main:
            self._check_weights()
            scores, pictures, merit = self._validate()
            log.scalars(self.step, {f"validation/{name}": v for name, v in scores.items()})
            log.images(self.step, pictures)
            if merit <= self.best if self.lowest_is_best else merit >= self.best:
                self.best = merit
                self.folder.save_best(self.model, {**self._place(), "validation": scores})
        self._wait()
        return scores

    # ---- saving --------------------------------------------------------------------------------

    def _place(self) -> dict[str, float]:
        return {"step": self.step, "seconds": self.seconds}

    def _save(self) -> None:
        """Write the last checkpoint, having seen that it is worth going on from."""
        self._check_finite()
        self._check_weights()
        if self.main:
            states = {name: holder.state_dict() for name, holder in self._stateful.items()}
            state = {**self._place(), "best": self.best, **states}
            self.folder.save_last(self.model, self._place(), state)
        self._wait()

    def _check_weights(self) -> None:
        """Raise NonFiniteError if a weight is NaN or infinite."""
        bad = int(sum((~p.detach().isfinite()).sum() for p in self.model.parameters()))
        if bad:
            raise NonFiniteError(
                f"a weight is not finite at step {self.step}; the last good checkpoint is in "
                f"{self.folder.last}. {self.weights_advice}",
                {"train/nonfinite_weights": bad},
            )


def noise_key(seed: int, step: int, process: int = 0) -> int:
    """Seed of a step's noise, 64 bits: nothing random has to be saved to resume."""
    entropy = np.random.SeedSequence((seed, step, process))
    return int(entropy.generate_state(1, np.uint64)[0])
