"""Gymnasium wrappers that give an agent object slots instead of pixels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from genesis_rl.envs.rendering import render_frame
from genesis_rl.envs.slot_obs import Info, InfoKey, ObsLayout, SlotObsCodec, SlotObsOptions
from genesis_rl.frames import Layout
from genesis_rl.perception import EncoderLike, as_encoder

if TYPE_CHECKING:
    _VectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:  # before Gymnasium 1.4 it takes no type arguments
    _VectorWrapper = VectorWrapper


class GenesisObs(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Replaces an environment's frames by the object slots that a scene model infers from them.

    The slots are the posterior's mean: the same frame always gives the same observation. The
    observation is a float32 Box, unbounded, of shape (K, D) with D = D_m + D_c (+ 3), or as
    ``layout`` says; Stable-Baselines3's ``check_env`` calls the shape (K, D) unconventional, which
    is no error: its MlpPolicy flattens it, and a features extractor for sets uses it.

    ``gym.make(env.spec)`` rebuilds a wrapped environment if the encoder came from a path or a hub
    id. For many environments, one encoder in the parent process (GenesisVectorObs, VecGenesisObs)
    is faster than one in each. Stack or normalise observations after this wrapper, not before.

    Example:
        >>> env = GenesisObs(gym.make("CarRacing-v3"), "runs/encoder")  # doctest: +SKIP
        >>> env.observation_space  # doctest: +SKIP
        Box(-inf, inf, (5, 80), float32)
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        encoder: EncoderLike,
        layout: ObsLayout = "set",
        mask_geometry: bool = False,
        key: str | None = None,
        keep: Sequence[str] = (),
        frame_layout: Layout = "auto",
        device: str = "auto",
        info_keys: Sequence[InfoKey] = (),
        render: bool = False,
        align: bool = False,
    ) -> None:
        """Wrap an environment.

        Args:
            env: environment whose observations are, or hold, frames.
            encoder: path of a saved model, hub id, or a SlotEncoder (also its ``spec``).
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.
            key: entry of a Dict observation that holds the frame; None finds it.
            keep: entries of a Dict observation to pass through beside the slots.
            frame_layout: axes of a frame, such as "HWC"; "auto" tells them from the space.
            device: where to load the encoder; "auto" is CUDA if there is one.
            info_keys: "frame" (uint8, (H, W, 3)) and "masks" (float32, (K, S, S)) to put in the
                info of every step.
            render: take the frames from ``env.render()`` (render_mode "rgb_array"), for an
                environment whose observations hold none.
            align: keep every object in its slot within an episode (see SlotAligner), for policies
                that stack or remember observations.

        Raises:
            TypeError, ValueError: if the observations hold no frames that the encoder can take,
                or an argument is not as described.
            RuntimeError: if a forked worker asks for CUDA.
        """
        options = SlotObsOptions(layout, mask_geometry, key, keep, frame_layout, info_keys, align)
        self.slot_encoder = as_encoder(encoder, device=device)
        RecordConstructorArgs.__init__(
            self, encoder=self.slot_encoder.spec, **options.as_kwargs(), render=render
        )
        gym.ObservationWrapper.__init__(self, env)
        if render and env.render_mode != "rgb_array":
            raise ValueError(
                f"render=True, but render_mode is {env.render_mode!r}; wanted "
                'gym.make(..., render_mode="rgb_array").'
            )
        self._render_frames = render
        self._slot_codec = SlotObsCodec(
            self.slot_encoder, env.observation_space, options, rendered=render
        )
        self.observation_space = self._slot_codec.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and encode its first frame."""
        observation, info = self.env.reset(seed=seed, options=options)
        slots, extra = self._encode(observation, first=True)
        return slots, {**info, **extra}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and encode its frame."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        slots, extra = self._encode(observation, first=False)
        return slots, reward, terminated, truncated, {**info, **extra}

    def observation(self, observation: Any) -> Any:
        """Encode one observation of the wrapped environment, out of sequence: it is not aligned."""
        return self._encode(observation, first=None)[0]

    def _encode(self, observation: Any, first: bool | None) -> tuple[Any, Info]:
        if not self._render_frames:
            return self._slot_codec.encode(observation, first=first)
        return self._slot_codec.encode(observation, render_frame(self.env), first=first)


class GenesisVectorObs(_VectorWrapper):
    """Replaces the frames of a vector environment by object slots, in one pass for all of them.

    The same as GenesisObs in each environment, in all three autoreset modes; ``final_obs`` is
    encoded too, in the same pass, and the info entries of final frames are in ``final_info``.

    Example:
        >>> envs = gym.make_vec("CarRacing-v3", num_envs=8)  # doctest: +SKIP
        >>> envs = GenesisVectorObs(envs, "runs/encoder", layout="flat")  # doctest: +SKIP
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        encoder: EncoderLike,
        layout: ObsLayout = "set",
        mask_geometry: bool = False,
        key: str | None = None,
        keep: Sequence[str] = (),
        frame_layout: Layout = "auto",
        device: str = "auto",
        info_keys: Sequence[InfoKey] = (),
        align: bool = False,
    ) -> None:
        """Wrap a vector environment.

        Args:
            env: vector environment whose observations are, or hold, frames.
            encoder: path of a saved model, hub id, or a SlotEncoder (also its ``spec``).
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.
            key: entry of a Dict observation that holds the frame; None finds it.
            keep: entries of a Dict observation to pass through beside the slots.
            frame_layout: axes of one frame of one environment; "auto" tells them from the space.
            device: where to load the encoder; "auto" is CUDA if there is one.
            info_keys: "frame" (uint8, (N, H, W, 3)) and "masks" (float32, (N, K, S, S)) to put in
                the infos of every step.
            align: keep every object in its slot within an episode (see SlotAligner), for policies
                that stack or remember observations.

        Raises:
            TypeError, ValueError: if the observations hold no frames that the encoder can take,
                or an argument is not as described.
        """
        options = SlotObsOptions(layout, mask_geometry, key, keep, frame_layout, info_keys, align)
        super().__init__(env)
        self.slot_encoder = as_encoder(encoder, device=device)
        self._slot_codec = SlotObsCodec(
            self.slot_encoder, env.single_observation_space, options, num_envs=env.num_envs
        )
        self.single_observation_space = self._slot_codec.space
        self.observation_space = self._slot_codec.batched_space(env.observation_space, env.num_envs)
        self._autoreset = env.metadata.get("autoreset_mode")
        if align and self._autoreset not in list(AutoresetMode):
            raise ValueError(
                f'metadata["autoreset_mode"] of env is {self._autoreset!r}; align wants an '
                "AutoresetMode, to know which observations start episodes."
            )
        self._begins_next = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``, and encode all frames."""
        # The environment takes the mask out of the options.
        mask = None if options is None else options.get("reset_mask")
        observations, infos = self.env.reset(seed=seed, options=options)
        rows = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        self._begins_next[rows] = False
        encoded = self._slot_codec.encode_step(observations, {}, first=rows)
        return encoded.observation, _with_entries(infos, encoded.info, rows)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments and encode all frames, those of ``final_obs`` included."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        done = np.logical_or(terminated, truncated)
        final: dict[int, Any] = {}
        if "final_obs" in infos:
            ended: Any = infos.get("_final_obs", done)
            final = {i: _unbatch(infos["final_obs"], i) for i in np.flatnonzero(ended).tolist()}
        encoded = self._slot_codec.encode_step(observations, final, self._begun(done))
        rows = np.ones(self.num_envs, np.bool_)
        infos = _with_entries(infos, encoded.info, rows)
        if "final_obs" in infos:
            infos |= self._final_infos(infos, encoded.final)
        return encoded.observation, rewards, terminated, truncated, infos

    def _begun(self, done: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tell where the observations of a step that ended episodes start new ones."""
        if self._autoreset == AutoresetMode.SAME_STEP:
            return done
        begun = self._begins_next
        self._begins_next = done & (self._autoreset == AutoresetMode.NEXT_STEP)
        return begun

    def _final_infos(
        self, infos: dict[str, Any], final: dict[int, tuple[Any, Info]]
    ) -> dict[str, Any]:
        """Final observations, as Gymnasium lays them out: objects, None where no episode ended."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        rows = np.zeros(self.num_envs, np.bool_)
        entries: Info = {}
        for index, (observation, info) in final.items():
            final_obs[index], rows[index] = observation, True
            for name, value in info.items():
                entries.setdefault(name, np.zeros((self.num_envs, *value.shape), value.dtype))
                entries[name][index] = value
        result: dict[str, Any] = {"final_obs": final_obs, "_final_obs": rows}
        if entries:
            final_info = infos.get("final_info", {})
            result |= {"final_info": _with_entries(final_info, entries, rows), "_final_info": rows}
        return result


def _with_entries(
    infos: dict[str, Any], entries: Info, rows: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Add entries to the infos of a vector environment, with the masks of the rows that are set."""
    marked: dict[str, Any] = {}
    for name, value in entries.items():
        shown = rows.reshape(-1, *[1] * (value.ndim - 1))
        marked |= {name: np.where(shown, value, np.zeros_like(value)), f"_{name}": rows.copy()}
    return {**infos, **marked}


def _unbatch(observations: Any, index: int) -> Any:
    """Take one environment's observation out of an array of objects, a batch or a dict of them."""
    if isinstance(observations, Mapping):
        return {name: value[index] for name, value in observations.items() if name[:1] != "_"}
    return observations[index]
