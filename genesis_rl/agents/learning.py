"""Training of an agent in a run directory, with evaluations, a log and checkpoints."""

import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv

from genesis_rl.agents.algorithms import build_model, fit_scale
from genesis_rl.agents.bundle import (
    SETTINGS,
    find_checkpoint,
    imagination_settings,
    read_settings,
    restore,
    save_agent,
    training_state,
)
from genesis_rl.agents.config import MACHINE, OFF_POLICY, AgentConfig, check_same_settings
from genesis_rl.agents.observations import load_encoder, make_encoder
from genesis_rl.agents.stack import check_same_stack, make_vec_env, step_seconds
from genesis_rl.checkpoints.loading import fingerprint
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.utils.files import FolderLock
from genesis_rl.utils.log import ProgressBar, RunLog
from genesis_rl.utils.process import StoppedError, StopSignal, configure_cpu, pick_device

# Offset of the evaluation environments' seeds from the training environments'.
_EVAL_SEED = 1_000_000
# Minimum seconds between checkpoints, and their maximum share of the time.
_SAVE_SECONDS, _SAVE_SHARE = 30.0, 0.02
# Maximum share of the training's time limit that an evaluation may take.
_EVAL_SHARE = 0.5
# Settings that may change when a run is resumed; encoders are compared by fingerprint.
_SCHEDULE = (
    *(*MACHINE, "encoder", "total_timesteps", "max_minutes"),
    *("eval_every", "eval_episodes", "eval_deterministic"),
)


class TrainingError(RuntimeError):
    """An environment's process ended, or a value is not finite, during training."""


class AgentTrainer:
    """Training of an agent in a run directory.

    The directory contains ``metrics.jsonl``, ``tensorboard/`` and the agents ``last/`` and
    ``best/`` for `load_agent`; ``best/`` has the highest mean return of an evaluation.

    Attributes:
        config: the settings.
        encoder: encoder of the observations; None without one.
        model: the algorithm.
        venv: the training environments.
        eval_venv: the evaluation environments.
        metrics: metrics of the evaluations of last/ and best/; empty before the first one.
        evaluation_seconds: expected duration of the evaluation at the end, for which time is kept.
    """

    def __init__(self, config: AgentConfig, *, resume: bool = False) -> None:
        """Load the encoder, create the environments and build or restore the policy.

        Args:
            config: the settings.
            resume: continue the run in the directory from its last checkpoint, if there is one.

        Raises:
            ValueError: if the directory contains a run and ``resume`` is off, or a run of other
                settings or another encoder; if it is in use by another process; if the encoder
                cannot be loaded, or the environment cannot be created or has no frames for it.
            OSError: if the directory cannot be written.
        """
        self.config = config
        self._signal = StopSignal()
        self.metrics: dict[str, dict[str, float]] = {"last": {}, "best": {}}
        self._seconds, self._began = 0.0, math.inf
        self.evaluation_seconds = 0.0
        self._next_save = 0.0
        self._lock = FolderLock(config.out)
        self._lock.acquire()
        try:
            checkpoint = self._find_checkpoint(resume)
            configure_cpu(config.threads)
            device = pick_device(config.device)
            self.pretrained = load_encoder(config)
            self.encoder: SlotEncoder | None = None
            if self.pretrained is not None:
                model, preprocessing = self.pretrained.model, self.pretrained.preprocessing
                self.encoder = make_encoder(config, model, preprocessing)
            self.eval_venv = make_vec_env(
                config,
                self.encoder,
                n_envs=min(config.n_envs, config.eval_episodes),
                seed=config.seed + _EVAL_SEED,
            )
            self.venv = self._make_venv()
            trained = self.pretrained and self.pretrained.model
            self.model = build_model(config, self.venv, device, encoder=trained)
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
        if imagination_settings(self.config.out) is not None:
            raise ValueError(
                f"out must be a new folder or a run of agents/train.py, got {self.config.out}, "
                "which contains a run of agents/train_in_imagination.py; choose another."
            )
        if home is not None:
            stored = read_settings(home / SETTINGS)["config"]
            check_same_settings(self.config, stored, self.config.out, ignore=_SCHEDULE)
        return home

    def _restore(self, checkpoint: Path) -> None:
        """Restore the training state and the metrics of the evaluations."""
        config = self.config
        encoder = self.pretrained and fingerprint(self.pretrained.model)
        self._seconds = restore(self.model, checkpoint, encoder)
        for name in self.metrics:
            path = config.out / name / SETTINGS
            if path.is_file():
                self.metrics[name] = read_settings(path)["metrics"]
        self.evaluation_seconds = self.metrics["last"].get("eval_seconds", 0.0)
        best, last = (self.metrics[n].get("mean_return", -math.inf) for n in ("best", "last"))
        if last > best:  # the run was killed between saving the two
            self.save("best", self.metrics["last"])
        # New seeds: the episodes of the interrupted run are lost.
        seeds = np.random.SeedSequence((config.seed, self.model.num_timesteps)).generate_state(2)
        train_seed, eval_seed = (int(seed) % 2**31 for seed in seeds)
        self.model.set_random_seed(train_seed)
        self.eval_venv.seed(eval_seed)

    def _make_venv(self) -> VecEnv:
        """Create the training environments, after those of the evaluation."""
        venv = make_vec_env(self.config, self.encoder, seed=self.config.seed)
        try:
            check_same_stack(venv, self.eval_venv)
        except BaseException:
            venv.close()
            raise
        return venv

    def _learn(self, callbacks: list[BaseCallback]) -> None:
        """Train for the remaining steps."""
        left = max(self.total_timesteps - self.model.num_timesteps, 0)
        # PPO logs every rollout; off-policy algorithms every few episodes of each environment.
        off_policy = self.config.algo in OFF_POLICY
        interval = 4 * self.venv.num_envs if off_policy else 1
        self.model.learn(left, callbacks, log_interval=interval, reset_num_timesteps=False)

    @property
    def total_timesteps(self) -> int:
        """Environment steps of the whole run."""
        return self.config.total_timesteps

    @property
    def seconds(self) -> float:
        """Elapsed time of training and evaluation, over all sessions."""
        return self._seconds + max(time.monotonic() - self._began, 0)

    @property
    def out_of_time(self) -> bool:
        """Whether the time left suffices only for the evaluation at the end."""
        limit = self.config.max_minutes
        return limit is not None and self.seconds + self.evaluation_seconds >= 60 * limit

    @property
    def finished(self) -> bool:
        """Whether the step or time limit is reached and the agent has been evaluated."""
        done = self.model.num_timesteps >= self.total_timesteps or self.out_of_time
        return done and self.metrics["last"].get("step") == self.model.num_timesteps

    def extra_metrics(self) -> dict[str, float]:
        """Return additional metrics of an evaluation."""
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
        """Train to the end, or until SIGINT or SIGTERM; save and close the environments.

        Does nothing for a completed run.

        Returns:
            The metrics of the best evaluation; empty without one.

        Raises:
            TrainingError: if an environment's process ended or a value is not finite. Agents saved
                before are kept.
        """
        config = self.config
        if self.finished:
            self.close()
            return self.metrics["best"]
        evaluation = _EvaluationCallback(self)
        callbacks = [_ProgressCallback(self, evaluation), evaluation]
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
            self.model.set_logger(Logger(None, [_RunLogWriter(log)]))
            try:
                self._learn(callbacks)
            except (EOFError, ConnectionError) as error:
                # A signal to the process group also ends the environments' processes.
                if not self.stopped:
                    raise TrainingError(
                        f"an environment's process ended at step {self.model.num_timesteps}; see "
                        "its output."
                    ) from error
            except RuntimeError as error:
                if "learning_starts" not in str(error):
                    raise
                raise TrainingError(
                    "off_policy.learning_starts must be at least the length of an episode times "
                    f"n_envs with her, got {config.off_policy.learning_starts}: no episode has "
                    f"ended at step {self.model.num_timesteps}."
                ) from error
            except ValueError as error:  # NaN or inf in a distribution or the encoder
                raise TrainingError(
                    f"at step {self.model.num_timesteps}: {str(error).splitlines()[0]}"
                ) from error
            finally:
                self._seconds, self._began = self.seconds, math.inf
                try:
                    if not isinstance(sys.exception(), KeyboardInterrupt):  # exits without saving
                        self._save_end()
                finally:
                    self.close()
        return self.metrics["best"]

    def run_to_end(self) -> None:
        """Train as `run` does, and raise StoppedError if a signal ended the run early."""
        self.run()
        if self.stopped:
            raise StoppedError(f"stopped in {self.config.out}", self.stop_status)

    def close(self) -> None:
        """Close the environments and release the run directory."""
        for name in ("venv", "eval_venv"):
            if hasattr(self, name):
                with suppress(EOFError, ConnectionError):  # from a process that has ended
                    getattr(self, name).close()
        self._lock.release()

    def save(self, name: str, metrics: dict[str, float]) -> None:
        """Save the current agent and its metrics to the run directory.

        The last agent is a checkpoint, with the training state. Agents with weights that are not
        finite are not saved.
        """
        if not all(p.isfinite().all() for p in self.model.policy.parameters()):
            return
        began, last = time.monotonic(), name == "last"
        self.metrics[name] = metrics
        save_agent(
            self.config.out / name,
            self.model,
            self.config,
            self.pretrained,
            metrics=metrics,
            state=training_state(self.model, self.seconds) if last else None,
        )
        if last:
            now = time.monotonic()
            self._saved_step = self.model.num_timesteps
            self._next_save = now + max(_SAVE_SECONDS, (now - began) / _SAVE_SHARE)

    def save_if_due(self) -> None:
        """Save a checkpoint if the interval since the previous one has passed."""
        if self.model.num_timesteps > self._saved_step and time.monotonic() >= self._next_save:
            self.save("last", {})

    def _save_end(self) -> None:
        """Save the last agent, also as the best one if there was no evaluation."""
        evaluated = self.metrics["last"].get("step") == self.model.num_timesteps
        self.save("last", self.metrics["last"] if evaluated else {})
        if not self.metrics["best"]:
            self.save("best", {})


class _StoppedEvaluation(Exception):  # noqa: N818 (control flow, not an error)
    """SIGINT or SIGTERM was received during an evaluation."""


class _EvaluationCallback(EvalCallback):
    """EvalCallback that saves agents by `AgentTrainer.save` and also evaluates at the end.

    Attributes:
        seconds: total time of evaluations.
    """

    def __init__(self, trainer: AgentTrainer) -> None:
        config = trainer.config
        super().__init__(
            trainer.eval_venv,
            n_eval_episodes=config.eval_episodes,
            eval_freq=max(config.eval_every // trainer.venv.num_envs, 1),
            deterministic=config.eval_deterministic,
            verbose=0,
            warn=False,
        )
        self._trainer = trainer
        self.best_mean_reward = trainer.metrics["best"].get("mean_return", -math.inf)
        self.n_calls = trainer.model.num_timesteps // trainer.venv.num_envs
        self.seconds = 0.0

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        if self._trainer.stopped:
            raise _StoppedEvaluation
        super()._log_success_callback(locals_, globals_)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq or not self.n_eval_episodes:
            return True
        try:
            return self._evaluate()
        except _StoppedEvaluation:
            return False

    def _evaluate(self) -> bool:
        began, best = time.monotonic(), self.best_mean_reward
        extra = self._trainer.extra_metrics()
        for name, value in extra.items():
            self.logger.record(f"eval/{name}", value)
        proceed = super()._on_step()
        metrics = {"step": self.num_timesteps, "mean_return": self.last_mean_reward, **extra}
        if self._is_success_buffer:
            rate = sum(self._is_success_buffer) / len(self._is_success_buffer)
            metrics["success_rate"] = rate
        seconds = metrics["eval_seconds"] = time.monotonic() - began
        self._trainer.evaluation_seconds = seconds
        # In this order, so that the log of a run resumed from last/ includes the step of best/.
        self._trainer.save("last", metrics)
        if self.best_mean_reward > best:
            self._trainer.save("best", metrics)
        self.seconds += time.monotonic() - began
        return proceed

    def _on_training_end(self) -> None:
        evaluated = self._trainer.metrics["last"].get("step") == self.num_timesteps
        if not self._trainer.stopped and not evaluated:
            if not self.n_eval_episodes:  # the time limit is too short
                self._trainer.metrics["last"] = {"step": self.num_timesteps}
                return
            every, self.eval_freq = self.eval_freq, 1
            self._on_step()
            self.eval_freq = every


class _ProgressCallback(BaseCallback):
    """Progress bar, time shares, checkpoints, and stopping at the time limit or a signal."""

    def __init__(self, trainer: AgentTrainer, evaluation: _EvaluationCallback) -> None:
        super().__init__()
        self._trainer = trainer
        self._evaluation = evaluation
        self._rollout_seconds = self._rollout_began = 0.0

    def _on_training_start(self) -> None:
        config = self._trainer.config
        limit = config.max_minutes
        self._began = time.monotonic()
        self._before = step_seconds(self._trainer.venv)
        self._time_limit: int | None = self._trainer.eval_venv.get_attr("time_limit", 0)[0]
        self._bar = ProgressBar(
            desc=config.out.name,
            total=self._trainer.total_timesteps,
            initial=self.num_timesteps,
            unit="step",
            disable=not config.progress,
            seconds=None if limit is None else 60 * limit - self._trainer.seconds,
        )

    def _on_rollout_start(self) -> None:
        self._trainer.save_if_due()
        self._rollout_began = time.monotonic()

    def _on_step(self) -> bool:
        self._bar.update(self._trainer.venv.num_envs)
        limit = self._trainer.config.max_minutes
        if limit is not None and not self._evaluation.seconds:
            self._plan_evaluation(60 * limit)
        return not (self._trainer.stopped or self._trainer.out_of_time)

    def _plan_evaluation(self, limit: float) -> None:
        """Estimate an evaluation's seconds; reduce its episodes to a share of ``limit`` seconds.

        No episode is evaluated if none has ended and the environment has no time limit, since its
        length is unknown.
        """
        trainer, evaluation = self._trainer, self._evaluation
        config, num_envs = trainer.config, trainer.eval_venv.num_envs
        lengths: list[int] = [episode["l"] for episode in self.model.ep_info_buffer or ()]
        length = sum(lengths) / len(lengths) if lengths else self._time_limit
        if length is None:  # the estimate of a resumed run is kept
            if not trainer.evaluation_seconds:
                evaluation.n_eval_episodes = 0
            return
        elapsed = self._rollout_seconds + time.monotonic() - self._rollout_began
        one_each = length * elapsed / self.n_calls  # seconds of an episode in every environment
        rounds = min(
            math.ceil(config.eval_episodes / num_envs), int(_EVAL_SHARE * limit / one_each)
        )
        evaluation.n_eval_episodes = min(config.eval_episodes, rounds * num_envs)
        trainer.evaluation_seconds = rounds * one_each

    def _on_rollout_end(self) -> None:
        """Log the time shares of environments, encoder, evaluation and the rest (learn)."""
        total = time.monotonic() - self._began
        self._rollout_seconds += time.monotonic() - self._rollout_began
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
        self._bar.set_postfix_str(self._summary(), refresh=False)

    def _on_training_end(self) -> None:
        self._bar.close()

    def _summary(self) -> str:
        """Format means over the last hundred episodes."""
        episodes, successes = self.model.ep_info_buffer, self.model.ep_success_buffer
        parts = []
        if successes:
            parts.append(f"success {sum(successes) / len(successes):.0%}")
        if episodes:
            parts.append(f"return {sum(e['r'] for e in episodes) / len(episodes):.3g}")
        return ", ".join(parts)


class _RunLogWriter(KVWriter):
    """Writes the values of Stable-Baselines3's logger to a `RunLog`."""

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
        """Do nothing: `AgentTrainer` closes the log."""
