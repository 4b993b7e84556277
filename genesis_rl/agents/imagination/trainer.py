"""Training of PPO in imagination: imagined environments, recording, refitting, real evaluations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, cast

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from genesis_rl.agents.bundle import (
    IMAGINATION,
    SETTINGS,
    find_checkpoint,
    imagination_settings,
    read_settings,
)
from genesis_rl.agents.collect import collect_with_agent
from genesis_rl.agents.config import MACHINE, AgentConfig, check_same_settings
from genesis_rl.agents.imagination.config import ImaginationConfig
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.agents.stack import StepTimer
from genesis_rl.agents.vec_obs import GymVecEnv
from genesis_rl.data.cache import SPLITS
from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import Transitions, join
from genesis_rl.envs.imagination import ImaginationOptions
from genesis_rl.envs.imagination.env import ImaginationVectorEnv
from genesis_rl.envs.make import parse_options
from genesis_rl.envs.recording.collect import CollectConfig
from genesis_rl.envs.wrappers.spaces import space_to_json
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing, as_crop
from genesis_rl.training.folder import REPORT
from genesis_rl.utils.files import read_json, write_json
from genesis_rl.utils.jobs import JobsConfig
from genesis_rl.utils.process import StoppedError
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.sequences import Sequences, encode
from genesis_rl.world_model.training import WorldTrainConfig, train_world_model

# Recorded steps per batch.
_BATCH = 1024
# Settings that may change when a run is resumed.
_MAY_CHANGE = (
    *(*MACHINE, "rounds", "collect_steps", "fit_steps", "seeds", "episodes", "summary"),
    *(field.name for field in fields(JobsConfig)),
)


@dataclass(frozen=True, eq=False)
class FittedWorldModel:
    """A world model and the recording of its training.

    Attributes:
        config: the settings.
        encoder: encoder of the world model's slots.
        world_model: the world model.
        data: folder of the recording.
        real_steps: steps of all splits of the recording.
        longest_episode: steps of its longest episode.
        max_uncertainty: uncertainty above which imagined rollouts are truncated; None: never.
    """

    config: ImaginationConfig
    encoder: SlotEncoder
    world_model: WorldModel
    data: Path
    real_steps: int
    longest_episode: int
    max_uncertainty: float | None

    @classmethod
    def load(
        cls, config: ImaginationConfig, encoder: SlotEncoder, world_model: Path, data: Path
    ) -> Self:
        """Load a world model and read its recording.

        Raises:
            ValueError: if they do not match each other, the encoder or the settings.
        """
        model = WorldModel.from_pretrained(
            world_model, encoder_fingerprint=encoder.fingerprint, device=encoder.device
        )
        if config.mask_geometry and not model.mask_geometry:
            raise ValueError(
                f"mask_geometry must be False as in the training of {world_model}, got True. Use "
                "--no-mask-geometry or a world model trained with mask geometry."
            )
        packs = [Pack.open(data / split) for split in SPLITS if (data / split).is_dir()]
        held_out = Transitions.open(data, "validation")
        check_recorded(config, encoder, held_out.pack)
        spec = model.slot_spec
        features = encode(held_out, encoder, align=spec.aligned)[..., : spec.num_features]
        sequences = Sequences.of(held_out, features, model.action_spec, encoder.device)
        lengths = Transitions.open(data, "train").episodes
        quantile = config.uncertainty_quantile
        return cls(
            config,
            encoder,
            model,
            data,
            sum(pack.meta["steps"] for pack in packs or [held_out.pack]),
            int((lengths[:, 1] - lengths[:, 0]).max()),
            _uncertainty_quantile(model, sequences, quantile) if quantile < 1 else None,
        )

    def training_envs(self, action_space: gym.Space[Any]) -> StepTimer:
        """Create the imagined environments of the training.

        ``action_space`` is that of the real environment, equivalent to the world model's.
        """
        options = self.config.imagination_options(self.data, self.max_uncertainty)
        return self._make(options, self.config.n_imagined_envs, action_space)

    def evaluation_envs(self, action_space: gym.Space[Any]) -> StepTimer:
        """Create imagined environments of whole episodes from recorded initial frames.

        Their returns are comparable with those of the real environment.
        """
        options = ImaginationOptions(
            start="data",
            data=str(self.data),
            temperature=self.config.temperature,
            model_temperature=self.config.model_temperature,
            horizon=self.longest_episode,
        )
        return self._make(options, self.config.eval_episodes, action_space)

    def _make(
        self, options: ImaginationOptions, n_envs: int, action_space: gym.Space[Any]
    ) -> StepTimer:
        envs = GymVecEnv(
            ImaginationVectorEnv(
                self.encoder,
                self.world_model,
                n_envs,
                autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
                mask_geometry=self.config.mask_geometry,
                **asdict(options),
            )
        )
        # Bounds and dtype of the real environment, for which the policy is trained.
        envs.action_space = action_space
        return StepTimer(VecMonitor(envs))


def check_actions(
    config: AgentConfig, world_model: WorldModel, action_space: gym.Space[Any]
) -> None:
    """Check that the actions of the real environment are those of the world model.

    Raises:
        ValueError: naming both.
    """
    spec = ActionSpec.from_json(space_to_json(action_space))
    if spec != world_model.action_spec:
        raise ValueError(
            f"env must have the actions of the world model, {world_model.action_spec.to_json()}, "
            f"got {config.env!r} with {spec.to_json()}."
        )


def check_recorded(config: AgentConfig, encoder: SlotEncoder, pack: Pack) -> None:
    """Check that a recording is of the agent's environment, if it contains the settings.

    Raises:
        ValueError: naming the settings that differ.
    """
    settings: Mapping[str, Any] = pack.meta.get("settings", {})
    env = settings.get("env")
    if env is None:  # not recorded by this package
        return
    agent = pack.meta.get("agent", {}).get("config", {})  # overridden by the recorder's settings
    options = [parse_options(part.get("env_options", "{}")) for part in (agent, settings)]
    crop = as_crop(settings.get("crop") or agent.get("crop"))
    recorded = {"env": _short(env), "crop": crop, **options[0], **options[1]}
    crop = config.crop or encoder.preprocessing.crop
    current = {"env": _short(config.env), "crop": crop, **config.options}
    names = [name for name in {**recorded, **current} if not name.endswith("_in_info")]
    changed = [name for name in names if recorded.get(name) != current.get(name)]
    if changed:
        details = "; ".join(f"{n} {recorded.get(n)!r}, got {current.get(n)!r}" for n in changed)
        raise ValueError(
            f"env, env_options and crop must be those of the recording {pack.folder}: {details}."
        )


def _short(env: str) -> str:
    """Return an id without the module that registers it."""
    return env.rpartition(":")[2]


def _uncertainty_quantile(world_model: WorldModel, sequences: Sequences, quantile: float) -> float:
    """Compute a quantile of the uncertainty over all recorded steps."""
    parts = [
        world_model.step(sequences.features[rows], sequences.actions[rows]).uncertainty
        for rows in sequences.starts.split(_BATCH)
    ]
    return float(torch.cat(parts).quantile(quantile))


def record_and_refit(
    config: ImaginationConfig, number: int, world_model: WorldModel
) -> tuple[Path, Path]:
    """Record the agent in ``last/`` and fit a new world model to all recorded data.

    Completed steps are not repeated.

    Args:
        config: the settings.
        number: number of the round, from 1.
        world_model: the previous world model, whose config and slot spec the new one has.

    Returns:
        The folders of the new world model and of all recorded data.

    Raises:
        StoppedError: after SIGINT or SIGTERM.
    """
    folders = [config.out / f"round-{n}" for n in range(1, number + 1)]
    home = folders[-1]
    try:
        if not (home / "recording").exists():
            _record(config, home / "recording", number)
        if not (home / "data").exists():
            join([config.data, *(folder / "recording" for folder in folders)], home / "data")
        if not (home / "world" / REPORT).exists():
            train_world_model(
                WorldTrainConfig(
                    str(config.out / "last" / "encoder"),
                    home / "data",
                    model=world_model.config,
                    mask_geometry=world_model.slot_spec.mask_geometry,
                    align=world_model.slot_spec.aligned,
                    steps=config.fit_steps,
                    device=config.encoder_device,
                    threads=config.threads,
                    seed=config.seed,
                    out=home / "world",
                    resume=True,
                    tensorboard=config.tensorboard,
                )
            )
    except StoppedError as error:
        raise StoppedError(f"stopped in {home}", error.status) from error
    return home / "world", home / "data"


def _record(config: ImaginationConfig, folder: Path, number: int) -> None:
    """Record the agent with the settings of the first recording and other seeds."""
    first = Pack.open(config.data / "train")
    preprocessing = first.preprocessing or Preprocessing()
    collect_with_agent(
        CollectConfig(
            agent=str(config.out / "last"),
            out=folder,
            steps=config.collect_steps,
            image_size=first.meta["image_size"][0],
            resize=preprocessing.resize,
            n_envs=config.n_envs,
            vec=config.vec,
            seed=(config.seed + number * 1_000_003) % 2**31,
            trust_remote_code=True,  # the settings come from the command line
        )
    )


class ImaginationTrainer(AgentTrainer):
    """Training of an agent in imagination, in a run directory like that of `AgentTrainer`.

    In the log, ``rollout/`` is of imagined rollouts and ``eval/`` of the real environment, except
    for ``eval/imagined_return``, the mean return of whole imagined episodes. ``round-k/`` contains
    the recording and the world model of round k.

    An existing run in the directory is resumed from the checkpoint in ``last/``.
    """

    def __init__(self, config: ImaginationConfig) -> None:
        """Load the models, create the environments, and build or restore the policy.

        Raises:
            ValueError: if encoder, world model, recording and environment do not match, or the
                directory contains a run with other settings.
        """
        self._imagination = config
        super().__init__(config.agent)
        write_json(config.out / IMAGINATION, config.to_json())

    @property
    def real_steps(self) -> int:
        """Real steps in the training data of the agent's world model."""
        # The world model of a completed run's last round is not loaded again.
        return max(self._fitted.real_steps, int(self.metrics["last"].get("real_steps", 0)))

    @property
    def total_timesteps(self) -> int:
        """Imagined steps of all rounds."""
        return (self._imagination.rounds + 1) * self._imagination.round_steps

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """Return the checkpoint to resume from; runs of the same settings are always resumed."""
        out = self.config.out
        path = imagination_settings(out)
        if path is None:
            return super()._find_checkpoint(resume)
        check_same_settings(self._imagination, read_json(path), out, ignore=_MAY_CHANGE)
        home = find_checkpoint(out, resume=True)
        if home is not None:
            self._check_env(read_settings(home / SETTINGS)["config"], home)
        return home

    def _check_env(self, stored: dict[str, Any], home: Path) -> None:
        """Check that an agent has this environment, whose names in its settings are imported."""
        current = self.config.to_json()
        for name in ("env", "env_options", "wrappers"):
            if stored.get(name) != current[name]:
                raise ValueError(
                    f"{name} must be {stored.get(name)!r} as in {home}, got {current[name]!r}; use "
                    "another out."
                )

    def _make_venv(self) -> VecEnv:
        """Create imagined environments of the given world model."""
        config = self._imagination
        fitted = FittedWorldModel.load(config, self._slot_encoder, config.world_model, config.data)
        check_actions(config, fitted.world_model, self.eval_venv.action_space)
        return self._make_imagined(fitted)

    @property
    def _slot_encoder(self) -> SlotEncoder:
        return cast("SlotEncoder", self.encoder)  # required by ImaginationConfig

    def _make_imagined(self, fitted: FittedWorldModel) -> VecEnv:
        """Create the imagined environments of evaluation and training."""
        self._fitted = fitted
        action_space = self.eval_venv.action_space
        self._imagined_eval_venv = fitted.evaluation_envs(action_space)
        return fitted.training_envs(action_space)

    def _learn(self, callbacks: list[BaseCallback]) -> None:
        """Train in imagination; in later rounds, record and refit the world model before."""
        config, model = self._imagination, self.model
        for number in range(model.num_timesteps // config.round_steps, config.rounds + 1):
            if number:
                try:
                    world_model, data = record_and_refit(config, number, self._fitted.world_model)
                except StoppedError as error:
                    self._signal.signum = error.status - 128
                    return
                self.venv = self._make_imagined(
                    FittedWorldModel.load(config, self._slot_encoder, world_model, data)
                )
                model.set_env(self.venv)
            model.set_random_seed((config.seed + model.num_timesteps) % 2**31)
            left = (number + 1) * config.round_steps - model.num_timesteps
            callback = _ImaginationCallback(self)
            model.learn(left, [*callbacks, callback], reset_num_timesteps=False)
            if self.stopped:
                return

    def extra_metrics(self) -> dict[str, float]:
        """Return the mean return of whole imagined episodes, and the number of real steps."""
        self._imagined_eval_venv.seed(self.config.seed)  # the same episodes at every evaluation
        returns, _ = evaluate_policy(
            self.model,
            self._imagined_eval_venv,
            self.config.eval_episodes,
            deterministic=self.config.eval_deterministic,
            return_episode_rewards=True,
        )
        return {"imagined_return": float(np.mean(returns)), "real_steps": float(self.real_steps)}


class _ImaginationCallback(BaseCallback):
    """Logs the uncertainty and truncations of imagined rollouts."""

    def __init__(self, trainer: ImaginationTrainer) -> None:
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
        self.logger.record("imagination/uncertainty", float(np.mean(self._uncertainty)))
        self.logger.record("imagination/real_steps", self._trainer.real_steps)
        if self._ends:
            uncertain, non_finite = np.mean(self._ends, axis=0)
            self.logger.record("imagination/truncated_uncertain", float(uncertain))
            self.logger.record("imagination/truncated_non_finite", float(non_finite))
        self._uncertainty.clear()
        self._ends.clear()
