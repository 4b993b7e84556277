"""Check that training and evaluation environments have the same wrappers."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
)

from genesis_rl.agents.frames import VecFrames
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.wrappers.slot_obs import SLOT_SETTINGS


class SlotEvalCallback(EvalCallback):
    """EvalCallback that raises an error for evaluation environments unlike those of training.

    Stable-Baselines3 compares only the outermost wrappers, and only warns. `check_same_stack` is
    called at the start of ``learn``.
    """

    def _init_callback(self) -> None:
        check_same_stack(self.training_env, self.eval_env)
        super()._init_callback()


def check_same_stack(training: VecEnv, evaluation: VecEnv) -> None:
    """Check that an agent's observations in evaluation are those of its training.

    Wrappers that change observations must be the same in the same order, with the same encoder and
    settings. This includes the wrappers of single environments (GenesisObs), in this process or
    another, and of Gymnasium's vector environments (GenesisVectorObs). Wrappers that do not change
    observations may differ.

    Args:
        training: training environments.
        evaluation: evaluation environments.

    Raises:
        ValueError: if they differ, or VecNormalize would update its statistics or normalise rewards
            in evaluation.
    """
    names, layers = _layers(training)
    other_names, others = _layers(evaluation)
    pairs: list[tuple[dict[str, Any], dict[str, Any]]]
    pairs = [({"wrappers": names}, {"wrappers": other_names}), *zip(layers, others, strict=False)]
    for expected, actual in pairs:
        for name in expected | actual:
            value, other = expected.get(name), actual.get(name)
            if other != value:
                raise ValueError(
                    f"the {name} of the evaluation environments must be {value} as in training, "
                    f"got {other}. Use the same wrappers for both."
                )
    for layer in _all(evaluation):
        if isinstance(layer, VecNormalize) and (layer.training or layer.norm_reward):
            raise ValueError(
                "VecNormalize must have training=False and norm_reward=False in evaluation, got "
                f"{layer.training} and {layer.norm_reward}."
            )


def _all(venv: VecEnv) -> list[VecEnv]:
    """Return the wrappers, outermost first, and the environments inside."""
    wrappers = [venv]
    while isinstance(wrappers[-1], VecEnvWrapper):
        wrappers.append(wrappers[-1].venv)
    return wrappers


def _layers(venv: VecEnv) -> tuple[list[str], list[dict[str, Any]]]:
    """Return names and settings of the wrappers that change observations, outermost first."""
    names, layers = [], []
    for layer in _all(venv):
        settings: dict[str, Any] = {
            "observations": layer.observation_space,
            "actions": layer.action_space,
        }
        if isinstance(layer, VecGenesisObs):
            settings |= layer.slot_settings
        elif isinstance(layer, VecFrames):
            settings |= layer.frame_settings
        elif isinstance(layer, VecNormalize):
            keys = ("norm_obs", "norm_obs_keys", "clip_obs", "epsilon")
            settings |= {key: getattr(layer, key) for key in keys}
        elif isinstance(layer, VecTransposeImage):
            continue  # added by Stable-Baselines3 in training
        elif isinstance(layer, VecEnvWrapper):
            if layer.observation_space == layer.venv.observation_space:
                continue  # observations are unchanged
        else:
            settings |= _inner_settings(layer)
        names.append(type(layer).__name__ if isinstance(layer, VecEnvWrapper) else "environments")
        layers.append(settings)
    return names, layers


def _inner_settings(venv: VecEnv) -> dict[str, Any]:
    """Return the settings of the slot wrappers of the single environments; empty without any."""
    try:
        metadata = venv.get_attr("metadata")
    except (AttributeError, NotImplementedError):  # not supported by the vector environment
        return {}
    stacks: list[Any] = []
    for entries in metadata:
        wrappers = entries.get(SLOT_SETTINGS, []) if isinstance(entries, Mapping) else []
        if wrappers not in stacks:
            stacks.append(wrappers)
    if len(stacks) != 1:  # environments that differ from each other
        return {"slots": stacks}
    return {
        f"{'inner ' * depth}{name}": value
        for depth, wrapper in enumerate(stacks[0])
        for name, value in wrapper.items()
    }
