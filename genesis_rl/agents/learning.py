"""Training an agent: one run in one folder, with evaluations, a log and a clean end."""

import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from genesis_rl.agents.bundle import SETTINGS, read_settings, save_agent
from genesis_rl.agents.config import MACHINE, AgentConfig, check_same_settings
from genesis_rl.agents.encoders import load_encoder, make_encoder
from genesis_rl.agents.resume import DREAM, find_checkpoint, restore, training_state
from genesis_rl.agents.same_stack import check_same_stack
from genesis_rl.agents.stack import (
    build_ppo,
    fit_scale,
    make_vec_env,
    step_seconds,
)
from genesis_rl.checkpoint import fingerprint, pick_device
from genesis_rl.files import FolderLock
from genesis_rl.log import RunLog
from genesis_rl.perception import SlotEncoder
from genesis_rl.process import StopSignal, keep_freed_memory

# Evaluations see other episodes than training, whose environments count up from the seed.
_EVAL_SEED = 1_000_000
# Checkpoints between evaluations: so long apart, and no more than this share of the time.
_SAVE_SECONDS, _SAVE_SHARE = 30.0, 0.02
# Settings that may change when a run is resumed; encoders are compared by their fingerprints.
_SCHEDULE = (
    *(*MACHINE, "encoder", "total_steps", "max_minutes"),
    *("eval_every", "eval_episodes", "eval_greedy"),
)


class TrainingError(RuntimeError):
    """An environment's process ended, or a number is not finite, in the middle of a training."""


class AgentTrainer:
    """One training of an agent in one folder.

    The folder holds ``metrics.jsonl`` and ``tensorboard/``, and the agents ``last/`` and ``best/``
    as `load_agent` takes them, the best by the mean return of an evaluation.

    Attributes:
        config: the settings.
        encoder: what it sees through; None where it sees without.
        model: PPO.
        venv: the environments it learns in.
        eval_venv: the environments it is evaluated in.
        figures: of the evaluations of the agents in last/ and best/; empty before there was one.
    """

    def __init__(self, config: AgentConfig, *, resume: bool = False) -> None:
        """Load the encoder, make the environments and build or restore the policy.

        Args:
            config: the settings.
            resume: continue the run in the folder from its last checkpoint, if there is one.

        Raises:
            ValueError: if the folder holds a run that is not resumed, or one of other settings or
                another encoder; if another process writes the folder; if the encoder cannot be
                loaded, or the environment cannot be made or has no frames that the encoder takes.
            OSError: if the folder cannot be written.
        """
        self.config = config
        self._signal = StopSignal()
        self.figures: dict[str, dict[str, float]] = {"last": {}, "best": {}}
        self._seconds, self._began = 0.0, math.inf
        self._next_save = 0.0
        self._lock = FolderLock(config.out)
        self._lock.acquire()
        try:
            checkpoint = self._find_checkpoint(resume)
            if config.threads is not None:
                torch.set_num_threads(config.threads)
            keep_freed_memory()
            device = pick_device(config.device)
            self.pretrained = load_encoder(config)
            self.encoder: SlotEncoder | None = None
            if self.pretrained is not None:
                model, preprocessing = self.pretrained.model, self.pretrained.preprocessing
                self.encoder = make_encoder(config, model, preprocessing)
            self.eval_venv = make_vec_env(
                config,
                self.encoder,
                num_envs=min(config.num_envs, config.eval_episodes),
                seed=config.seed + _EVAL_SEED,
            )
            self.venv = self._make_venv()
            start = self.pretrained and self.pretrained.model
            self.model = build_ppo(config, self.venv, device, model=start)
            if checkpoint is None:
                fit_scale(self.model, self.venv, config.seed)
            else:
                self._restore(checkpoint)
        except BaseException:
            self.close()
            raise
        self._saved_step = self.model.num_timesteps

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """Return the checkpoint to resume from; None to start at step 0."""
        home = find_checkpoint(self.config.out, resume=resume)
        if (self.config.out / DREAM).exists():
            raise ValueError(
                f"out must be a new folder or a run of agents/train.py, got {self.config.out}, "
                "which contains a run of agents/dream.py; choose another."
            )
        if home is not None:
            stored = read_settings(home / SETTINGS)["config"]
            check_same_settings(self.config, stored, self.config.out, ignore=_SCHEDULE)
        return home

    def _restore(self, checkpoint: Path) -> None:
        """Restore the training state and the figures of the evaluations."""
        config = self.config
        encoder = self.pretrained and fingerprint(self.pretrained.model)
        self._seconds = restore(self.model, checkpoint, encoder)
        for name in self.figures:
            path = config.out / name / SETTINGS
            if path.is_file():
                self.figures[name] = read_settings(path)["metrics"]
        best, last = (self.figures[n].get("mean_return", -math.inf) for n in ("best", "last"))
        if last > best:  # a kill came between the two
            self.save("best", self.figures["last"])
        # As an uninterrupted run would not: the episodes that it was in are gone.
        seeds = np.random.SeedSequence((config.seed, self.model.num_timesteps)).generate_state(2)
        train_seed, eval_seed = (int(seed) % 2**31 for seed in seeds)
        self.model.set_random_seed(train_seed)
        self.eval_venv.seed(eval_seed)

    def _make_venv(self) -> VecEnv:
        """Make the environments to learn in; those of the evaluation are there."""
        venv = make_vec_env(self.config, self.encoder, seed=self.config.seed)
        try:
            check_same_stack(venv, self.eval_venv)
        except BaseException:
            venv.close()
            raise
        return venv

    def _learn(self, callbacks: list[BaseCallback]) -> None:
        """Take all steps that are left."""
        left = max(self.total_steps - self.model.num_timesteps, 0)
        self.model.learn(left, callbacks, reset_num_timesteps=False)

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole run."""
        return self.config.total_steps

    @property
    def seconds(self) -> float:
        """Time spent in training and evaluation, over all sessions."""
        return self._seconds + max(time.monotonic() - self._began, 0)

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit is reached."""
        limit = self.config.max_minutes
        return limit is not None and self.seconds >= 60 * limit

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or the time is spent, and the agent has been evaluated."""
        done = self.model.num_timesteps >= self.total_steps or self.out_of_time
        return done and self.figures["last"].get("step") == self.model.num_timesteps

    def further_figures(self) -> dict[str, float]:
        """What an evaluation is to tell beside returns and successes."""
        return {}

    @property
    def stopped(self) -> bool:
        """Whether SIGINT or SIGTERM ended the run early."""
        return self._signal.received

    @property
    def stop_status(self) -> int:
        """The exit status of a process whose run was stopped: 130 after SIGINT, else 143."""
        return self._signal.status

    def run(self) -> dict[str, float]:
        """Train to the end, or until SIGINT or SIGTERM, which saves and leaves; close everything.

        A run that was finished when it was restored is left as it is.

        Returns:
            The figures of the best evaluation; empty if there was none.

        Raises:
            TrainingError: if an environment's process ended or a number is not finite. The agents
                saved by then stay.
        """
        config = self.config
        if self.finished:
            self.close()
            return self.figures["best"]
        evaluation = _Evaluation(self)
        callbacks = [_Progress(self, evaluation), evaluation]
        self._began = time.monotonic()
        with (
            RunLog(
                config.out,
                tensorboard=config.tensorboard,
                wandb=config.wandb,
                config=config.to_json(),
                resume_step=self.model.num_timesteps,
            ) as log,
            self._signal,
        ):
            self.model.set_logger(Logger(None, [_ToRunLog(log)]))
            try:
                self._learn(callbacks)
            except (EOFError, ConnectionError) as error:
                # A signal to the whole process group ends the environments' processes, too.
                if not self.stopped:
                    raise TrainingError(
                        f"an environment's process ended at step {self.model.num_timesteps}; what "
                        "it printed says why."
                    ) from error
            except ValueError as error:  # a distribution or the encoder met a number that is none
                raise TrainingError(
                    f"at step {self.model.num_timesteps}: {str(error).splitlines()[0]}"
                ) from error
            finally:
                self._seconds, self._began = self.seconds, math.inf
                try:
                    if not isinstance(sys.exception(), KeyboardInterrupt):  # that ends at once
                        self._save_end()
                finally:
                    self.close()
        return self.figures["best"]

    def close(self) -> None:
        """Close the environments, and let other processes write the folder."""
        for name in ("venv", "eval_venv"):
            if hasattr(self, name):
                with suppress(EOFError, ConnectionError):  # of a process that is gone
                    getattr(self, name).close()
        self._lock.release()

    def save(self, name: str, figures: dict[str, float]) -> None:
        """Write the agent as it is to the run's folder, with figures that say how good it is.

        The last agent is a checkpoint, with the training state. Weights that are not finite are
        not written: what was saved before them stays.
        """
        if not all(p.isfinite().all() for p in self.model.policy.parameters()):
            return
        began, last = time.monotonic(), name == "last"
        self.figures[name] = figures
        save_agent(
            self.config.out / name,
            self.model,
            self.config,
            self.pretrained,
            metrics=figures,
            state=training_state(self.model, self.seconds) if last else None,
        )
        if last:
            now = time.monotonic()
            self._saved_step = self.model.num_timesteps
            self._next_save = now + max(_SAVE_SECONDS, (now - began) / _SAVE_SHARE)

    def save_if_due(self) -> None:
        """Save the last agent if the previous save is some time ago."""
        if self.model.num_timesteps > self._saved_step and time.monotonic() >= self._next_save:
            self.save("last", {})

    def _save_end(self) -> None:
        """Save the last agent, and as the best one where no evaluation has chosen any."""
        seen = self.figures["last"].get("step") == self.model.num_timesteps
        self.save("last", self.figures["last"] if seen else {})
        if not self.figures["best"]:
            self.save("best", {})


class _StoppedEvaluation(Exception):  # noqa: N818 (a way out, not an error)
    """SIGINT or SIGTERM has come in an evaluation."""


class _Evaluation(EvalCallback):
    """Stable-Baselines3's evaluation, once more at the end, that saves agents of ours.

    Attributes:
        seconds: that evaluations took in all.
    """

    def __init__(self, trainer: AgentTrainer) -> None:
        config = trainer.config
        super().__init__(
            trainer.eval_venv,
            n_eval_episodes=config.eval_episodes,
            eval_freq=max(config.eval_every // trainer.venv.num_envs, 1),
            deterministic=config.eval_greedy,
            verbose=0,
            warn=False,
        )
        self._trainer = trainer
        self.best_mean_reward = trainer.figures["best"].get("mean_return", -math.inf)
        self.n_calls = trainer.model.num_timesteps // trainer.venv.num_envs
        self.seconds = 0.0

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        if self._trainer.stopped:
            raise _StoppedEvaluation
        super()._log_success_callback(locals_, globals_)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        try:
            return self._evaluate()
        except _StoppedEvaluation:
            return False

    def _evaluate(self) -> bool:
        began, best = time.monotonic(), self.best_mean_reward
        further = self._trainer.further_figures()
        for name, value in further.items():
            self.logger.record(f"eval/{name}", value)
        go_on = super()._on_step()
        figures = {"step": self.num_timesteps, "mean_return": self.last_mean_reward, **further}
        if self._is_success_buffer:
            rate = sum(self._is_success_buffer) / len(self._is_success_buffer)
            figures["success_rate"] = rate
        # In this order, so that the log of a run resumed from the last one contains the best one.
        self._trainer.save("last", figures)
        if self.best_mean_reward > best:
            self._trainer.save("best", figures)
        self.seconds += time.monotonic() - began
        return go_on

    def _on_training_end(self) -> None:
        evaluated = self._trainer.figures["last"].get("step") == self.num_timesteps
        if not self._trainer.stopped and not evaluated:
            every, self.eval_freq = self.eval_freq, 1
            self._on_step()
            self.eval_freq = every


class _Progress(BaseCallback):
    """The progress bar, where the time goes, and the end by time or by signal."""

    def __init__(self, trainer: AgentTrainer, evaluation: _Evaluation) -> None:
        super().__init__()
        self._trainer = trainer
        self._evaluation = evaluation

    def _on_training_start(self) -> None:
        config = self._trainer.config
        self._began = time.monotonic()
        self._before = step_seconds(self._trainer.venv)
        self._bar = tqdm(
            total=self._trainer.total_steps,
            initial=self.num_timesteps,
            unit="step",
            disable=not config.progress,
        )

    def _on_rollout_start(self) -> None:
        self._trainer.save_if_due()

    def _on_step(self) -> bool:
        self._bar.update(self._trainer.venv.num_envs)
        return not (self._trainer.stopped or self._trainer.out_of_time)

    def _on_rollout_end(self) -> None:
        """Log the shares of the time since the start; learning is all but the other three."""
        total = time.monotonic() - self._began
        env, encode = (
            now - before
            for now, before in zip(step_seconds(self._trainer.venv), self._before, strict=True)
        )
        evaluate = self._evaluation.seconds
        learn = total - env - encode - evaluate
        shares = {"env": env, "encode": encode, "evaluate": evaluate, "learn": learn}
        for name, seconds in shares.items():
            self.logger.record(f"time/{name}_share", seconds / total)
        self.logger.record("time/seconds", self._trainer.seconds)
        self._bar.set_postfix_str(self._summary())

    def _on_training_end(self) -> None:
        self._bar.close()

    def _summary(self) -> str:
        """Means over the last hundred episodes."""
        episodes, successes = self.model.ep_info_buffer, self.model.ep_success_buffer
        parts = []
        if successes:
            parts.append(f"success {sum(successes) / len(successes):.0%}")
        if episodes:
            parts.append(f"return {sum(e['r'] for e in episodes) / len(episodes):.3g}")
        return ", ".join(parts)


class _ToRunLog(KVWriter):
    """Hands the numbers of Stable-Baselines3's logger to ours."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        self._log.scalars(
            step,
            {
                name: float(value)
                for name, value in sorted(key_values.items())
                if "tensorboard" not in key_excluded[name] and not isinstance(value, str)
            },
        )

    def close(self) -> None:
        """The run's log is closed by who opened it."""
