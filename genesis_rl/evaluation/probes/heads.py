"""Probe networks: linear and MLP predictors of targets from frozen features.

The functions ``fit_...`` train on ``features`` by split, (n, width) float32: "train", "test", and
"validation" to select the best epoch. Targets have values of the same splits. ``seed`` is that of
the initial weights and the order of the examples, ``name`` the title of the progress bar.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.utils.checks import Checked, Count, Positive
from genesis_rl.utils.log import ProgressBar

#: Values of a smaller standard deviation count as constant.
LEAST_STD = 1e-6
_CHUNK = 4096  # rows per forward pass in evaluation
# Bound of standardised features of linear probes.
_CLIP = 5.0
# Queries per output of the attention, and its initial learning rate.
_QUERIES, _POOL_RATE = 4, 2e-3


@dataclass(frozen=True)
class MlpConfig(Checked):
    """The probes' network and its training; defaults are the paper's (appendix B.5)."""

    hidden: Count = 512
    """ELU units of the one hidden layer"""
    epochs: Count = 100
    """passes over the training examples"""
    batch_size: Count = 128
    """examples per update"""
    learning_rate: Positive = 1e-4
    """Adam's step size"""
    epoch: Literal["last", "best"] = "last"
    """epoch to evaluate: the last one (the paper states no selection), or each target's best on the
    validation split"""


@dataclass(frozen=True, eq=False)
class ProbeTarget:
    """Prediction target of a probe.

    Attributes:
        name: name of the target.
        values: by split, class indices (n,) int64, or (n, d) float32 values standardised by the
            training split.
        classes: labels of the class indices; empty for regression.
    """

    name: str
    values: Mapping[str, Tensor]
    classes: tuple[int | str, ...] = ()

    @property
    def outputs(self) -> int:
        """Width of the network's output: one logit per class, or d values."""
        return len(self.classes) or self.values["train"].shape[1]

    @property
    def regression_targets(self) -> Tensor:
        """Training values, (n, outputs) float32; classes are one-hot."""
        train = self.values["train"]
        return F.one_hot(train, self.outputs).float() if self.classes else train

    def loss(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Compute the mean cross-entropy in nats, or the mean squared error."""
        return F.cross_entropy(outputs, values) if self.classes else F.mse_loss(outputs, values)

    def score(self, outputs: Tensor, split: str) -> float:
        """Compute the accuracy or R2 of outputs (n, outputs) on a split.

        Returns:
            Accuracy in [0, 1], or R2 averaged over the columns that vary in the split: at most 1, 0
            for predicting the mean.
        """
        true = self.values[split]
        if self.classes:
            return float((outputs.argmax(1) == true).double().mean())
        true = true.double()
        residual = (true - outputs.double()).square().sum(0)
        total = (true - true.mean(0)).square().sum(0)
        varies = total > 0
        return float((1 - residual[varies] / total[varies]).mean())

    def baseline_score(self) -> float:
        """Return the test score of predicting the most frequent class or the mean."""
        outputs = self.regression_targets.mean(0).expand(len(self.values["test"]), -1)
        return self.score(outputs, "test")


class Head(nn.Module):
    """A multilayer perceptron for one target."""

    def __init__(self, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Predict logits or values (B, outputs) from features (B, width)."""
        outputs: Tensor = self.output(F.elu(self.hidden(x)))
        return outputs


@dataclass(frozen=True)
class FittedProbe:
    """A trained probe: its test score, its epoch and its network."""

    score: float
    epoch: int
    head: Head = field(compare=False, repr=False)


class Mlps(nn.Module):
    """One multilayer perceptron per target, with the hidden layers computed in one product."""

    def __init__(self, width: int, hidden: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden * len(outputs))
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Predict logits or values (B, n) of every target from features (B, width)."""
        parts = F.elu(self.hidden(x)).chunk(len(self.heads), dim=1)
        return [head(part) for head, part in zip(self.heads, parts, strict=True)]

    @torch.no_grad()
    def single(self, index: int) -> Head:
        """Return a copy of one target's perceptron, on the CPU."""
        output = cast("nn.Linear", self.heads[index])
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten below
            head = Head(self.hidden.in_features, output.in_features, output.out_features)
        for parameter, value in (
            (head.hidden.weight, self.hidden.weight.chunk(len(self.heads))[index]),
            (head.hidden.bias, self.hidden.bias.chunk(len(self.heads))[index]),
            (head.output.weight, output.weight),
            (head.output.bias, output.bias),
        ):
            parameter.copy_(value)
        return head.eval().requires_grad_(False)


def fit_mlps(
    features: Mapping[str, Tensor],
    targets: Sequence[ProbeTarget],
    config: MlpConfig,
    *,
    seed: int,
    device: torch.device,
    name: str = "probes",
) -> dict[str, FittedProbe]:
    """Train one MLP per target and evaluate it on the test split.

    The MLPs share no weights, and Adam updates every weight from its own gradients alone. Joint
    training is therefore equivalent to separate trainings.

    Returns:
        A trained probe per target, by name.

    Raises:
        ValueError: if the training diverges.
    """
    x = features["train"].to(device)
    values = [target.values["train"].to(device) for target in targets]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Mlps(x.shape[1], config.hidden, [t.outputs for t in targets]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)

    def scores(split: str) -> list[float]:
        with torch.inference_mode():
            parts = [
                [out.cpu() for out in network(part.to(device))]
                for part in features[split].split(_CHUNK)
            ]
        outputs = [torch.cat(column) for column in zip(*parts, strict=True)]
        return [t.score(out, split) for t, out in zip(targets, outputs, strict=True)]

    best = [-math.inf] * len(targets)
    fits: dict[str, FittedProbe] = {}
    for epoch in ProgressBar(range(1, config.epochs + 1), desc=name, unit="epoch"):
        order = torch.randperm(len(x), generator=generator).to(device)
        for rows in order.split(config.batch_size):
            outputs = zip(targets, network(x[rows]), values, strict=True)
            loss = torch.stack([t.loss(out, true[rows]) for t, out, true in outputs]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if config.epoch == "last" and epoch < config.epochs:
            continue
        validated = scores("validation") if config.epoch == "best" else [0.0] * len(targets)
        better = [new > old for new, old in zip(validated, best, strict=True)]
        if any(better):
            test_scores = scores("test")
            for i, target in enumerate(targets):
                if better[i]:
                    best[i] = validated[i]
                    fits[target.name] = FittedProbe(test_scores[i], epoch, network.single(i))
    if len(fits) < len(targets) or not all(math.isfinite(fit.score) for fit in fits.values()):
        raise ValueError(f"the training of {name} diverged. Choose a lower learning_rate.")
    return fits


class AttentionPool(nn.Module):
    """Predict values from a set of slots by attention with learned queries."""

    def __init__(self, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.scores, self.values = (
            nn.Sequential(nn.Linear(width, hidden), nn.ELU(), nn.Linear(hidden, _QUERIES * outputs))
            for _ in range(2)
        )

    def forward(self, slots: Tensor) -> Tensor:
        """Predict (B, outputs) from slots (B, K, width)."""
        pooled: Tensor = (self.scores(slots).softmax(1) * self.values(slots)).sum(1)
        outputs: Tensor = pooled.unflatten(1, (_QUERIES, self.outputs)).sum(1)
        return outputs


def fit_attention(
    features: Mapping[str, Tensor],
    targets: Sequence[ProbeTarget],
    config: MlpConfig,
    *,
    seed: int,
    device: torch.device,
    name: str = "probes",
) -> dict[str, float]:
    """Train an `AttentionPool` for regression targets and evaluate it on the test split.

    Features are slots, (n, K, D), and the result does not depend on their order. Slots are
    standardised, and the learning rate decays from 2e-3 to 0.

    Returns:
        Test score by target name.
    """
    mean, scale = moments(features["train"].flatten(0, 1))
    x = ((features["train"] - mean) / scale).to(device)
    y = torch.cat([t.values["train"] for t in targets], 1).to(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = AttentionPool(x.shape[2], config.hidden // 4, y.shape[1]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=_POOL_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    for _ in ProgressBar(range(config.epochs), desc=f"{name}, attention", unit="epoch"):
        order = torch.randperm(len(x), generator=generator).to(device)
        for rows in order.split(config.batch_size):
            loss = F.mse_loss(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    with torch.inference_mode():
        parts = ((features["test"] - mean) / scale).split(_CHUNK)
        outputs = torch.cat([network(part.to(device)).cpu() for part in parts])
    columns = outputs.split([t.outputs for t in targets], dim=1)
    return {t.name: t.score(out, "test") for t, out in zip(targets, columns, strict=True)}


def fit_linear(
    features: Mapping[str, Tensor], targets: Sequence[ProbeTarget], ridge: float
) -> dict[str, float]:
    """Solve a ridge regression per target; classes are regressed as one-hot.

    ``ridge`` is the weight of the squared coefficients of standardised features, in examples. The
    features are clipped at 5 standard deviations: those of a slot that few training images fill are
    nearly constant, and would be extreme where a test image fills it.

    Returns:
        Test score by target name.
    """
    standardised = standardise({name: x.double() for name, x in features.items()})
    features = {name: x.clamp(-_CLIP, _CLIP) for name, x in standardised.items()}
    x = features["train"]
    y = torch.cat([t.regression_targets for t in targets], dim=1).double()
    mean = y.mean(0)
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (y - mean))
    outputs = (features["test"] @ weights + mean).split([t.outputs for t in targets], dim=1)
    return {t.name: t.score(out, "test") for t, out in zip(targets, outputs, strict=True)}


def standardise(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Standardise columns by the `moments` of the training split."""
    mean, scale = moments(values["train"])
    return {name: (x - mean) / scale for name, x in values.items()}


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (d,) and standard deviations (d,) of columns (n, d); 1 for constant columns."""
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, std.where(std > 1e-6 * mean.abs().clamp_min(1e-6), torch.ones_like(std))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of ``count`` independent trials, in [0, 1]."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    return max(0.0, centre - z * half), min(1.0, centre + z * half)
