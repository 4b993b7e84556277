"""Imagined environments for Stable-Baselines3, and the world model behind them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import torch
from stable_baselines3.common.vec_env import VecMonitor

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.imagination.config import ImaginationConfig
from genesis_rl.agents.stack import StepTimer
from genesis_rl.agents.vec_obs import GymVecEnv
from genesis_rl.data.cache import SPLITS
from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.imagination import ImaginationOptions
from genesis_rl.envs.imagination.env import ImaginationVectorEnv
from genesis_rl.envs.make import parse_options
from genesis_rl.envs.wrappers.spaces import space_to_json
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import as_crop
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.sequences import Sequences, encode

_BATCH = 1024


@dataclass(frozen=True, eq=False)
class FittedWorldModel:
    """A world model and the recording of its training.

    Attributes:
        world_model: the world model.
        data: folder of the recording.
        real_steps: steps of all splits of the recording.
        longest_episode: steps of its longest episode.
        max_uncertainty: uncertainty above which imagined rollouts are truncated; None: never.
    """

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
            model,
            data,
            sum(pack.meta["steps"] for pack in packs or [held_out.pack]),
            int((lengths[:, 1] - lengths[:, 0]).max()),
            _uncertainty_quantile(model, sequences, quantile) if quantile < 1 else None,
        )

    def training_envs(
        self, config: ImaginationConfig, encoder: SlotEncoder, action_space: gym.Space[Any]
    ) -> StepTimer:
        """Create the imagined environments of the training.

        Args:
            config: the settings.
            encoder: encoder of the world model's slots.
            action_space: action space of the real environment, equivalent to the world model's.
        """
        options = config.imagination_options(self.data, self.max_uncertainty)
        return self._make(config, encoder, action_space, options, config.n_imagined_envs)

    def evaluation_envs(
        self, config: ImaginationConfig, encoder: SlotEncoder, action_space: gym.Space[Any]
    ) -> StepTimer:
        """Create imagined environments of whole episodes from recorded initial frames.

        Their returns are comparable with those of the real environment.
        """
        options = ImaginationOptions(
            start="data",
            data=str(self.data),
            temperature=config.temperature,
            model_temperature=config.model_temperature,
            horizon=self.longest_episode,
        )
        return self._make(config, encoder, action_space, options, config.eval_episodes)

    def _make(
        self,
        config: ImaginationConfig,
        encoder: SlotEncoder,
        action_space: gym.Space[Any],
        options: ImaginationOptions,
        n_envs: int,
    ) -> StepTimer:
        envs = GymVecEnv(
            ImaginationVectorEnv(
                encoder,
                self.world_model,
                n_envs,
                autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
                mask_geometry=config.mask_geometry,
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
