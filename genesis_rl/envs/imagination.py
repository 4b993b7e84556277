"""Environments made of a model's own scenes."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from genesis_rl import visualize
from genesis_rl.envs.slot_obs import ObsLayout, SlotObsCodec, SlotObsOptions
from genesis_rl.imagination import ImaginationOptions, ImaginedScenes, ImaginedStep
from genesis_rl.perception import EncoderLike, as_encoder
from genesis_rl.world_model import ActionSpec, WorldModel

WorldModelLike = str | os.PathLike[str] | WorldModel

# What a step tells in the info, before there was any.
_AT_START = {"uncertainty": 0.0, "uncertain": False, "non_finite": False}


class Imagined:
    """What the single environment and the batched one share: a dream, seen as Gymnasium sees it.

    Attributes:
        dream: the engine.
        observation_space: of one environment, as `GenesisObs` has it.
        action_space: of one environment, as it was recorded.
        metadata: of one environment.
        render_mode: "rgb_array" or None.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        model: EncoderLike,
        world_model: WorldModelLike,
        layout: ObsLayout,
        mask_geometry: bool | None,
        device: str,
        render_mode: str | None,
        options: Mapping[str, Any],
        num_envs: int = 1,
    ) -> None:
        """Load the models; arguments and errors as for `ImaginationEnv`."""
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; wanted 'rgb_array' or None.")
        chosen = ImaginationOptions(**options)
        encoder = as_encoder(model, device=device)
        if isinstance(world_model, WorldModel):
            world = world_model.to(encoder.device).eval()
        else:
            world = WorldModel.from_pretrained(
                world_model, encoder_fingerprint=encoder.fingerprint, device=encoder.device
            )
        if mask_geometry and not world.mask_geometry:
            raise ValueError(
                "mask_geometry is True, but the world model was trained without; wanted None."
            )
        geometry = world.mask_geometry if mask_geometry is None else mask_geometry
        self.render_mode = render_mode
        self.dream = ImaginedScenes(encoder, world, chosen, n_envs=num_envs)
        self._codec = SlotObsCodec(
            encoder, spaces.Dict(), SlotObsOptions(layout, geometry), rendered=True
        )
        self.observation_space = self._codec.space
        self.action_space = action_space(world.action_spec)

    def start(self, indices: list[int], seeds: list[int | None], options: dict[str, Any]) -> None:
        """Seed and reset some environments; options "slots": see `ImaginationEnv.reset`."""
        unknown = options.keys() - {"slots"}
        if unknown:
            raise ValueError(f"options has {sorted(unknown)}; wanted 'slots' or nothing.")
        rows = self._rows(indices)
        fresh = [(i, seed) for i, seed in zip(indices, seeds, strict=True) if seed is not None]
        if fresh:
            self.dream.seed(self._rows([i for i, _ in fresh]), [seed for _, seed in fresh])
        slots = options.get("slots")
        if slots is not None:
            slots = torch.as_tensor(np.asarray(slots, np.float32))
        self.dream.reset(rows, slots)

    def advance(self, indices: list[int], actions: npt.NDArray[Any]) -> ImaginedStep:
        """Move some environments; the result is on the host."""
        moved = self.dream.step(self._rows(indices), torch.from_numpy(actions).to(self._device))
        return ImaginedStep(*(part.cpu() for part in moved))

    def checked(self, actions: Any, num_envs: int) -> npt.NDArray[Any]:
        """Return actions as an array (N, ...) of what the world model takes.

        Raises:
            ValueError: for actions of another space.
        """
        space, given = self.action_space, np.asarray(actions)
        shape = (num_envs, *(space.shape or ()))
        if given.shape == shape and isinstance(space, spaces.Box) and given.dtype.kind in "iuf":
            return given.astype(np.float32)
        if given.shape == shape and isinstance(space, spaces.Discrete) and given.dtype.kind in "iu":
            if bool(((given >= space.start) & (given < space.start + space.n)).all()):
                return given.astype(np.int64)
        raise ValueError(f"actions must be {num_envs} of {space}, got {actions!r}")

    def observe(self, indices: Any) -> Any:
        """Return observations of environments, batched, in new arrays."""
        features = self.dream.features[self._rows(indices)]
        return self._codec.arrange(features.cpu().numpy())

    def draw(self) -> list[npt.NDArray[np.uint8]]:
        """Decode all scenes to frames (S, S, 3), S the model's image size."""
        return list(visualize.to_pictures(self.dream.encoder.decode(self.dream.features).image))

    def from_prior(self) -> npt.NDArray[np.bool_]:
        """Tell which episodes started in scenes from the prior, (N,)."""
        flags: npt.NDArray[np.bool_] = self.dream.from_prior.cpu().numpy()
        return flags

    @property
    def _device(self) -> torch.device:
        return self.dream.device

    def _rows(self, indices: Any) -> Tensor:
        return torch.as_tensor(list(indices), dtype=torch.int64, device=self._device)


class ImaginationEnv(gym.Env[Any, Any]):
    """Scenes that a scene model imagines and a world model sets in motion.

    Actions: those of the recording that the world model was trained on.

    Observations: slots, exactly as `GenesisObs` gives them with the same ``layout`` and
    ``mask_geometry``, so that a policy moves between the two unchanged. A world model that was
    trained on aligned slots (the default) keeps every object in its slot: policies that remember
    or stack observations then want ``GenesisObs(..., align=True)`` in the real environment.

    Rewards: the expected one, less ``uncertainty_penalty`` times the uncertainty.

    Episodes are cut after ``horizon`` steps and, by option, when the world model is too uncertain.
    A prediction that is not finite cuts the episode too; the scene then stays as it was.

    Info: ``from_prior`` (whether the episode started in a scene from the prior), ``uncertainty``,
    ``uncertain`` (the reason of a cut), ``non_finite`` (the reason of a cut).

    The same seed gives the same dream, bit for bit on a CPU. Scenes from the prior are whatever
    the scene model takes for usual ones: some lack what a task is about.

    Example:
        >>> env = gym.make(
        ...     "genesis_rl/Imagination-v0", model="runs/eyes", world_model="runs/world"
        ... )  # doctest: +SKIP
    """

    metadata: dict[str, Any] = Imagined.metadata

    def __init__(
        self,
        model: EncoderLike,
        world_model: WorldModelLike,
        *,
        layout: ObsLayout = "set",
        mask_geometry: bool | None = None,
        device: str = "auto",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Load the models.

        Args:
            model: scene model: path, hub id, or a SlotEncoder (also its ``spec``).
            world_model: folder of a world model, or one in memory, trained on its slots.
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: observe each slot's mask geometry; None: if the world model knows it.
            device: where both models run; "auto" is CUDA if there is one.
            render_mode: "rgb_array" or None.
            **options: how scenes start, go on and end: see `ImaginationOptions`.

        Raises:
            TypeError: for an unknown option, or a model of no known kind.
            ValueError: for a bad value, models that do not fit each other, or a scene model
                without a prior to start from.
        """
        self._imagined = Imagined(
            model, world_model, layout, mask_geometry, device, render_mode, options
        )
        self.render_mode = render_mode
        self.observation_space = self._imagined.observation_space
        self.action_space = self._imagined.action_space
        self._seeded = self._ready = False

    @property
    def dream(self) -> ImaginedScenes:
        """The engine."""
        return self._imagined.dream

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: restarts the randomness.
            options: "slots", (K, D) as the world model knows them, start there: for example those
                of a real frame.

        Raises:
            ValueError: for other options, or slots of another form.
        """
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = self.np_random_seed
        self._seeded = self._ready = True
        given = dict(options or {})
        if "slots" in given:
            given["slots"] = np.asarray(given["slots"])[None]
        self._imagined.start([0], [seed], given)
        return self._observe(), self._info(_AT_START)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Imagine a step.

        Raises:
            ValueError: for an action of another space.
            RuntimeError: before the first reset.
        """
        if not self._ready:
            raise RuntimeError("call reset() first")
        moved = self._imagined.advance([0], self._imagined.checked(np.asarray(action)[None], 1))
        ends = bool(moved.terminated), bool(moved.truncated)
        info = self._info({name: getattr(moved, name).item() for name in _AT_START})
        return self._observe(), float(moved.reward), *ends, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Decode the scene to a frame (S, S, 3), S the model's image size."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing: pass render_mode='rgb_array' to gym.make")
            return None
        return self._imagined.draw()[0]

    def _info(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"from_prior": bool(self._imagined.from_prior()[0]), **values}

    def _observe(self) -> Any:
        batch = self._imagined.observe([0])
        return {k: v[0] for k, v in batch.items()} if isinstance(batch, dict) else batch[0]


def action_space(spec: ActionSpec) -> spaces.Space[Any]:
    """Return a world model's actions as Gymnasium's space."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.n, start=spec.start)
    low, high = (np.asarray(side, np.float32) for side in (spec.low, spec.high))
    return spaces.Box(low, high, dtype=np.float32)
