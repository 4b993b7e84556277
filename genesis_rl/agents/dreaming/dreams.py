"""Dreams as Stable-Baselines3's environments, and what they are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import torch
from stable_baselines3.common.vec_env import VecMonitor

from genesis_rl.agents.dreaming.config import DreamConfig
from genesis_rl.agents.stack import StepTimer
from genesis_rl.agents.vec_gym import GymVecEnv
from genesis_rl.data.cache import SPLITS
from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.imagination_vector import ImaginationVectorEnv
from genesis_rl.envs.make import parse_options
from genesis_rl.envs.spaces import space_to_json
from genesis_rl.imagination import DreamOptions
from genesis_rl.perception import SlotEncoder
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.sequences import Sequences, encode

_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Source:
    """What dreams are made of: a world model, and the recording that it was fitted to.

    Attributes:
        world: the world model.
        data: the recording's folder.
        real_steps: steps in reality that all of its splits hold.
        longest: steps of its longest episode.
        max_uncertainty: where dreams are cut; None: nowhere.
    """

    world: WorldModel
    data: Path
    real_steps: int
    longest: int
    max_uncertainty: float | None

    @classmethod
    def open(cls, config: DreamConfig, encoder: SlotEncoder, world: Path, data: Path) -> Self:
        """Load a world model and look at its recording.

        Raises:
            ValueError: if they do not fit each other, the encoder or the settings.
        """
        model = WorldModel.from_pretrained(
            world, encoder_fingerprint=encoder.fingerprint, device=encoder.device
        )
        if config.mask_geometry and not model.mask_geometry:
            raise ValueError(
                f"mask_geometry is set, but {world} was trained on slots without; wanted "
                "--no-mask-geometry, or a world model trained with it."
            )
        packs = [Pack.open(data / split) for split in SPLITS if (data / split).is_dir()]
        held_out = Transitions.open(data, "validation")
        _check_recorded(config, held_out.pack)
        sequences = Sequences.of(
            held_out,
            encode(held_out, encoder, align=model.form.aligned)[..., : model.form.num_features],
            model.action_spec,
            encoder.device,
        )
        lengths = Transitions.open(data, "train").episodes
        return cls(
            model,
            data,
            sum(pack.meta["steps"] for pack in packs or [held_out.pack]),
            int((lengths[:, 1] - lengths[:, 0]).max()),
            _certainty(model, sequences, config.trust) if config.trust < 1 else None,
        )

    def dreams(
        self, config: DreamConfig, encoder: SlotEncoder, actions: gym.Space[Any]
    ) -> StepTimer:
        """Make the dreams to practise in.

        Args:
            config: the settings.
            encoder: whose slots these are.
            actions: space of the real environment's, which are the world model's.
        """
        options = config.dream_options(self.data, self.max_uncertainty)
        return self._make(config, encoder, actions, options, config.num_dreams)

    def mirror(
        self, config: DreamConfig, encoder: SlotEncoder, actions: gym.Space[Any]
    ) -> StepTimer:
        """Make dreams of whole episodes, from where recorded ones start to their end.

        What a policy earns there and in reality can be compared.
        """
        options = DreamOptions(
            start="data",
            data=str(self.data),
            temperature=config.temperature,
            model_temperature=config.model_temperature,
            horizon=self.longest,
        )
        return self._make(config, encoder, actions, options, config.eval_episodes)

    def _make(
        self,
        config: DreamConfig,
        encoder: SlotEncoder,
        actions: gym.Space[Any],
        options: DreamOptions,
        num_envs: int,
    ) -> StepTimer:
        envs = GymVecEnv(
            ImaginationVectorEnv(
                encoder,
                self.world,
                num_envs,
                autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
                mask_geometry=config.mask_geometry,
                **asdict(options),
            )
        )
        # As the real environment has it, bounds and type: the policy is to act there.
        envs.action_space = actions
        return StepTimer(VecMonitor(envs))


def check_actions(config: DreamConfig, world: WorldModel, actions: gym.Space[Any]) -> None:
    """Refuse a real environment whose actions are not the world model's.

    Raises:
        ValueError: naming both.
    """
    spec = ActionSpec.from_json(space_to_json(actions))
    if spec != world.action_spec:
        raise ValueError(
            f"env {config.env!r} has the actions {spec.to_json()}, but the world model takes "
            f"{world.action_spec.to_json()}; wanted the environment that was recorded for it."
        )


def _check_recorded(config: DreamConfig, pack: Pack) -> None:
    """Refuse a recording of another environment than the agent's, as far as it tells."""
    settings: Mapping[str, Any] = pack.meta.get("settings", {})
    env = settings.get("env")
    if env is None:  # of other origin
        return
    own = pack.meta.get("agent", {}).get("config", {})  # the recorder's settings are changes to it
    given = [parse_options(part.get("env_options", "{}")) for part in (own, settings)]
    recorded = {"env": _short(env), **given[0], **given[1]}
    wanted = {"env": _short(config.env), **config.options}
    names = [name for name in {**recorded, **wanted} if not name.endswith("_in_info")]
    other = [name for name in names if recorded.get(name) != wanted.get(name)]
    if other:
        told = ", ".join(f"{n} {recorded.get(n)!r} (now {wanted.get(n)!r})" for n in other)
        raise ValueError(
            f"{pack.folder} was recorded with {told}; wanted the same env and env_options."
        )


def _short(env: str) -> str:
    """An id without the module that registers it."""
    return env.rpartition(":")[2]


def _certainty(world: WorldModel, sequences: Sequences, share: float) -> float:
    """The uncertainty that so many of the steps stay below."""
    parts = [
        world.step(sequences.features[rows], sequences.actions[rows]).uncertainty
        for rows in sequences.starts.split(_BATCH)
    ]
    return float(torch.cat(parts).quantile(share))
