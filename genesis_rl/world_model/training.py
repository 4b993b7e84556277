"""Training of a world model: updates and validation."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data.feed import batch_indices
from genesis_rl.training.folder import TrainingFolder
from genesis_rl.training.loop import State, Task, Training, Validation, noise_key
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.evaluation import rollout_picture
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.sequences import Sequences, Windows, WorldModelData

# Maximum weight of a rare event in the loss.
_MAX_WEIGHT = 20.0
# Minimum of a feature's change scale, relative to the largest, so that noise is not amplified.
_MIN_CHANGE = 0.1
_WARMUP = 100
# Share of the windows in the training data of each ensemble head.
_SHARE = 0.75
_BATCH = 256


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


class WorldFolder(TrainingFolder):
    """Run directory of a world model's training, identified also by the encoder."""

    identity = (
        *("model", "data", "encoder_fingerprint", "mask_geometry", "align"),
        *("seed", "batch_size"),
    )

    def __init__(self, config: WorldTrainConfig, encoder_fingerprint: str) -> None:
        """Open the directory; see `TrainingFolder` for errors."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
        settings = {**plain, "encoder_fingerprint": encoder_fingerprint}
        super().__init__(config.out, settings, resume=config.resume)


class WorldTrainer(Training):
    """Training of a world model in a `WorldFolder`, with the log ``metrics.jsonl``.

    Random numbers depend only on the seed and the step, so a resumed run gives the results of an
    uninterrupted one.
    """

    config: WorldTrainConfig

    def __init__(self, config: WorldTrainConfig, data: WorldModelData) -> None:
        """Build the model, or restore the last checkpoint of the run directory.

        Raises:
            ValueError: if the directory contains another run, or the data are less than a batch.
        """
        self.data = data
        self._train = data.sequences["train"]
        if len(self._train.starts) < config.batch_size:
            raise ValueError(
                f"batch_size must be at most the {len(self._train.starts)} training steps in "
                f"{config.data}, got {config.batch_size}."
            )
        folder = WorldFolder(config, data.slot_spec.encoder_fingerprint)
        torch.manual_seed(config.seed)
        model = WorldModel(config.model, data.action_spec, data.slot_spec).to(data.device)
        self.model = model
        fit_scales(model, self._train)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        generator = torch.Generator().manual_seed(config.seed)
        shape = len(self._train.starts), config.model.ensemble
        self._members = (torch.rand(shape, generator=generator) < _SHARE).float().to(data.device)
        task = Task(
            model=model,
            stateful={"optimiser": self.optimiser},
            terms=RolloutLoss._fields,
            train_step=self._train_step,
            describe=self._describe,
            validate=self._validate,
            lowest_is_best=True,
            advice="Try a lower learning_rate or a shorter horizon.",
            title=config.model.trunk,
        )
        super().__init__(config, folder, task)

    def _train_step(self, state: State) -> Tensor:
        config, starts = self.config, self._train.starts
        rate = config.learning_rate * min(1.0, (state.step + 1) / _WARMUP)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * state.progress))
        rows = batch_indices(state.step, config.batch_size, len(starts), config.seed)
        generator = torch.Generator().manual_seed(noise_key(config.seed, state.step))
        heads = torch.randint(config.model.ensemble, (len(rows),), generator=generator)
        rows, heads = rows.to(starts.device), heads.to(starts.device)
        windows = self._train.windows(starts[rows], config.horizon)
        loss = rollout_loss(self.model, windows, heads, self._members[rows])
        self.optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimiser.step()
        return torch.stack(loss).detach()

    def _describe(self, state: State, means: Mapping[str, float]) -> tuple[dict[str, float], str]:
        text = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        return {"steps_per_second": state.step / max(state.seconds, 1e-9)}, text

    @torch.no_grad()
    def _validate(self, state: State) -> Validation:
        held_out, config = self.data.sequences["validation"], self.config
        # Evenly spaced in the split, the same at every validation.
        picks = torch.linspace(0, len(held_out.starts) - 1, config.eval_windows).long().unique()
        starts = held_out.starts[picks.to(held_out.starts.device)]
        totals = torch.zeros(len(RolloutLoss._fields), device=starts.device)
        self.model.eval()
        for part in starts.split(_BATCH):
            windows = held_out.windows(part, config.horizon)
            heads = torch.arange(len(part), device=part.device) % config.model.ensemble
            members = torch.ones(len(part), config.model.ensemble, device=part.device)
            loss = rollout_loss(self.model, windows, heads, members, weighted=False)
            totals += torch.stack(loss) * len(part) / len(starts)
        scores = dict(zip(RolloutLoss._fields, totals.tolist(), strict=True))
        scores["rollout"] = scores["dynamics"] + scores["reward"] + scores["end"]
        pictures = {"rollouts": rollout_picture(self.model, self.data, "validation")}
        self.model.train()
        return Validation(scores, pictures, scores["rollout"])
