"""Practising in dreams: PPO in imagination, evaluated in reality, round by round."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from genesis_rl.agents.bundle import SETTINGS, read_settings
from genesis_rl.agents.config import MACHINE, check_same_settings
from genesis_rl.agents.dreaming.config import DreamConfig
from genesis_rl.agents.dreaming.dreams import Source, check_actions
from genesis_rl.agents.dreaming.rounds import go_round
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.agents.resume import DREAM, find_checkpoint
from genesis_rl.files import read_json, write_json
from genesis_rl.perception import SlotEncoder
from genesis_rl.process import StoppedError

# Settings that may change when a run is resumed.
_ASIDE = (*MACHINE, "iterate", "collect_steps", "fit_steps", "seeds", "episodes", "summary")


class DreamTrainer(AgentTrainer):
    """One training of an agent in dreams, in a folder as `AgentTrainer` leaves it.

    The log's ``rollout/`` is of dreams, its ``eval/`` of reality but for ``eval/dream_return``,
    what the policy earns in dreams of whole episodes. The k-th iteration's recording and world
    model lie in ``round-k/``.

    A run in the folder is resumed from the checkpoint in ``last/``.
    """

    def __init__(self, config: DreamConfig) -> None:
        """Load the models, make dreams and the real environment, and build or load the policy.

        Raises:
            ValueError: if encoder, world model, recording and environment do not fit each other,
                or the folder holds a run with other settings.
        """
        self._dream_config = config
        super().__init__(config.agent)
        write_json(config.out / DREAM, config.to_json())

    @property
    def real_steps(self) -> int:
        """Steps in reality that the agent has learned from so far, by way of its world model."""
        # The source of a run that has ended is not opened again.
        return max(self._source.real_steps, int(self.figures["last"].get("real_steps", 0)))

    @property
    def total_steps(self) -> int:
        """Steps in dreams of all practices."""
        return (self._dream_config.iterate + 1) * self._dream_config.round_steps

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """Return the checkpoint to resume from; a run with the same settings needs no consent."""
        out, path = self.config.out, self.config.out / DREAM
        if not path.exists():
            return super()._find_checkpoint(resume)
        check_same_settings(self._dream_config, read_json(path), out, ignore=_ASIDE)
        home = find_checkpoint(out, resume=True)
        if home is not None:
            self._check_env(read_settings(home / SETTINGS)["config"], home)
        return home

    def _check_env(self, stored: dict[str, Any], home: Path) -> None:
        """Refuse an agent of another environment: what its settings name would be imported."""
        mine = self.config.to_json()
        for name in ("env", "env_options", "wrappers"):
            if stored.get(name) != mine[name]:
                raise ValueError(
                    f"{name} must be {stored.get(name)!r} as in {home}, got {mine[name]!r}; use "
                    "another out."
                )

    def _make_venv(self) -> VecEnv:
        """Dream of the recording that was given."""
        config = self._dream_config
        source = Source.open(config, self._eyes, config.world_model, config.data)
        check_actions(config, source.world, self.eval_venv.action_space)
        return self._enter(source)

    @property
    def _eyes(self) -> SlotEncoder:
        return cast("SlotEncoder", self.encoder)  # DreamConfig wants one

    def _enter(self, source: Source) -> VecEnv:
        """Make the dreams of a source."""
        self._source = source
        given = self._dream_config, self._eyes, self.eval_venv.action_space
        self._mirror = source.mirror(*given)
        return source.dreams(*given)

    def _learn(self, callbacks: list[BaseCallback]) -> None:
        """Practise; then record, fit and practise again, as often as asked for."""
        config, model = self._dream_config, self.model
        for number in range(model.num_timesteps // config.round_steps, config.iterate + 1):
            if number:
                try:
                    world, data = go_round(config, number, self._source.world)
                except StoppedError as error:
                    self._signal.signum = error.status - 128
                    return
                self.venv = self._enter(Source.open(config, self._eyes, world, data))
                model.set_env(self.venv)
            model.set_random_seed((config.seed + model.num_timesteps) % 2**31)
            left = (number + 1) * config.round_steps - model.num_timesteps
            model.learn(left, [*callbacks, _Watch(self)], reset_num_timesteps=False)
            if self.stopped:
                return

    def further_figures(self) -> dict[str, float]:
        """What the policy earns in dreams of whole episodes, and what reality has cost."""
        self._mirror.seed(self.config.seed)  # the same episodes at every evaluation
        returns, _ = evaluate_policy(
            self.model,
            self._mirror,
            self.config.eval_episodes,
            deterministic=self.config.eval_greedy,
            return_episode_rewards=True,
        )
        return {"dream_return": float(np.mean(returns)), "real_steps": float(self.real_steps)}


class _Watch(BaseCallback):
    """Logs how far the dreams can be trusted."""

    def __init__(self, trainer: DreamTrainer) -> None:
        super().__init__()
        self._trainer = trainer
        self._uncertainty: list[float] = []
        self._ends: list[tuple[bool, bool]] = []

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        self._uncertainty += [info["uncertainty"] for info in infos]
        ended = [info for info in infos if "terminal_observation" in info]
        self._ends += [(info["uncertain"], info["non_finite"]) for info in ended]
        return True

    def _on_rollout_end(self) -> None:
        self.logger.record("dream/uncertainty", float(np.mean(self._uncertainty)))
        self.logger.record("dream/real_steps", self._trainer.real_steps)
        if self._ends:
            uncertain, lost = np.mean(self._ends, axis=0)
            self.logger.record("dream/cut_uncertain", float(uncertain))
            self.logger.record("dream/cut_non_finite", float(lost))
        self._uncertainty.clear()
        self._ends.clear()
