"""The Stable-Baselines3 wrapper: object slots for all environments in one pass of one encoder."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from genesis_rl.envs.slot_obs import Info, InfoKey, ObsLayout, SlotObsCodec, SlotObsOptions
from genesis_rl.frames import Layout
from genesis_rl.perception import EncoderLike, as_encoder

_KEPT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
# Side of the smallest image that NatureCNN takes.
_MIN_IMAGE = 36


class VecGenesisObs(VecEnvWrapper):
    """Replaces the frames of a Stable-Baselines3 vector environment by object slots.

    One pass of one encoder, in the parent process, serves all environments and the terminal
    observations of episodes that ended, so it suits SubprocVecEnv and a GPU. The observations are
    those of GenesisObs. Put VecFrameStack and VecNormalize around this wrapper, not inside.

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
            venv: vector environment whose observations are, or hold, frames.
            encoder: path of a saved model, hub id, or a SlotEncoder (also its ``spec``).
            layout: "set" (K, D), "flat" (K * D,), or "dict" with z_m, z_c (and geometry).
            mask_geometry: append each slot's mask centroid (row, column, in [-1, 1]) and area.
            key: entry of a Dict observation that holds the frame, or its path in nested Dicts, such
                as "camera/rgb"; None finds it.
            keep: entries of a Dict observation to pass through beside the slots.
            frame_layout: axes of one frame of one environment; "auto" tells them from the space.
            device: where to load the encoder; "auto" is CUDA if there is one.
            info_keys: "frame" (uint8, (H, W, 3)) and "masks" (float32, (K, S, S)) to put in the
                info of every step; where an episode ended they show its terminal observation, and
                ``reset_infos`` the new episode's first.
            align: keep every object in its slot within an episode (see SlotAligner), for policies
                that stack or remember observations.

        Raises:
            TypeError, ValueError: if the observations hold no frames that the encoder can take,
                or an argument is not as described, or policies cannot take what is kept.
        """
        if not isinstance(venv, VecEnv):
            raise TypeError(
                f"venv is {type(venv).__name__}; wanted a Stable-Baselines3 VecEnv (GenesisObs "
                "wraps a single environment, GenesisVectorObs one of gymnasium.vector)."
            )
        options = SlotObsOptions(layout, mask_geometry, key, keep, frame_layout, info_keys, align)
        self.slot_encoder = as_encoder(encoder, device=device)
        self._slot_codec = SlotObsCodec(
            self.slot_encoder, venv.observation_space, options, num_envs=venv.num_envs
        )
        _check_kept(self._slot_codec.space, keep)
        super().__init__(venv, observation_space=self._slot_codec.space)

    @property
    def slot_settings(self) -> dict[str, Any]:
        """What decides the observations: encoder and options, without those of the info."""
        return self._slot_codec.settings

    def reset(self) -> VecEnvObs:
        """Reset all environments and encode their first frames."""
        encoded = self._slot_codec.encode_step(
            self.venv.reset(), {}, first=np.ones(self.num_envs, np.bool_)
        )
        # Only the innermost vector environment knows what its environments' resets said.
        self.reset_infos = [
            {**info, **_row(encoded.info, i)} for i, info in enumerate(self.unwrapped.reset_infos)
        ]
        return encoded.observation  # type: ignore[no-any-return]

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the environments' step and encode all frames, terminal ones included."""
        observations, rewards, dones, infos = self.venv.step_wait()
        final = {
            i: info["terminal_observation"]
            for i, info in enumerate(infos)
            if "terminal_observation" in info
        }
        encoded = self._slot_codec.encode_step(observations, final, first=dones)
        infos = [{**info, **_row(encoded.info, i)} for i, info in enumerate(infos)]
        for i, (observation, extra) in encoded.final.items():
            infos[i] |= {"terminal_observation": observation, **extra}
            self.reset_infos[i] = {**self.unwrapped.reset_infos[i], **_row(encoded.info, i)}
        return encoded.observation, rewards, dones, infos


def _row(info: Info, index: int) -> Info:
    return {name: value[index] for name, value in info.items()}


def _check_kept(space: spaces.Space[Any], keep: Sequence[str]) -> None:
    """Refuse kept entries that policies cannot take, or would take for images that they are not.

    Raises:
        ValueError: naming the entry.
    """
    for name in keep:
        entry = cast("spaces.Dict", space)[name]
        if not isinstance(entry, _KEPT):
            raise ValueError(
                f"keep has {name!r}, {entry}; policies take Box, Discrete, MultiDiscrete and "
                "MultiBinary."
            )
        if is_image_space(entry) and sorted(entry.shape or ())[-2] < _MIN_IMAGE:
            raise ValueError(
                f"keep has {name!r}, {entry}, which policies would take for an image, of less "
                f"than the {_MIN_IMAGE} pixels that their CNN wants; wanted another dtype than "
                "uint8, by gymnasium.wrappers.TransformObservation, or no such entry."
            )
