"""Imagined environments: rollouts of a world model in the slots of an encoder."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from torch import Tensor

from genesis_rl import visualization
from genesis_rl.envs.imagination import ImaginationOptions, ImaginedScenes
from genesis_rl.envs.wrappers.batched import BatchedVectorEnv, StepResult, check_count
from genesis_rl.envs.wrappers.slot_obs import ObsLayout, SlotObsCodec, SlotObsOptions
from genesis_rl.perception.encoder import EncoderLike, as_encoder
from genesis_rl.slots import MASK_GEOMETRY
from genesis_rl.world_model import ActionSpec, WorldModel

WorldModelLike = str | os.PathLike[str] | WorldModel


class ImaginationEnv(gym.Env[Any, Any]):
    """Imagined rollouts: first scenes from the encoder's prior, dynamics from a world model.

    Actions: those of the world model's training data.

    Observations: slots in the form of `GenesisObs` with the same ``layout`` and ``mask_geometry``,
    so a policy transfers between the two. A world model trained on aligned slots (the default)
    keeps every object in its slot, as `GenesisObs` does by default.

    Rewards: the expected reward, minus ``uncertainty_penalty`` times the uncertainty.

    Truncation: after ``horizon`` steps, at an uncertainty above ``max_uncertainty``, and at a
    non-finite prediction (the scene then stays unchanged).

    Info: ``from_prior`` (whether the episode started in a scene from the prior), ``uncertainty``,
    ``uncertain`` and ``non_finite`` (reasons of a truncation).

    Equal seeds give equal rollouts, bit for bit on a CPU. The prior is not conditioned on the
    task: some of its scenes may lack, for example, the target object.

    Example:
        >>> env = gym.make(
        ...     "genesis_rl/Imagination-v0", encoder="sprites-fast", world_model="object-comparison"
        ... )  # doctest: +SKIP
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (declared by gym.Env)
        "render_modes": ["rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        encoder: EncoderLike,
        world_model: WorldModelLike,
        *,
        layout: ObsLayout = "set",
        mask_geometry: bool = MASK_GEOMETRY,
        device: str = "auto",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Load the models.

        Args:
            encoder: path, hub id, or a SlotEncoder (also its ``spec``).
            world_model: path, hub id or WorldModel, trained on the encoder's slots.
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask geometry; must be False for a world model trained
                without it.
            device: device of both models; "auto" is CUDA if available.
            render_mode: "rgb_array" or None.
            **options: initial scenes, dynamics and truncation, see `ImaginationOptions`.

        Raises:
            TypeError: for an unknown option, or an encoder of another type.
            ValueError: for an invalid value, models that do not match, or an encoder without a
                prior.
        """
        self._batch = ImaginationVectorEnv(
            encoder,
            world_model,
            layout=layout,
            mask_geometry=mask_geometry,
            device=device,
            render_mode=render_mode,
            **options,
        )
        self.engine: ImaginedScenes = self._batch.engine
        self.render_mode = render_mode
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space
        self._ready = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seed of the rollouts.
            options: "slots", (K, D) as in the world model's input: the initial scene, for example
                the slots of a real frame.

        Raises:
            ValueError: for other options, or slots of another shape.
        """
        super().reset(seed=seed)
        if seed is None and not self._ready:
            seed = self.np_random_seed
        self._ready = True
        batched_options = dict(options or {})
        if "slots" in batched_options:
            batched_options["slots"] = np.asarray(batched_options["slots"])[None]
        self._batch._start([0], [seed], batched_options)
        return self._observe()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Predict one step.

        Raises:
            ValueError: for an action outside the action space.
            RuntimeError: before the first reset.
        """
        if not self._ready:
            raise RuntimeError("call reset() first")
        actions = self._batch._check_actions(np.asarray(action)[None])
        result = self._batch._advance([0], actions)
        ends = bool(result.terminated[0]), bool(result.truncated[0])
        observation, info = self._observe()
        return observation, float(result.rewards[0]), *ends, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Decode the scene to a frame (S, S, 3); S is the encoder's image size."""
        frames = self._batch.render()
        return None if frames is None else frames[0]

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        """Return the observation and the info."""
        batch = self._batch._observe([0])
        observation = {k: v[0] for k, v in batch.items()} if isinstance(batch, dict) else batch[0]
        info = {name: values[0].item() for name, values in self._batch._info_values([0]).items()}
        return observation, info


class ImaginationVectorEnv(BatchedVectorEnv):
    """Imagined scenes in one batch, equal step by step to single environments.

    Created by `gym.make_vec("genesis_rl/Imagination-v0", num_envs=1024, encoder=...,
    world_model=...)`. Options, spaces, rewards and info are those of `ImaginationEnv`, batched as
    in Gymnasium; resets: see `BatchedVectorEnv`. For Stable-Baselines3, use
    ``autoreset_mode="SameStep"`` and wrap it in `GymVecEnv`.
    """

    def __init__(
        self,
        encoder: EncoderLike,
        world_model: WorldModelLike,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        layout: ObsLayout = "set",
        mask_geometry: bool = MASK_GEOMETRY,
        device: str = "auto",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Load the models of ``num_envs`` scenes.

        ``autoreset_mode`` is an `AutoresetMode`, or its value ("NextStep", "SameStep", "Disabled").
        Other arguments are those of `ImaginationEnv`.

        Raises:
            TypeError, ValueError: as `ImaginationEnv`; also for an invalid number or mode.
        """
        check_count("num_envs", num_envs)
        modes = ImaginationEnv.metadata["render_modes"]
        if render_mode not in (None, *modes):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}.")
        rollout_options = ImaginationOptions(**options)
        slot_encoder = as_encoder(encoder, device=device)
        if isinstance(world_model, WorldModel):
            world = world_model.to(slot_encoder.device).eval()
        else:
            world = WorldModel.from_pretrained(
                world_model,
                encoder_fingerprint=slot_encoder.fingerprint,
                device=slot_encoder.device,
            )
        if mask_geometry and not world.mask_geometry:
            raise ValueError("mask_geometry must be False for a world model without it, got True.")
        #: The rollouts.
        self.engine = ImaginedScenes(slot_encoder, world, rollout_options, n_envs=num_envs)
        self._codec = SlotObsCodec(
            slot_encoder,
            spaces.Dict(),
            SlotObsOptions(layout, mask_geometry, align=False),  # predicted slots keep their order
            rendered=True,
        )
        action_space = _action_space(world.action_spec)
        single = _Single(ImaginationEnv.metadata, render_mode, self._codec.space, action_space)
        super().__init__(single, num_envs, autoreset_mode)
        self._seeded = np.zeros(num_envs, np.bool_)
        self._last = {
            "uncertainty": np.zeros(num_envs, np.float32),
            "uncertain": np.zeros(num_envs, np.bool_),
            "non_finite": np.zeros(num_envs, np.bool_),
        }

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Decode every scene to a frame (S, S, 3); S is the encoder's image size."""
        if self.render_mode is None:
            gym.logger.warn("render() returns None without render_mode='rgb_array'")
            return None
        decoded = self.engine.encoder.decode(self.engine.features)
        return tuple(visualization.to_pictures(decoded.image))

    def _start(self, indices: list[int], seeds: list[int | None], options: dict[str, Any]) -> None:
        unknown = options.keys() - {"slots"}
        if unknown:
            raise ValueError(f"options must have no keys but 'slots', got {sorted(unknown)}.")
        seeded = {
            i: np_random()[1] if seed is None else seed
            for i, seed in zip(indices, seeds, strict=True)
            if seed is not None or not self._seeded[i]
        }
        if seeded:
            self.engine.seed(self._rows(seeded), list(seeded.values()))
        self._seeded[indices] = True
        slots = options.get("slots")
        if slots is not None:
            slots = torch.as_tensor(np.asarray(slots, np.float32))
        self.engine.reset(self._rows(indices), slots)
        for values in self._last.values():
            values[indices] = 0

    def _check_actions(self, actions: Any) -> npt.NDArray[Any]:
        """Return actions (B, ...) in the dtype of the world model's input."""
        space, array = self.single_action_space, np.asarray(actions)
        shape = (self.num_envs, *(space.shape or ()))
        if array.shape == shape and isinstance(space, spaces.Box) and array.dtype.kind in "iuf":
            return array.astype(np.float32)
        if array.shape == shape and isinstance(space, spaces.Discrete) and array.dtype.kind in "iu":
            if bool(((array >= space.start) & (array < space.start + space.n)).all()):
                return array.astype(np.int64)
        raise ValueError(f"actions must be {self.num_envs} of {space}, got {actions!r}.")

    def _advance(self, indices: list[int], actions: npt.NDArray[Any]) -> StepResult:
        result = self.engine.step(
            self._rows(indices), torch.from_numpy(actions).to(self.engine.device)
        )
        arrays = {name: part.cpu().numpy() for name, part in result._asdict().items()}
        for name, values in self._last.items():
            values[indices] = arrays[name]
        rewards = arrays["reward"].astype(np.float64)
        return StepResult(rewards, arrays["terminated"], arrays["truncated"])

    def _observe(self, indices: Sequence[int]) -> Any:
        features = self.engine.features[self._rows(indices)]
        return self._codec.arrange(features.cpu().numpy())

    def _info_values(self, indices: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        return {"from_prior": self.engine.from_prior.cpu().numpy(), **self._last}

    def _rows(self, indices: Iterable[int]) -> Tensor:
        return torch.as_tensor(list(indices), dtype=torch.int64, device=self.engine.device)


class _Single(NamedTuple):
    """Attributes of one environment of a batch."""

    metadata: dict[str, Any]
    render_mode: str | None
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]


def _action_space(spec: ActionSpec) -> spaces.Space[Any]:
    """Return the action space of a world model."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.n, start=spec.start)
    low, high = (np.asarray(side, np.float32) for side in (spec.low, spec.high))
    return spaces.Box(low, high, dtype=np.float32)
