"""Loss of a world model: rollouts on its own predictions against recorded steps."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.sequences import Sequences, Windows

# Maximum weight of a rare event in the loss.
_MAX_WEIGHT = 20.0
# Minimum of a feature's change scale, relative to the largest, so that noise is not amplified.
_MIN_CHANGE = 0.1


class RolloutLoss(NamedTuple):
    """Terms of the loss, averaged over the valid steps.

    Attributes:
        dynamics: mean squared error of the next slots, relative to the mean squared change in one
            step: 1 for copied slots at the first step.
        noise: negative log-likelihood of the first step, with gradients for sigma only.
        reward: cross-entropy of rewards other than the usual one, nats, plus the error of their
            value.
        end: cross-entropy of the termination, nats.
    """

    dynamics: Tensor
    noise: Tensor
    reward: Tensor
    end: Tensor

    @property
    def total(self) -> Tensor:
        """The minimised sum."""
        return self.dynamics + 0.1 * self.noise + self.reward + self.end


def fit_scales(model: WorldModel, data: Sequences) -> None:
    """Fit a model's buffers to its training data: scales, usual reward and event weights."""
    model.scale.fit(data.features)
    slots = model.scale(data.features)
    change = (slots[data.starts + 1] - slots[data.starts]).square().mean((0, 1)).sqrt()
    largest = float(change.max())
    model.change_scale.copy_(change.clamp(min=_MIN_CHANGE * largest) if largest else change + 1)
    rewards, terminated = data.rewards[data.starts], data.terminated[data.starts]
    values, counts = rewards.unique(return_counts=True)
    usual = values[counts.argmax()]
    others = rewards[rewards != usual] - usual
    model.usual_reward.copy_(usual)
    if len(others):
        model.reward_scale.copy_(others.square().mean().sqrt())
    model.event_bias.copy_(_bias((rewards != usual).float()))
    model.end_bias.copy_(_bias(terminated))


def _bias(events: Tensor) -> Tensor:
    """Return the log of the weight of an event: the square root of the inverse odds.

    The inverse odds would balance the classes, but give few events too much weight.
    """
    rate = events.mean()
    if rate == 0:
        return torch.zeros_like(rate)
    return ((1 - rate) / rate).sqrt().clamp(1, _MAX_WEIGHT).log()


def rollout_loss(
    model: WorldModel, windows: Windows, heads: Tensor, members: Tensor, *, weighted: bool = True
) -> RolloutLoss:
    """Compute the loss of rollouts from encoded frames.

    Args:
        model: the model.
        windows: windows of H steps.
        heads: (B,) int64, head of the ensemble whose predictions each rollout follows.
        members: (B, E), weight of each window for each head.
        weighted: whether to weight rare events; otherwise the cross-entropies are those of the
            model's probabilities.
    """
    slots = model.scale(windows.features.flatten(0, 1)).unflatten(0, (len(heads), -1))
    rows = torch.arange(len(heads), device=heads.device)
    event_bias, end_bias = model.event_bias, model.end_bias
    state = slots[:, 0]
    parts: list[Tensor] = []
    noise = slots.new_zeros(())
    unit = model.change_scale.square().mean()
    for h in range(windows.valid.shape[1]):
        output = model(state, windows.actions[:, h])
        error = (output.means - slots[:, h + 1, None]).square()  # (B, E, K, D)
        if h == 0:
            normalised = error[rows, heads].detach() / output.sigma.square()
            noise = (output.sigma.log() + 0.5 * normalised).mean()
        difference = (windows.rewards[:, h] - model.usual_reward) / model.reward_scale
        event = (difference != 0).float()
        event_logit, end_logit = output.event_logit, output.end_logit
        if not weighted:
            event_logit, end_logit = event_logit - event_bias, end_logit - end_bias
        reward = F.binary_cross_entropy_with_logits(
            event_logit, event, reduction="none", pos_weight=event_bias.exp() if weighted else None
        )
        end = F.binary_cross_entropy_with_logits(
            end_logit,
            windows.terminated[:, h],
            reduction="none",
            pos_weight=end_bias.exp() if weighted else None,
        )
        value = event * F.smooth_l1_loss(output.event_reward, difference, reduction="none")
        dynamics = (error.mean((2, 3)) / unit * members).sum(1) / members.sum(1).clamp_min(1)
        parts.append(torch.stack([dynamics, reward + value, end], 1) * windows.valid[:, h, None])
        state = output.means[rows, heads]
    means = torch.stack(parts).sum((0, 1)) / windows.valid.sum().clamp_min(1)
    return RolloutLoss(means[0], noise, means[1], means[2])
