"""Evaluation on the observations that the agent was trained on."""

from typing import Any

from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
)

from genesis_rl.agents.vec_obs import VecGenesisObs


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
    encoder and settings. Wrappers that only watch may differ.

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
        for what, value in wanted.items():
            if got[what] != value:
                raise ValueError(
                    f"the {what} of the evaluation environments: {got[what]}, but of the training "
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
        elif isinstance(layer, VecNormalize):
            keys = ("norm_obs", "norm_obs_keys", "clip_obs", "epsilon")
            settings |= {key: getattr(layer, key) for key in keys}
        elif isinstance(layer, VecTransposeImage):
            continue  # Stable-Baselines3 adds it by itself, in training
        elif isinstance(layer, VecEnvWrapper):
            if layer.observation_space == layer.venv.observation_space:
                continue  # it only watches
        names.append(type(layer).__name__ if isinstance(layer, VecEnvWrapper) else "environments")
        layers.append(settings)
    return names, layers
