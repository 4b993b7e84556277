"""Observations of agents: slots of a pretrained or random encoder, and frames for CNNs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from genesis_rl.agents.config import AgentConfig
from genesis_rl.checkpoints.loading import Pretrained, load_pretrained
from genesis_rl.envs.wrappers.frame_source import find_frames, find_kept, follow
from genesis_rl.envs.wrappers.rendering import render_frame
from genesis_rl.models import MODELS
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Layout, Preprocessing, as_nhwc_uint8
from genesis_rl.slots import SceneModel
from genesis_rl.training.presets import PRESETS

Frames = npt.NDArray[np.uint8]

#: Entry of the frames in observations with kept entries.
FRAMES = "frames"
# Models by the value of obs.
_KINDS = {
    "genesis": ("genesis", "genesis_s", "genesis_v2"),
    "monet": ("monet",),
    "vae": ("bd_vae", "dc_vae"),
}


def load_encoder(config: AgentConfig) -> Pretrained | None:
    """Load the encoder of the settings, with random weights for obs random; None without one.

    Raises:
        ValueError: if it cannot be loaded, or obs requires another model.
    """
    if config.encoder is None:
        return None
    if config.obs == "random":
        return _random_encoder(config.encoder, config.seed)
    pretrained = load_pretrained(config.encoder, device="cpu")
    name = _model_name(pretrained.model)
    if name not in _KINDS.get(config.obs, (name,)):
        raise ValueError(
            f"encoder must be one of {', '.join(_KINDS[config.obs])} for obs {config.obs!r}, got "
            f"{name} in {config.encoder}. Use obs encoder for any model."
        )
    return pretrained


def _random_encoder(source: str, seed: int) -> Pretrained:
    """Initialise a model with the architecture of a folder, Hub id or preset from a seed."""
    if source in PRESETS and not Path(source).exists():
        architecture, preprocessing = PRESETS[source].config.model, Preprocessing()
        (cls,) = [cls for config_cls, cls in MODELS.values() if type(architecture) is config_cls]
    else:
        trained = load_pretrained(source, device="cpu")
        architecture, preprocessing = trained.model.config, trained.preprocessing
        cls = type(trained.model)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = cls(architecture).eval()
    return Pretrained(model, preprocessing, {"weights": f"random, seed {seed}"})


def _model_name(model: SceneModel) -> str:
    """Return the model's name in MODELS; for a student, its teacher's."""
    model = getattr(model, "teacher", model)
    return next(name for name, (_, cls) in MODELS.items() if type(model) is cls)


def make_encoder(
    config: AgentConfig, model: SceneModel | Path, preprocessing: Preprocessing | None = None
) -> SlotEncoder:
    """Create the encoder of the settings from a model in memory or a folder.

    Raises:
        ValueError: if the folder contains no model, or the device is unknown.
    """
    return SlotEncoder(
        model,
        device=config.encoder_device,
        preprocessing=preprocessing,
        dtype="bfloat16" if config.encoder_precision == "bf16" else "float32",
        refine_steps=config.encoder_refine_steps,
    )


class VecFrames(VecEnvWrapper):
    """Converts the frames of a vector environment to the format of Stable-Baselines3's CNNs.

    The observations are (3, S, S) uint8 for frames of any axis order, size and value range; with
    ``keep``, a Dict of these, under `FRAMES`, and the kept entries.
    """

    def __init__(
        self,
        venv: VecEnv,
        *,
        size: int,
        preprocessing: Preprocessing | None = None,
        image_key: str | None = None,
        image_layout: Layout = "auto",
        frame_in_info: bool = False,
        crop: Sequence[int] | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        """Wrap a vector environment.

        Args:
            venv: vector environment whose observations are, or contain, frames.
            size: S.
            preprocessing: method of resizing, and the region of interest without ``crop``; None
                stretches whole frames.
            image_key: entry of a Dict observation with the image, or its path in nested Dicts, such
                as "camera/rgb"; None detects it.
            image_layout: axis order of a single frame; "auto" infers it from the space.
            frame_in_info: add the frame, (S, S, 3), to the infos as "frame".
            crop: region of interest, (top, left, height, width) in pixels, cut out before resizing;
                None: that of ``preprocessing``, or else the whole frame.
            keep: entries of a Dict observation to keep beside the frames, or their paths.

        Raises:
            ValueError: if the observations contain no frames, or not the entries of ``keep``.
        """
        self._source = find_frames(
            venv.observation_space,
            key=image_key,
            layout=image_layout,
            crop=crop,
            preprocessing=preprocessing,
        )
        self._size, self._preprocessing, self._in_info = size, preprocessing, frame_in_info
        #: Settings that determine the observations, as plain data.
        self.frame_settings: dict[str, Any] = {
            "preprocessing": {"resize": (preprocessing or Preprocessing()).resize},
            "image_key": image_key,
            "image_layout": image_layout,
            "crop": self._source.crop,
        }
        if preprocessing is not None:
            preprocessing.check(*self._source.size, size)
        if FRAMES in keep:
            raise ValueError(
                f"keep must not contain {FRAMES!r}, the entry of the converted frames."
            )
        self._kept = find_kept(venv.observation_space, keep)
        space: spaces.Space[Any] = spaces.Box(0, 255, (3, size, size), np.uint8)
        if self._kept:
            entries = {name: follow(venv.observation_space, at) for name, at in self._kept.items()}
            space = spaces.Dict({FRAMES: space, **entries})
        super().__init__(venv, observation_space=space)

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        observations = self.venv.reset()
        frames = self._convert(self._source.frames(observations))
        self.reset_infos = [
            {**info, **self._extra(frame)}
            for info, frame in zip(self.venv.reset_infos, frames, strict=True)
        ]
        joined: VecEnvObs = self._join(frames, observations)
        return joined

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments; the last frame of an episode is in its info."""
        observations, rewards, dones, infos = self.venv.step_wait()
        frames = self._convert(self._source.frames(observations))
        for i, info in enumerate(infos):
            frame = frames[i]
            if "terminal_observation" in info:
                self.reset_infos[i] = {**self.venv.reset_infos[i], **self._extra(frame)}
                last = info["terminal_observation"]
                frame = self._convert(np.asarray(self._source.frames(last))[None])[0]
                info["terminal_observation"] = self._join(frame, last)
            info |= self._extra(frame)
        return self._join(frames, observations), rewards, dones, infos

    def _join(self, frames: Frames, observations: Any) -> Any:
        """Return the frames, with the kept entries of the observations, if any, in a Dict."""
        kept = {name: follow(observations, route) for name, route in self._kept.items()}
        return {FRAMES: frames, **kept} if kept else frames

    def _convert(self, frames: Any) -> Frames:
        images = as_nhwc_uint8(
            frames,
            layout=self._source.layout,
            white=self._source.white,
            image_size=self._size,
            preprocessing=self._preprocessing,
        )
        # A copy, because the environment may reuse the memory for its next frame.
        return images.transpose(0, 3, 1, 2).copy()

    def _extra(self, frame: Frames) -> dict[str, Frames]:
        return {"frame": frame.transpose(1, 2, 0)} if self._in_info else {}


class RenderInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the rendered frame to every info as "frame", for observations without frames."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset and render."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, {**info, "frame": render_frame(self.env)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and render."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, "frame": render_frame(self.env)}
