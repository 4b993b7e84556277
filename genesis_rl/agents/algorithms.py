"""Construction of Stable-Baselines3's algorithms from settings."""

from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecEnv

from genesis_rl.agents.config import OFF_POLICY, AgentConfig
from genesis_rl.agents.extractors import EXTRACTORS, DictExtractor, SlotExtractor
from genesis_rl.agents.extractors.encoder import EncoderExtractor, FeatureMapExtractor
from genesis_rl.slots import SceneModel
from genesis_rl.utils.extras import require
from genesis_rl.utils.process import pick_device

# Frames for the estimate of the latents' scale.
_SCALE_FRAMES = 512


def build_model(
    config: AgentConfig,
    venv: VecEnv,
    device: str | torch.device = "auto",
    *,
    encoder: SceneModel | None = None,
) -> BaseAlgorithm:
    """Build the algorithm of the settings, with initial weights.

    Args:
        config: the settings.
        venv: environments of `make_vec_env`.
        device: device of the policy.
        encoder: initial encoder for finetune, which is copied.

    Returns:
        PPO, SAC, TD3 or RecurrentPPO.

    Raises:
        ValueError: if the device is unknown, an entry of ``keep`` is an image, or a package is
            missing.
        TypeError: if finetune is set without an encoder.
    """
    algorithms: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "sac": SAC, "td3": TD3}
    policy = "MultiInput" if isinstance(venv.observation_space, spaces.Dict) else "Mlp"
    if config.algo == "recurrent_ppo":
        algorithms[config.algo], policy = _recurrent_ppo(), f"{policy}Lstm"
    arguments = _off_policy(config, venv) if config.algo in OFF_POLICY else asdict(config.ppo)
    build: Any = algorithms[config.algo]
    model: BaseAlgorithm = build(
        f"{policy}Policy",
        venv,
        policy_kwargs=_policy_kwargs(config, encoder),
        seed=config.seed,
        device=pick_device(device),
        **arguments,
    )
    return model


def _recurrent_ppo() -> type[BaseAlgorithm]:
    algorithm: type[BaseAlgorithm] = require("sb3_contrib").RecurrentPPO
    return algorithm


def _off_policy(config: AgentConfig, venv: VecEnv) -> dict[str, Any]:
    """Return the arguments of SAC and TD3."""
    off = config.off_policy
    arguments = asdict(off)
    for name in ("net_arch", "ent_coef", "action_noise", "n_sampled_goal"):
        del arguments[name]  # not of all algorithms
    if config.algo == "sac":
        adapted = off.ent_coef.startswith("auto")
        arguments["ent_coef"] = off.ent_coef if adapted else float(off.ent_coef)
    if config.algo == "td3":
        sigma = np.full(venv.action_space.shape or (), off.action_noise)
        arguments["action_noise"] = NormalActionNoise(np.zeros_like(sigma), sigma)
    if config.her:
        arguments["replay_buffer_class"] = HerReplayBuffer
        arguments["replay_buffer_kwargs"] = {"n_sampled_goal": off.n_sampled_goal}
    return arguments


def _policy_kwargs(config: AgentConfig, encoder: SceneModel | None) -> dict[str, Any]:
    """Return the policy's features extractor, its arguments, net_arch and size of the LSTM."""
    policy = config.policy
    cls: type[BaseFeaturesExtractor] = EXTRACTORS[policy.extractor]
    kwargs: dict[str, Any] = {}
    hidden = [policy.width] * policy.layers
    if policy.extractor != "mlp":
        kwargs = {"width": policy.width, "layers": policy.layers, "features_dim": policy.width}
        hidden = hidden if config.keep else []
    if policy.extractor == "transformer":
        kwargs["heads"] = policy.heads
    if config.obs == "feature_map":
        cls, kwargs = FeatureMapExtractor, {"pool": cls, **kwargs}
    if config.finetune:
        kwargs = {"encoder": encoder, "pool": cls, "pool_kwargs": kwargs}
        cls, kwargs["mask_geometry"] = EncoderExtractor, config.mask_geometry
    if config.obs == "pixels":
        cls, kwargs, hidden = NatureCNN, {}, hidden if config.keep else []
    if config.keep:
        cls, kwargs = DictExtractor, {"pool": cls, "pool_kwargs": kwargs}
    if config.algo in OFF_POLICY:
        hidden = list(config.off_policy.net_arch)
    lstm = {"lstm_hidden_size": policy.lstm_size} if config.algo == "recurrent_ppo" else {}
    return {
        "features_extractor_class": cls,
        "features_extractor_kwargs": kwargs,
        "net_arch": hidden,
        **lstm,
    }


def fit_scale(model: BaseAlgorithm, venv: VecEnv, seed: int = 0) -> None:
    """Fit the scales of the features extractors to observations of random steps in ``venv``."""
    modules = {getattr(module, "features_extractor", None) for module in model.policy.modules()}
    kinds = (SlotExtractor, EncoderExtractor, DictExtractor)
    extractors = [module for module in modules if isinstance(module, kinds)]
    if not extractors:
        return
    venv.action_space.seed(seed)
    batches: list[Any] = [venv.reset()]
    for _ in range(_SCALE_FRAMES // venv.num_envs):
        actions = np.stack([venv.action_space.sample() for _ in range(venv.num_envs)])
        batches.append(venv.step(actions)[0])
    space, joined = venv.observation_space, _concatenate(batches)
    observations: Any = preprocess_obs(cast("Any", joined), space)
    if isinstance(observations, dict):
        observations = {name: value.to(model.device) for name, value in observations.items()}
    else:
        observations = observations.to(model.device)
    for extractor in extractors:
        extractor.fit_scale(observations)


def _concatenate(batches: list[Any]) -> Any:
    """Concatenate observations, arrays or dicts of them, to tensors."""
    if isinstance(batches[0], dict):
        return {name: _concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return torch.as_tensor(np.concatenate(batches))
