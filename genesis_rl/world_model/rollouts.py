"""Open-loop rollouts of a world model with recorded actions."""

from typing import NamedTuple

import torch
from torch import Tensor

from genesis_rl.world_model.model import WorldModel


class Rollout(NamedTuple):
    """T imagined steps of B scenes.

    Attributes:
        features: (B, T, K, D), the slots after each step.
        reward: (B, T), expected rewards.
        terminated: (B, T), probabilities of termination.
        uncertainty: (B, T).
    """

    features: Tensor
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


def open_loop(model: WorldModel, features: Tensor, actions: Tensor) -> Rollout:
    """Predict T steps with the ensemble's mean, without noise.

    Args:
        model: model in eval mode.
        features: (B, K, D), initial slots.
        actions: (B, T) int64 or (B, T, A) float32.
    """
    steps = []
    for t in range(actions.shape[1]):
        steps.append(model.step(features, actions[:, t]))
        features = steps[-1].features
    return Rollout(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))
