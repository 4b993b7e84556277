"""The training of a world model: updates, validation, checkpoints, resuming."""

import math
import time
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genesis_rl.data.feed import batch_indices
from genesis_rl.log import RunLog
from genesis_rl.process import StopSignal
from genesis_rl.training.loop import NonFiniteError, noise_key
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.folder import WorldFolder
from genesis_rl.world_model.loss import fit_scales, rollout_loss
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.pictures import rollout_picture
from genesis_rl.world_model.study import Study

_TERMS = ("dynamics", "noise", "reward", "end")
_WARMUP = 100
# Share of the windows that each head of the ensemble learns from.
_SHARE = 0.75
_BATCH = 256


class WorldTrainer:
    """One training in one folder, which `WorldFolder` describes; ``metrics.jsonl`` is its log.

    Everything that is random is a function of the seed and the step, so a resumed run ends where
    an uninterrupted one would.
    """

    def __init__(self, config: WorldTrainConfig, study: Study) -> None:
        """Build the model, or take up the folder's last checkpoint to resume.

        Raises:
            ValueError: if the folder holds another run, or the data are fewer than a batch.
        """
        self.config, self.study = config, study
        self.data = study.sequences["train"]
        if len(self.data.starts) < config.batch_size:
            raise ValueError(
                f"data {config.data} has {len(self.data.starts)} steps to train on; batch_size is "
                f"{config.batch_size}."
            )
        self.folder = WorldFolder(config, study.form.encoder_fingerprint)
        self.folder.write_settings()
        torch.manual_seed(config.seed)
        self.model = WorldModel(config.model, study.spec, study.form).to(study.device)
        fit_scales(self.model, self.data)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        generator = torch.Generator().manual_seed(config.seed)
        shape = len(self.data.starts), config.model.ensemble
        self._members = (torch.rand(shape, generator=generator) < _SHARE).float().to(study.device)
        self.step, self.seconds, self.best = 0, 0.0, math.inf
        if self.folder.started:
            state = self.folder.load_last(self.model, study.device)
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self._window: list[Tensor] = []
        self._stop = StopSignal()

    # ---- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end, or until SIGTERM, which saves and leaves.

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
        )
        bar = tqdm(
            total=config.steps,
            initial=self.step,
            desc=config.model.trunk,
            unit="step",
            disable=None,
        )
        with log, bar, self._stop:
            try:
                self._loop(log, bar)
            except NonFiniteError as error:  # the log is what is left to look at
                log.scalars(self.step, error.row)
                raise

    def _loop(self, log: RunLog, bar: "tqdm[Any]") -> None:
        config, began = self.config, time.monotonic() - self.seconds
        self.model.train()
        while not self._finished() and not self._stop.received:
            self._update()
            self.seconds = time.monotonic() - began
            ends = self._finished()
            if self._due(config.log_every) or ends:
                self._report(log, bar)
            if self._due(config.eval_every) or ends:
                self._check_finite()
                self._validate(log)
            if self._due(config.save_every) or ends:
                self._save()
            bar.update()
        if self._stop.received:
            self._save()

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

    def _finished(self) -> bool:
        return self.progress() >= 1

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _update(self) -> None:
        config, starts = self.config, self.data.starts
        rate = config.learning_rate * min(1.0, (self.step + 1) / _WARMUP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * self.progress()))
        rows = batch_indices(self.step, config.batch_size, len(starts), config.seed)
        generator = torch.Generator().manual_seed(noise_key(config.seed, self.step, 0))
        heads = torch.randint(config.model.ensemble, (len(rows),), generator=generator)
        rows, heads = rows.to(starts.device), heads.to(starts.device)
        windows = self.data.windows(starts[rows], config.horizon)
        loss = rollout_loss(self.model, windows, heads, self._members[rows])
        self.optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimiser.step()
        self._window.append(torch.stack(loss).detach())
        self.step += 1

    # ---- looking -------------------------------------------------------------------------------

    def _check_finite(self) -> list[float]:
        """Read the terms since the last look, the only place where the host waits.

        Returns:
            Their means in the order of _TERMS.
        """
        window = torch.stack(self._window).tolist() if self._window else []
        first = self.step - len(window)
        self._window.clear()
        for i, terms in enumerate(window):
            for name, value in zip(_TERMS, terms, strict=True):
                if not math.isfinite(value):
                    raise NonFiniteError(
                        f"{name} is {value} at step {first + i}; the last good checkpoint is in "
                        f"{self.folder.last}. Try a lower learning_rate or a shorter horizon.",
                        {f"train/{n}": v for n, v in zip(_TERMS, terms, strict=True)},
                    )
        if window:
            self._means = [sum(column) / len(window) for column in zip(*window, strict=True)]
        return self._means

    def _report(self, log: RunLog, bar: "tqdm[Any]") -> None:
        means = dict(zip(_TERMS, self._check_finite(), strict=True))
        pace = {"seconds": self.seconds, "steps_per_second": self.step / max(self.seconds, 1e-9)}
        log.scalars(self.step, {f"train/{k}": v for k, v in (means | pace).items()})
        text = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        bar.set_postfix_str(f"{text}, {self.progress():.0%}")

    @torch.no_grad()
    def _validate(self, log: RunLog) -> None:
        """Score held-out windows and keep the model if its rollouts are the best so far."""
        data, config = self.study.sequences["validation"], self.config
        # Spread over the split, the same at every validation.
        picks = torch.linspace(0, len(data.starts) - 1, config.eval_windows).long().unique()
        starts = data.starts[picks.to(data.starts.device)]
        totals = torch.zeros(len(_TERMS), device=starts.device)
        self.model.eval()
        for part in starts.split(_BATCH):
            windows = data.windows(part, config.horizon)
            heads = torch.arange(len(part), device=part.device) % config.model.ensemble
            members = torch.ones(len(part), config.model.ensemble, device=part.device)
            loss = rollout_loss(self.model, windows, heads, members, weighted=False)
            totals += torch.stack(loss) * len(part) / len(starts)
        scores = dict(zip(_TERMS, totals.tolist(), strict=True))
        scores["rollout"] = scores["dynamics"] + scores["reward"] + scores["end"]
        log.scalars(self.step, {f"validation/{name}": value for name, value in scores.items()})
        log.images(self.step, {"rollouts": rollout_picture(self.model, self.study, "validation")})
        self.model.train()
        if scores["rollout"] <= self.best:
            self.best = scores["rollout"]
            self.folder.save_best(self.model, {"step": self.step, "validation": scores})

    # ---- saving --------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write the last checkpoint, having seen that it is worth going on from."""
        self._check_finite()
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise NonFiniteError(
                f"a weight is not finite at step {self.step}; the last good checkpoint is in "
                f"{self.folder.last}. Try a lower learning_rate.",
                {"train/nonfinite_weights": 1},
            )
        place = {"step": self.step, "seconds": self.seconds}
        state = {**place, "best": self.best, "optimiser": self.optimiser.state_dict()}
        self.folder.save_last(self.model, place, state)
