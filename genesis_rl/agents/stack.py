"""From settings to environments and PPO: the same stack for training, evaluation and loading."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import AddRenderObservation, FilterObservation
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.extractors import FlatSlotsExtractor, SlotScale, SlotSetExtractor
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.checkpoint import pick_device
from genesis_rl.envs.frame_source import find_frames
from genesis_rl.envs.slot_obs import InfoKey
from genesis_rl.frames import Preprocessing
from genesis_rl.perception import SlotEncoder
from genesis_rl.slots import SceneModel

_ACTIONS = (
    gym.spaces.Box,
    gym.spaces.Discrete,
    gym.spaces.MultiDiscrete,
    gym.spaces.MultiBinary,
)
# Read by OpenMP, OpenBLAS and MKL when a process starts.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Frames that tell the spread of the latents.
_SCALE_FRAMES = 512


class EpisodeSeeds(gym.Wrapper[Any, Any, Any, Any]):
    """Gives every episode a seed of its own, once `seed_episodes` has been called.

    Episode e of an evaluation then starts the same way in whichever environment it runs and
    whatever was done before, so that policies meet the same episodes.
    """

    _seeds: Iterator[int] | None = None

    def seed_episodes(self, first: int, stride: int) -> None:
        """Start the coming episodes with the seeds first, first + stride, ..."""
        self._seeds = iter(range(first, 2**31, stride))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset with the next seed, unless one is given."""
        if seed is None and self._seeds is not None:
            seed = next(self._seeds)
        return self.env.reset(seed=seed, options=options)


@dataclass(frozen=True)
class EnvMaker:
    """Makes one environment of the settings; plain data, so that any process can.

    Attributes:
        config: what to make.
    """

    config: AgentConfig

    def __call__(self) -> gym.Env[Any, Any]:
        """Make the environment.

        Raises:
            ValueError: if it cannot be made, shows no frames, or has actions that PPO cannot take.
        """
        config = self.config
        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)
        env = self._make()
        if not isinstance(env.action_space, _ACTIONS):
            raise ValueError(
                f"env {config.env!r} has the actions {env.action_space}; PPO takes Box, Discrete, "
                "MultiDiscrete and MultiBinary."
            )
        if config.render:
            env = AddRenderObservation(env, render_only=True)
        source = find_frames(env.observation_space, key=config.obs_key, layout=config.frame_layout)
        if source.key is not None:  # only the frame goes through the pipe between processes
            env = FilterObservation(env, [source.key])
        return EpisodeSeeds(Monitor(env))

    def _make(self) -> gym.Env[Any, Any]:
        config = self.config
        options = dict(config.options)
        if config.render:
            options["render_mode"] = "rgb_array"
        try:
            return gym.make(config.env, **options)
        except Exception as error:  # whatever the environment's own code raises
            raise ValueError(
                f"env {config.env!r} cannot be made: {type(error).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error


class StepTimer(VecEnvWrapper):
    """Adds up the time that the environments inside take for their steps.

    Attributes:
        seconds: wall-clock time in all.
    """

    seconds: float = 0.0

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments."""
        began = time.perf_counter()
        result = self.venv.step_wait()
        self.seconds += time.perf_counter() - began
        return result


def make_encoder(
    config: AgentConfig, model: SceneModel | Path, preprocessing: Preprocessing | None = None
) -> SlotEncoder:
    """Make the encoder as the settings want it, of a model in memory or a folder.

    Raises:
        ValueError: if the folder holds no model, or the device is unknown.
    """
    return SlotEncoder(
        model,
        device=config.encoder_device,
        preprocessing=preprocessing,
        dtype="bfloat16" if config.encoder_precision == "bf16" else "float32",
    )


def make_vec_env(
    config: AgentConfig,
    encoder: SlotEncoder,
    *,
    num_envs: int | None = None,
    seed: int | None = None,
    info_keys: tuple[InfoKey, ...] = (),
) -> VecEnv:
    """Make the environments with one encoder around them.

    Args:
        config: the settings.
        encoder: turns the frames of all environments into slots, in this process.
        num_envs: how many; None: as in the settings.
        seed: of the first environment, the others follow; None: not seeded.
        info_keys: "frame" and "masks" to put in the infos.

    Returns:
        The vector environment: observations (num_envs, K, D), float32.

    Raises:
        ValueError: if the environment cannot be made, or shows no frames that the encoder takes.
    """
    num_envs = num_envs or config.num_envs
    maker = EnvMaker(config)
    probe = maker()  # errors are told apart here; in a worker they would end its process
    try:
        one = DummyVecEnv([lambda: probe])
        _slots(config, encoder, one, ())
    finally:
        probe.close()
    frames: VecEnv
    if config.vec == "dummy":
        frames = DummyVecEnv([maker] * num_envs)
    else:
        try:
            with _single_threaded_children():
                frames = SubprocVecEnv([maker] * num_envs)
        except (EOFError, ConnectionError) as error:
            raise ValueError(
                f"env {config.env!r} can be made in this process, but not in one of its own; "
                "wanted module:id, with the module that registers it, or vec dummy."
            ) from error
    if seed is not None:
        frames.seed(seed)
    return StepTimer(_slots(config, encoder, StepTimer(frames), info_keys))


def step_seconds(venv: VecEnv) -> tuple[float, float]:
    """Time in all that the steps of `make_vec_env`'s environments took: environments, encoder."""
    timers = []
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, StepTimer):
            timers.append(venv.seconds)
        venv = venv.venv
    with_encoder, environments = timers
    return environments, with_encoder - environments


def _slots(
    config: AgentConfig, encoder: SlotEncoder, frames: VecEnv, info_keys: tuple[InfoKey, ...]
) -> VecGenesisObs:
    return VecGenesisObs(
        frames,
        encoder,
        mask_geometry=config.mask_geometry,
        key=config.obs_key,
        frame_layout=config.frame_layout,
        info_keys=info_keys,
    )


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let processes that are started inside use one thread each."""
    # They are forked off a server that has imported PyTorch once.
    multiprocessing.set_forkserver_preload([__name__])
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def build_ppo(config: AgentConfig, venv: VecEnv, device: str | torch.device = "auto") -> PPO:
    """Build PPO with new weights for environments of `make_vec_env`.

    Raises:
        ValueError: for an unknown device.
    """
    policy, ppo = config.policy, config.ppo
    kwargs: dict[str, Any] = {
        "features_extractor_class": FlatSlotsExtractor,
        "net_arch": [policy.width] * policy.layers,
    }
    if policy.extractor == "transformer":
        sizes = {"width": policy.width, "heads": policy.heads, "layers": policy.layers}
        kwargs = {
            "features_extractor_class": SlotSetExtractor,
            "features_extractor_kwargs": {"features_dim": policy.width, **sizes},
            "net_arch": [],
        }
    return PPO(
        "MlpPolicy",
        venv,
        n_steps=ppo.n_steps,
        batch_size=ppo.batch_size,
        n_epochs=ppo.n_epochs,
        learning_rate=ppo.learning_rate,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        ent_coef=ppo.ent_coef,
        vf_coef=ppo.vf_coef,
        clip_range=ppo.clip_range,
        max_grad_norm=ppo.max_grad_norm,
        policy_kwargs=kwargs,
        seed=config.seed,
        device=pick_device(device),
    )


def fit_scale(model: PPO, venv: VecEnv, seed: int = 0) -> None:
    """Set the extractor's scale by observations of some random steps, made in ``venv``."""
    venv.action_space.seed(seed)
    seen = [cast("np.ndarray[Any, Any]", venv.reset())]
    for _ in range(_SCALE_FRAMES // venv.num_envs):
        actions = np.stack([venv.action_space.sample() for _ in range(venv.num_envs)])
        seen.append(cast("np.ndarray[Any, Any]", venv.step(actions)[0]))
    scale = model.policy.features_extractor.scale
    if isinstance(scale, SlotScale):
        scale.fit(torch.as_tensor(np.concatenate(seen)))
