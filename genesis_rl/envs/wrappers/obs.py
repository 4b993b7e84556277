"""Gymnasium wrappers that replace image observations by object slots."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from genesis_rl.envs.wrappers.rendering import (
    check_render_mode,
    place_camera,
    render_frame,
    render_frames,
)
from genesis_rl.envs.wrappers.slot_obs import Info, InfoKey, ObsLayout, SlotObsCodec, SlotObsOptions
from genesis_rl.perception.encoder import EncoderLike, as_encoder
from genesis_rl.perception.preprocessing import Layout, as_crop
from genesis_rl.slots import ALIGN, MASK_GEOMETRY

if TYPE_CHECKING:
    _VectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:  # not generic before Gymnasium 1.4
    _VectorWrapper = VectorWrapper


class GenesisObs(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Replaces an environment's image observations by object slots.

    The slots are the posterior mean: equal frames give equal observations. Observations are an
    unbounded float32 Box of shape (K, D) with D = D_m + D_c (+ 3), or in another ``layout``.
    Stable-Baselines3's ``check_env`` warns about the shape (K, D); MlpPolicy flattens it, and
    features extractors for sets use it.

    ``gym.make(env.spec)`` rebuilds a wrapped environment if the encoder is a path or a hub id. For
    many environments, one encoder in the parent process (GenesisVectorObs, VecGenesisObs) is
    faster than one per environment. Stack or normalise observations after this wrapper, not before.

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
        mask_geometry: bool = MASK_GEOMETRY,
        image_key: str | Sequence[str] | None = None,
        keep: Sequence[str] = (),
        image_layout: Layout = "auto",
        device: str = "auto",
        info_keys: Sequence[InfoKey] = (),
        render: bool = False,
        align: bool = ALIGN,
        background: bool = True,
        crop: Sequence[int] | None = None,
    ) -> None:
        """Wrap an environment.

        Args:
            env: environment with image observations, or with an image in a Dict.
            encoder: path, hub id, or a SlotEncoder (also its ``spec``).
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.
            image_key: entry of a Dict observation with the image, or its path in nested Dicts, such
                as "camera/rgb"; None infers it from the space. A sequence of C > 1 entries, one per
                camera, concatenates the slots of all cameras, (C * K, D + C), with a one-hot camera
                id of C features at the end of each slot ("camera" in layout "dict").
            keep: entries of a Dict observation to keep beside the slots, or their paths in nested
                Dicts.
            image_layout: axis order of a frame, such as "HWC"; "auto" infers it from the space.
            device: device of the encoder; "auto" is CUDA if available.
            info_keys: "frame" (uint8, (H, W, 3)) and "masks" (float32, (K, S, S)), added to the
                info of every step.
            render: use rendered frames (render_mode "rgb_array"), for environments without image
                observations.
            align: keep every object in its slot within an episode (see SlotAligner), for policies
                with memory or stacked observations.
            background: include the background's slot, the first of an encoder with a background
                network, whose latents are z_b; False returns the object slots alone (K - 1).
            crop: region of interest of every frame, (top, left, height, width) in pixels, cut out
                before resizing; None: that of the encoder's recording, or else the whole frame.

        Raises:
            TypeError, ValueError: for observations without frames valid for the encoder, or an
                invalid argument.
            RuntimeError: for CUDA in a forked worker.
        """
        options = SlotObsOptions(
            layout,
            mask_geometry,
            image_key,
            keep,
            image_layout,
            info_keys,
            align,
            background,
            as_crop(crop),
        )
        self.slot_encoder = as_encoder(encoder, device=device)
        RecordConstructorArgs.__init__(
            self, encoder=self.slot_encoder.spec, **options.as_kwargs(), render=render
        )
        gym.ObservationWrapper.__init__(self, env)
        if render:
            check_render_mode(env.render_mode)
            place_camera(env)
        self._render_frames = render
        self._slot_codec = SlotObsCodec(
            self.slot_encoder, env.observation_space, options, rendered=render
        )
        self.observation_space = self._slot_codec.space
        self.metadata = self._slot_codec.metadata(env.metadata)

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
        """Encode one observation of the wrapped environment, without alignment."""
        return self._encode(observation, first=None)[0]

    def _encode(self, observation: Any, first: bool | None) -> tuple[Any, Info]:
        if not self._render_frames:
            return self._slot_codec.encode(observation, first=first)
        return self._slot_codec.encode(observation, render_frame(self.env), first=first)


class GenesisVectorObs(_VectorWrapper):
    """Replaces the image observations of a vector environment by object slots, in one batch.

    Equal to GenesisObs in each environment, in all three autoreset modes; ``final_obs`` is encoded
    in the same batch, and the info entries of final frames are in ``final_info``.

    Example:
        >>> envs = gym.make_vec("CarRacing-v3", num_envs=8)  # doctest: +SKIP
        >>> envs = GenesisVectorObs(envs, "runs/encoder", layout="flat")  # doctest: +SKIP
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        encoder: EncoderLike,
        layout: ObsLayout = "set",
        mask_geometry: bool = MASK_GEOMETRY,
        image_key: str | Sequence[str] | None = None,
        keep: Sequence[str] = (),
        image_layout: Layout = "auto",
        device: str = "auto",
        info_keys: Sequence[InfoKey] = (),
        align: bool = ALIGN,
        background: bool = True,
        crop: Sequence[int] | None = None,
        render: bool = False,
    ) -> None:
        """Wrap a vector environment; arguments are those of `GenesisObs`.

        The info entries are "frame", uint8 (N, H, W, 3), and "masks", float32 (N, K, S, S).
        ``render`` requires autoreset mode NEXT_STEP or DISABLED.

        Raises:
            TypeError, ValueError: for observations without frames valid for the encoder, or an
                invalid argument.
        """
        options = SlotObsOptions(
            layout,
            mask_geometry,
            image_key,
            keep,
            image_layout,
            info_keys,
            align,
            background,
            as_crop(crop),
        )
        if not hasattr(env, "single_observation_space"):
            raise TypeError(
                "env must have a single_observation_space, as Gymnasium's vector environments, got "
                f"{type(env).__name__}. From SuperSuit, use concat_vec_envs_v1(..., "
                'base_class="stable_baselines3") with VecGenesisObs.'
            )
        super().__init__(env)
        self.slot_encoder = as_encoder(encoder, device=device)
        self._slot_codec = SlotObsCodec(
            self.slot_encoder,
            env.single_observation_space,
            options,
            rendered=render,
            num_envs=env.num_envs,
        )
        self.single_observation_space = self._slot_codec.space
        self.observation_space = self._slot_codec.batched_space(env.observation_space, env.num_envs)
        self.metadata = self._slot_codec.metadata(env.metadata)
        self._autoreset = env.metadata.get("autoreset_mode")
        if align and self._autoreset not in list(AutoresetMode):
            raise ValueError(
                f'env.metadata["autoreset_mode"] must be an AutoresetMode with align, got '
                f"{self._autoreset!r}. Use align=False."
            )
        self._render_frames = render
        if render:
            check_render_mode(env.render_mode)
            if self._autoreset not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
                raise ValueError(
                    'env.metadata["autoreset_mode"] must be NEXT_STEP or DISABLED with '
                    f"render=True, got {self._autoreset!r}: the last frame of an episode cannot be "
                    "rendered after the reset. Wrap each environment with "
                    "gymnasium.wrappers.AddRenderObservation instead."
                )
        self._reset_next = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``, and encode all frames."""
        # The environment removes the mask from the options.
        mask = None if options is None else options.get("reset_mask")
        observations, infos = self.env.reset(seed=seed, options=options)
        rows = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        self._reset_next[rows] = False
        encoded = self._slot_codec.encode_step(
            observations, {}, first=rows, rendered=self._rendered()
        )
        return encoded.observation, _with_entries(infos, encoded.info, rows)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments and encode all frames, those of ``final_obs`` included."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        done = np.logical_or(terminated, truncated)
        final: dict[int, Any] = {}
        if "final_obs" in infos:
            ended = np.asarray(infos.get("_final_obs", done))
            final = {i: _unbatch(infos["final_obs"], i) for i in np.flatnonzero(ended).tolist()}
        encoded = self._slot_codec.encode_step(
            observations, final, self._first(done), rendered=self._rendered()
        )
        rows = np.ones(self.num_envs, np.bool_)
        infos = _with_entries(infos, encoded.info, rows)
        if "final_obs" in infos:
            infos |= self._final_infos(infos, encoded.final)
        return encoded.observation, rewards, terminated, truncated, infos

    def _rendered(self) -> npt.NDArray[Any] | None:
        return render_frames(self.env) if self._render_frames else None

    def _first(self, done: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which observations of a step are the first of an episode."""
        if self._autoreset == AutoresetMode.SAME_STEP:
            return done
        first = self._reset_next
        self._reset_next = done & (self._autoreset == AutoresetMode.NEXT_STEP)
        return first

    def _final_infos(
        self, infos: dict[str, Any], final: dict[int, tuple[Any, Info]]
    ) -> dict[str, Any]:
        """Return final observations and infos in Gymnasium's format, None for running episodes."""
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
    """Add entries to the infos of a vector environment, with masks of the valid rows."""
    added: dict[str, Any] = {}
    for name, value in entries.items():
        mask = rows.reshape(-1, *[1] * (value.ndim - 1))
        added |= {name: np.where(mask, value, np.zeros_like(value)), f"_{name}": rows.copy()}
    return {**infos, **added}


def _unbatch(observations: Any, index: int) -> Any:
    """Return one environment's observation from an object array, a batch or a dict of these."""
    if isinstance(observations, Mapping):
        entries = observations.items()
        return {name: _unbatch(value, index) for name, value in entries if name[:1] != "_"}
    return observations[index]
