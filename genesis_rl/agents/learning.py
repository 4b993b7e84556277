"""Training an agent: one run in one folder, with evaluations, a log and a clean end."""

import math
import time
from contextlib import suppress
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from genesis_rl.agents.bundle import recover_agent, save_agent
from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.encoders import load_encoder, make_encoder
from genesis_rl.agents.same_stack import check_same_stack
from genesis_rl.agents.stack import (
    build_ppo,
    fit_scale,
    make_vec_env,
    step_seconds,
)
from genesis_rl.checkpoint import pick_device
from genesis_rl.files import FolderLock
from genesis_rl.log import FILE, RunLog
from genesis_rl.perception import SlotEncoder
from genesis_rl.process import StopSignal, keep_freed_memory

# Evaluations see other episodes than training, whose environments count up from the seed.
_EVAL_SEED = 1_000_000


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

    def __init__(self, config: AgentConfig) -> None:
        """Load the encoder, make the environments and build the policy.

        Raises:
            ValueError: if the folder holds a run, another process writes it, the encoder cannot be
                loaded, or the environment cannot be made or has no frames that the encoder takes.
            OSError: if the folder cannot be written.
        """
        self.config = config
        self._signal = StopSignal()
        self.figures: dict[str, dict[str, float]] = {"last": {}, "best": {}}
        self._lock = FolderLock(config.out)
        self._lock.acquire()
        try:
            self._check_folder()
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
            fit_scale(self.model, self.venv, config.seed)
        except BaseException:
            self.close()
            raise

    def _check_folder(self) -> None:
        """Refuse a folder that is in use."""
        out = self.config.out
        if recover_agent(out) is not None or (out / FILE).exists():
            raise ValueError(f"out {out} already holds a run; choose another.")

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
        """Take all the steps."""
        self.model.learn(self.config.total_steps, callbacks)

    def further_figures(self) -> dict[str, float]:
        """What an evaluation is to tell beside returns and successes."""
        return {}

    @property
    def stopped(self) -> bool:
        """Whether SIGTERM ended the run early."""
        return self._signal.received

    def run(self) -> dict[str, float]:
        """Train to the end, or until SIGTERM, which saves and leaves; then close everything.

        Returns:
            The figures of the best evaluation; empty if there was none.

        Raises:
            TrainingError: if an environment's process ended or a number is not finite. The agents
                saved by then stay.
        """
        config = self.config
        evaluation = _Evaluation(self)
        callbacks = [_Progress(self, evaluation), evaluation]
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
                try:
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
        """Write the agent as it is to the run's folder, with figures that say how good it is."""
        self.figures[name] = figures
        save_agent(
            self.config.out / name, self.model, self.config, self.pretrained, metrics=figures
        )

    def _save_end(self) -> None:
        """Save the last agent, and as the best one where no evaluation has chosen any."""
        finite = all(p.isfinite().all() for p in self.model.policy.parameters())
        if not finite:
            return
        seen = self.figures["last"].get("step") == self.model.num_timesteps
        self.save("last", self.figures["last"] if seen else {})
        if not self.figures["best"]:
            self.save("best", {})


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
        self.seconds = 0.0

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        began, best = time.monotonic(), self.best_mean_reward
        further = self._trainer.further_figures()
        for name, value in further.items():
            self.logger.record(f"eval/{name}", value)
        go_on = super()._on_step()
        figures = {"step": self.num_timesteps, "mean_return": self.last_mean_reward, **further}
        if self._is_success_buffer:
            rate = sum(self._is_success_buffer) / len(self._is_success_buffer)
            figures["success_rate"] = rate
        if self.best_mean_reward > best:
            self._trainer.save("best", figures)
        self._trainer.save("last", figures)
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
        self._limit = math.inf if config.max_minutes is None else 60 * config.max_minutes
        self._began = time.monotonic()
        self._before = step_seconds(self._trainer.venv)
        self._bar = tqdm(total=config.total_steps, unit="step", disable=not config.progress)

    def _on_step(self) -> bool:
        self._bar.update(self._trainer.venv.num_envs)
        return not self._trainer.stopped and time.monotonic() - self._began < self._limit

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
