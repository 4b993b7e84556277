"""Vector environments for Stable-Baselines3: slots as observations, Gymnasium's as VecEnv."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from genesis_rl.envs.wrappers.rendering import check_render_mode, render_frames
from genesis_rl.envs.wrappers.slot_obs import Info, InfoKey, ObsLayout, SlotObsCodec, SlotObsOptions
from genesis_rl.perception.encoder import EncoderLike, as_encoder
from genesis_rl.perception.preprocessing import Layout, as_crop
from genesis_rl.slots import ALIGN, MASK_GEOMETRY

_KEPT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
# Smallest image side of NatureCNN.
_MIN_IMAGE = 36


class VecGenesisObs(VecEnvWrapper):
    """Replaces the frames of a Stable-Baselines3 vector environment by object slots.

    The frames of all environments, including terminal observations, are encoded in one batch in the
    parent process, which allows SubprocVecEnv with an encoder on a GPU. The observations are those
    of GenesisObs. Apply VecFrameStack and VecNormalize outside of this wrapper.

    Example:
        >>> venv = make_vec_env("CarRacing-v3", n_envs=8)  # doctest: +SKIP
        >>> venv = VecGenesisObs(venv, "runs/encoder", layout="flat")  # doctest: +SKIP
        >>> PPO("MlpPolicy", venv, device="cpu").learn(1_000_000)  # doctest: +SKIP
    """

    def __init__(
        self,
        venv: VecEnv,
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
        """Wrap a vector environment.

        Args:
            venv: vector environment whose observations are, or contain, frames.
            encoder: folder of a pretrained model, Hub id, or a SlotEncoder (also its ``spec``).
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.
            image_key: entry of a Dict observation with the image, or its path in nested Dicts, such
                as "camera/rgb"; None detects it. A sequence of C > 1 entries, one per
                camera, concatenates the slots of all cameras, (C * K, D + C), with a one-hot camera
                id of C features at the end of each slot ("camera" in layout "dict").
            keep: entries of a Dict observation to keep beside the slots, or their paths in nested
                Dicts.
            image_layout: axis order of a single frame; "auto" infers it from the space.
            device: device of the encoder; "auto" is CUDA if available.
            info_keys: entries to add to the infos: "frame" (uint8, (H, W, 3)) and "masks" (float32,
                (K, S, S)). At the end of an episode they are those of its terminal observation;
                ``reset_infos`` has those of the new episode.
            align: keep every object in its slot within an episode (see SlotAligner), for stacked
                observations and recurrent policies.
            background: include the background's slot, the first of an encoder with a background
                network, whose latents are z_b; False returns the object slots alone (K - 1).
            crop: region of interest of every frame, (top, left, height, width) in pixels, cut out
                before resizing; None: that of the encoder's recording, or else the whole frame.
            render: use rendered frames (render_mode "rgb_array"), for environments without image
                observations. The environments reset themselves before their last frame can be
                rendered: terminal observations contain the slots of the frame before it. For exact
                ones, wrap each environment with gymnasium.wrappers.AddRenderObservation instead.

        Raises:
            TypeError, ValueError: if the observations contain no frames for the encoder, an
                argument is invalid, or policies do not support the entries of ``keep``.
        """
        if not isinstance(venv, VecEnv):
            raise TypeError(
                f"venv must be a Stable-Baselines3 VecEnv, got {type(venv).__name__}. Use "
                "GenesisObs for a single environment, GenesisVectorObs for one of "
                "gymnasium.vector."
            )
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
        self._slot_codec = SlotObsCodec(
            self.slot_encoder,
            venv.observation_space,
            options,
            rendered=render,
            num_envs=venv.num_envs,
        )
        if render:
            check_render_mode(venv.render_mode)
        self._render_frames = render
        self._last_frames: npt.NDArray[Any] | None = None
        check_kept(self._slot_codec.space, keep)
        super().__init__(venv, observation_space=self._slot_codec.space)

    @property
    def slot_settings(self) -> dict[str, Any]:
        """Settings that determine the observations: encoder and options."""
        return self._slot_codec.settings

    def reset(self) -> VecEnvObs:
        """Reset all environments and encode their first frames."""
        observations = self.venv.reset()
        encoded = self._slot_codec.encode_step(
            observations, {}, first=np.ones(self.num_envs, np.bool_), rendered=self._rendered()
        )
        self.reset_infos = [
            {**info, **_row(encoded.info, i)} for i, info in enumerate(self._inner_reset_infos())
        ]
        return encoded.observation  # type: ignore[no-any-return]

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the environments' step and encode all frames, including terminal ones."""
        observations, rewards, dones, infos = self.venv.step_wait()
        dones = np.asarray(dones, np.bool_)  # uint8 in SuperSuit
        final = {
            i: info["terminal_observation"]
            for i, info in enumerate(infos)
            if "terminal_observation" in info
        }
        last = self._last_frames
        encoded = self._slot_codec.encode_step(
            observations,
            final,
            first=dones,
            rendered=self._rendered(),
            rendered_final={} if last is None else {i: last[i] for i in final},
        )
        infos = [{**info, **_row(encoded.info, i)} for i, info in enumerate(infos)]
        for i, (observation, extra) in encoded.final.items():
            infos[i] |= {"terminal_observation": observation, **extra}
            self.reset_infos[i] = {**self._inner_reset_infos()[i], **_row(encoded.info, i)}
        return encoded.observation, rewards, dones, infos

    def _rendered(self) -> npt.NDArray[Any] | None:
        if self._render_frames:
            self._last_frames = render_frames(self.venv)
        return self._last_frames

    def _inner_reset_infos(self) -> list[dict[str, Any]]:
        """Return the infos of resets, which only the innermost vector environment has."""
        inner = self.venv
        while isinstance(inner, VecEnvWrapper) and isinstance(inner.venv, VecEnv):
            inner = inner.venv  # unlike `unwrapped`, ends at a VecEnv: SuperSuit wraps another kind
        return inner.reset_infos


def _row(info: Info, index: int) -> Info:
    return {name: value[index] for name, value in info.items()}


def check_kept(space: spaces.Space[Any], keep: Sequence[str]) -> None:
    """Check that policies support the entries of ``keep`` and do not mistake them for images.

    Raises:
        ValueError: naming the entry.
    """
    for name in keep:
        entry = cast("spaces.Dict", space)[name]
        if not isinstance(entry, _KEPT):
            raise ValueError(
                "keep must be Box, Discrete, MultiDiscrete or MultiBinary entries, got "
                f"{name!r}: {entry}."
            )
        if is_image_space(entry) and sorted(entry.shape or ())[-2] < _MIN_IMAGE:
            raise ValueError(
                f"keep must not have images of less than {_MIN_IMAGE} pixels, the minimum of the "
                f"policies' CNN, got {name!r}: {entry}. If it is no image, convert it from uint8 "
                "with gymnasium.wrappers.TransformObservation."
            )


class GymVecEnv(VecEnv):
    """Gymnasium vector environment as a VecEnv of Stable-Baselines3.

    Equivalent to `DummyVecEnv` of the single environments, with the speed of the vector
    environment. At the end of an episode the environment is reset in the same step, the last
    observation is in `info["terminal_observation"]`, and `info["TimeLimit.truncated"]` is True for
    truncation. `get_attr` repeats the attributes of the vector environment; `set_attr` and
    `env_method` are not supported.

    Example:
        >>> envs = gym.make_vec("genesis_rl/ObjectGoal-v0", 64, autoreset_mode="SameStep")
        >>> PPO("CnnPolicy", VecMonitor(GymVecEnv(envs))).learn(100_000)  # doctest: +SKIP
    """

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Wrap a vector environment.

        Args:
            envs: vector environment with `AutoresetMode.SAME_STEP` and Box observations or Dicts of
                them.

        Raises:
            TypeError: if ``envs`` is no vector environment with such observations.
            ValueError: for another autoreset mode.
        """
        if not isinstance(envs, gym.vector.VectorEnv):
            raise TypeError(
                f"envs must be a gymnasium.vector.VectorEnv, got {type(envs).__name__}."
            )
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"envs must have autoreset_mode='SameStep', got {mode}.")
        space = envs.single_observation_space
        parts = list(space.values()) if isinstance(space, gym.spaces.Dict) else [space]
        if not all(isinstance(part, gym.spaces.Box) for part in parts):
            raise TypeError(f"envs must have Box observations or Dicts of them, got {space}.")
        self.envs = envs
        self._actions: npt.NDArray[Any] = np.zeros(0)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options of `seed` and `set_options`."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else self._seeds
        observations, info = self.envs.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos = _rows(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Store the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments."""
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        dones = terminated | truncated
        last, final = info.pop("final_obs", None), _rows(info.pop("final_info", {}), self.num_envs)
        infos = _rows(info, self.num_envs)
        for i in dones.nonzero()[0]:
            self.reset_infos[i] = infos[i]
            infos[i] = {**final[i], "terminal_observation": last[i]}
        for row, only_truncated in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = only_truncated
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """Render every environment."""
        pictures: Any = self.envs.render()
        return pictures or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector environment, repeated for the given environments."""
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raise an error: single environments are not accessible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"GymVecEnv does not support set_attr (of {attr_name!r}).")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Raise an error: single environments are not accessible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"GymVecEnv does not support env_method (of {method_name!r}).")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False for every environment: single environments have no wrappers."""
        return [False] * len(list(self._get_indices(indices)))


def _rows(info: Mapping[str, Any], n_envs: int) -> list[dict[str, Any]]:
    """Split Gymnasium's batched info into one dict per environment."""
    rows: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    for name, values in info.items():
        present = info.get(f"_{name}")
        if present is None:
            continue  # a mask
        parts: Any = _rows(values, n_envs) if isinstance(values, Mapping) else values
        for i in np.flatnonzero(present).tolist():
            rows[i][name] = parts[i].item() if isinstance(parts[i], np.generic) else parts[i]
    return rows
