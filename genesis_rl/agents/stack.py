"""From settings to environments and PPO: the same stack for training, evaluation and loading."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from genesis_rl.agents.config import PIXELS, AgentConfig
from genesis_rl.agents.env_maker import EnvMaker
from genesis_rl.agents.extractors import EXTRACTORS, SlotExtractor
from genesis_rl.agents.extractors.encoder import EncoderExtractor
from genesis_rl.agents.extractors.pixels import FeatureMapExtractor
from genesis_rl.agents.frames import VecFrames
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.checkpoint import pick_device
from genesis_rl.envs.slot_obs import InfoKey
from genesis_rl.perception import SlotEncoder
from genesis_rl.slots import SceneModel

# Read by OpenMP, OpenBLAS and MKL when a process starts.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Frames that tell the spread of the latents.
_SCALE_FRAMES = 512


class StepTimer(VecEnvWrapper):
    """Adds up the time that the environments inside take for their steps.

    ``reset_infos`` are those of the wrapper inside.

    Attributes:
        seconds: wall-clock time in all.
    """

    seconds: float = 0.0

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        observations = self.venv.reset()
        self.reset_infos = self.venv.reset_infos
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments."""
        began = time.perf_counter()
        result = self.venv.step_wait()
        self.seconds += time.perf_counter() - began
        self.reset_infos = self.venv.reset_infos
        return result


def make_vec_env(
    config: AgentConfig,
    encoder: SlotEncoder | None,
    *,
    num_envs: int | None = None,
    seed: int | None = None,
    info_keys: tuple[InfoKey, ...] = (),
) -> VecEnv:
    """Make the environments with what the agent sees of them.

    Args:
        config: the settings.
        encoder: turns the frames of all environments into slots, in this process; None for what
            is seen without.
        num_envs: how many; None: as in the settings.
        seed: of the first environment, the others follow; None: not seeded.
        info_keys: "frame" and, where there is an encoder, "masks" to put in the infos.

    Returns:
        The vector environment. Observations: slots (num_envs, K, D) or the state, float32; frames
        (num_envs, 3, S, S), uint8.

    Raises:
        ValueError: if the environment cannot be made, or shows no frames that the encoder takes.
    """
    num_envs = num_envs or config.num_envs
    maker = EnvMaker(config, show=config.obs == "state" and "frame" in info_keys)
    probe = maker()  # errors are told apart here; in a worker they would end its process
    try:
        one = DummyVecEnv([lambda: probe])
        _see(config, encoder, one, ())
    finally:
        probe.close()
    venv: VecEnv
    if config.vec == "dummy":
        venv = DummyVecEnv([maker] * num_envs)
    else:
        try:
            with _single_threaded_children():
                venv = SubprocVecEnv([maker] * num_envs)
        except (EOFError, ConnectionError) as error:
            raise ValueError(
                f"env {config.env!r} can be made in this process, but not in one of its own; "
                "wanted module:id, with the module that registers it, such as "
                "genesis_rl:genesis_rl/ObjectGoal-v0, or vec dummy."
            ) from error
    if seed is not None:
        venv.seed(seed)
    return StepTimer(_see(config, encoder, StepTimer(venv), info_keys))


def step_seconds(venv: VecEnv) -> tuple[float, float]:
    """Time in all that the steps of `make_vec_env`'s environments took: environments, encoder."""
    timers = []
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, StepTimer):
            timers.append(venv.seconds)
        venv = venv.venv
    return timers[-1], timers[0] - timers[-1]


def _see(
    config: AgentConfig, encoder: SlotEncoder | None, venv: VecEnv, info_keys: tuple[InfoKey, ...]
) -> VecEnv:
    """Put what the agent sees through around the environments."""
    if encoder is not None and not config.finetune:
        return VecGenesisObs(
            venv,
            encoder,
            mask_geometry=config.mask_geometry,
            key=config.obs_key,
            frame_layout=config.frame_layout,
            info_keys=info_keys,
        )
    if encoder is not None or config.obs in PIXELS:
        return VecFrames(
            venv,
            size=config.frame_size if encoder is None else encoder.image_size,
            preprocessing=None if encoder is None else encoder.preprocessing,
            key=config.obs_key,
            frame_layout=config.frame_layout,
            show="frame" in info_keys,
        )
    return venv


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


def build_ppo(
    config: AgentConfig,
    venv: VecEnv,
    device: str | torch.device = "auto",
    *,
    model: SceneModel | None = None,
) -> PPO:
    """Build PPO with new weights for environments of `make_vec_env`.

    Args:
        config: the settings.
        venv: the environments.
        device: where the policy runs.
        model: what finetune starts from; it is copied.

    Raises:
        ValueError: for an unknown device.
        TypeError: if finetune is set and there is no model.
    """
    ppo = config.ppo
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
        policy_kwargs=_network(config, model),
        seed=config.seed,
        device=pick_device(device),
    )


def _network(config: AgentConfig, model: SceneModel | None) -> dict[str, Any]:
    """The arguments of the policy that say what its features come from."""
    if config.obs == "pixels":
        return {"features_extractor_class": NatureCNN, "net_arch": []}
    policy = config.policy
    cls: type[BaseFeaturesExtractor] = EXTRACTORS[policy.extractor]
    kwargs: dict[str, Any] = {}
    hidden = [policy.width] * policy.layers
    if policy.extractor != "mlp":
        kwargs, hidden = {"width": policy.width, "layers": policy.layers}, []
        kwargs["features_dim"] = policy.width
    if policy.extractor == "transformer":
        kwargs["heads"] = policy.heads
    if config.obs == "feature_map":
        cls, kwargs = FeatureMapExtractor, {"pool": cls, **kwargs}
    if config.finetune:
        kwargs = {"encoder": model, "pool": cls, "pool_kwargs": kwargs}
        cls, kwargs["mask_geometry"] = EncoderExtractor, config.mask_geometry
    return {
        "features_extractor_class": cls,
        "features_extractor_kwargs": kwargs,
        "net_arch": hidden,
    }


def fit_scale(model: PPO, venv: VecEnv, seed: int = 0) -> None:
    """Set a slot extractor's scale by observations of some random steps, made in ``venv``."""
    extractor = model.policy.features_extractor
    if not isinstance(extractor, SlotExtractor | EncoderExtractor):
        return
    venv.action_space.seed(seed)
    seen = [cast("np.ndarray[Any, Any]", venv.reset())]
    for _ in range(_SCALE_FRAMES // venv.num_envs):
        actions = np.stack([venv.action_space.sample() for _ in range(venv.num_envs)])
        seen.append(cast("np.ndarray[Any, Any]", venv.step(actions)[0]))
    observations = preprocess_obs(torch.as_tensor(np.concatenate(seen)), venv.observation_space)
    extractor.fit_scale(cast("Tensor", observations).to(model.device))
