"""What a world model is trained by: rollouts on its own predictions, against what was recorded."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.sequences import Sequences, Windows

# Largest weight of a rare event in the loss.
_LARGEST_WEIGHT = 20.0
# A feature's change in a step, as a share of the largest: what hardly moves is not blown up.
_LEAST_CHANGE = 0.1


class RolloutLoss(NamedTuple):
    """Parts of the loss, each averaged over the steps that there are.

    Attributes:
        dynamics: mean square of the next slots' errors, as a share of that of their changes in
            one step: 1 for copying the slots, one step ahead.
        noise: negative log likelihood of the first step given its error, for sigma alone.
        reward: cross-entropy of a reward other than the usual one, nats, plus the error of how
            much it is.
        end: cross-entropy of the termination, nats.
    """

    dynamics: Tensor
    noise: Tensor
    reward: Tensor
    end: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.dynamics + 0.1 * self.noise + self.reward + self.end


def fit_scales(model: WorldModel, data: Sequences) -> None:
    """Set a model's buffers by its training data: scales, the usual reward, weights of events."""
    model.scale.fit(data.features)
    slots = model.scale(data.features)
    change = (slots[data.starts + 1] - slots[data.starts]).square().mean((0, 1)).sqrt()
    largest = float(change.max())
    model.change_scale.copy_(change.clamp(min=_LEAST_CHANGE * largest) if largest else change + 1)
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
    """Log of the weight of an event: the root of how many times rarer it is than its absence.

    The weight itself would make both sides count alike, and a handful of events too much.
    """
    rate = events.mean()
    if rate == 0:
        return torch.zeros_like(rate)
    return ((1 - rate) / rate).sqrt().clamp(1, _LARGEST_WEIGHT).log()


def rollout_loss(
    model: WorldModel, windows: Windows, heads: Tensor, members: Tensor, *, weighted: bool = True
) -> RolloutLoss:
    """Unroll from encoded frames and compare with what followed.

    Args:
        model: the model.
        windows: of H steps.
        heads: (B,) int64, the head of the ensemble whose predictions each rollout goes on with.
        members: (B, E), weight of each window for each head.
        weighted: give rare events their weight; without, the cross-entropies are those of the
            probabilities that the model gives.
    """
    slots = model.scale(windows.features.flatten(0, 1)).unflatten(0, (len(heads), -1))
    rows = torch.arange(len(heads), device=heads.device)
    event_bias, end_bias = model.event_bias, model.end_bias
    state = slots[:, 0]
    parts: list[Tensor] = []
    noise = slots.new_zeros(())
    unit = model.change_scale.square().mean()
    for h in range(windows.valid.shape[1]):
        outlook = model(state, windows.actions[:, h])
        error = (outlook.means - slots[:, h + 1, None]).square()  # (B, E, K, D)
        followed = outlook.means[rows, heads]
        if h == 0:
            known = error[rows, heads].detach() / outlook.sigma.square()
            noise = (outlook.sigma.log() + 0.5 * known).mean()
        other = (windows.rewards[:, h] - model.usual_reward) / model.reward_scale
        happened = (other != 0).float()
        event, end = outlook.event, outlook.end
        if not weighted:
            event, end = event - event_bias, end - end_bias
        reward = F.binary_cross_entropy_with_logits(
            event, happened, reduction="none", pos_weight=event_bias.exp() if weighted else None
        )
        ends = F.binary_cross_entropy_with_logits(
            end,
            windows.terminated[:, h],
            reduction="none",
            pos_weight=end_bias.exp() if weighted else None,
        )
        payment = happened * F.smooth_l1_loss(outlook.payment, other, reduction="none")
        dynamics = (error.mean((2, 3)) / unit * members).sum(1) / members.sum(1).clamp_min(1)
        parts.append(torch.stack([dynamics, reward + payment, ends], 1) * windows.valid[:, h, None])
        state = followed
    means = torch.stack(parts).sum((0, 1)) / windows.valid.sum().clamp_min(1)
    return RolloutLoss(means[0], noise, means[1], means[2])
