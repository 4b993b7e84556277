"""Evaluation on the observations that the agent was trained on."""

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
from genesis_rl.envs.slot_obs import SLOT_SETTINGS


class SlotEvalCallback(EvalCallback):
    """EvalCallback that refuses evaluation environments unlike those of training.

    Stable-Baselines3 only warns if the outermost wrappers differ, whatever lies inside. See
    `check_same_stack`, which is called when ``learn`` begins.
    """

    def _init_callback(self) -> None:
        check_same_stack(self.training_env, self.eval_env)
        super()._init_callback()


def check_same_stack(training: VecEnv, evaluation: VecEnv) -> None:
    """Refuse evaluation environments through which an agent would see otherwise than in training.

    The wrappers that shape observations have to be the same in the same order, with the same
    encoder and settings, also those of the single environments (GenesisObs), in this process or
    another, and of Gymnasium's vector environments (GenesisVectorObs). Wrappers that only watch
    may differ.

    Args:
        training: the environments that the agent learns in.
        evaluation: those that it is evaluated in.

    Raises:
        ValueError: if they differ, or VecNormalize would go on learning in evaluation or change
            its rewards.
    """
    names, layers = _layers(training)
    other_names, others = _layers(evaluation)
    pairs: list[tuple[dict[str, Any], dict[str, Any]]]
    pairs = [({"wrappers": names}, {"wrappers": other_names}), *zip(layers, others, strict=False)]
    for wanted, got in pairs:
        for what in wanted | got:
            value, other = wanted.get(what), got.get(what)
            if other != value:
                raise ValueError(
                    f"the {what} of the evaluation environments: {other}, but of the training "
                    f"environments: {value}; wanted the same stack around both."
                )
    for layer in _all(evaluation):
        if isinstance(layer, VecNormalize) and (layer.training or layer.norm_reward):
            raise ValueError(
                f"VecNormalize has training={layer.training}, norm_reward={layer.norm_reward} in "
                "evaluation; wanted False for both."
            )


def _all(venv: VecEnv) -> list[VecEnv]:
    """The wrappers, outermost first, and the environments inside."""
    found = [venv]
    while isinstance(found[-1], VecEnvWrapper):
        found.append(found[-1].venv)
    return found


def _layers(venv: VecEnv) -> tuple[list[str], list[dict[str, Any]]]:
    """What shapes observations, outermost first: names and settings."""
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
            continue  # Stable-Baselines3 adds it by itself, in training
        elif isinstance(layer, VecEnvWrapper):
            if layer.observation_space == layer.venv.observation_space:
                continue  # it only watches
        else:
            settings |= _inner_settings(layer)
        names.append(type(layer).__name__ if isinstance(layer, VecEnvWrapper) else "environments")
        layers.append(settings)
    return names, layers


def _inner_settings(venv: VecEnv) -> dict[str, Any]:
    """The settings of the slot wrappers around the single environments; empty without any."""
    try:
        metadata = venv.get_attr("metadata")
    except (AttributeError, NotImplementedError):  # environments of another kind
        return {}
    found: list[Any] = []
    for entries in metadata:
        wrappers = entries.get(SLOT_SETTINGS, []) if isinstance(entries, Mapping) else []
        if wrappers not in found:
            found.append(wrappers)
    if len(found) != 1:  # environments that differ from each other
        return {"slots": found}
    return {
        f"{'inner ' * depth}{name}": value
        for depth, wrapper in enumerate(found[0])
        for name, value in wrapper.items()
    }
