"""Small networks that answer questions from frozen features, trained for all questions at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

_CHUNK = 4096  # rows answered at a time


@dataclass(frozen=True)
class MlpConfig:
    """The probes' network and its training; defaults are the paper's (appendix B.5)."""

    hidden: int = 512
    """ELU units of the one hidden layer"""
    epochs: int = 100
    """passes over the training examples"""
    batch_size: int = 128
    """examples per update"""
    learning_rate: float = 1e-4
    """Adam's step size"""
    epoch: Literal["last", "best"] = "last"
    """which epoch is scored: the last one (the paper tells of no selection), or each question's
    best on the validation split"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("hidden", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; wanted a value > 0.")
        if self.epoch not in ("last", "best"):
            raise ValueError(f"epoch is {self.epoch!r}; wanted 'last' or 'best'.")


@dataclass(frozen=True, eq=False)
class Question:
    """Something to predict from features, with the answers by split.

    Attributes:
        name: what is asked.
        answers: by split, the number of the class (n,) int64, or (n, d) float32 values with the
            training split's mean 0 and standard deviation 1.
        classes: what the numbers stand for; empty for values.
    """

    name: str
    answers: Mapping[str, Tensor]
    classes: tuple[int | str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many numbers answer it: one logit per class, or d values."""
        return len(self.classes) or self.answers["train"].shape[1]

    @property
    def targets(self) -> Tensor:
        """The training answers as (n, outputs) float32: classes as one-hot."""
        train = self.answers["train"]
        return F.one_hot(train, self.outputs).float() if self.classes else train

    def loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Mean cross-entropy in nats, or mean squared error."""
        return F.cross_entropy(outputs, answers) if self.classes else F.mse_loss(outputs, answers)

    def score(self, outputs: Tensor, split: str) -> float:
        """Score outputs (n, outputs) for a split.

        Returns:
            Accuracy in [0, 1], or R2, the share of variance explained, averaged over the values
            that vary in the split: 1 at best, 0 for their mean, below 0 for worse.
        """
        true = self.answers[split]
        if self.classes:
            return float((outputs.argmax(1) == true).double().mean())
        true = true.double()
        residual = (true - outputs.double()).square().sum(0)
        total = (true - true.mean(0)).square().sum(0)
        varies = total > 0
        return float((1 - residual[varies] / total[varies]).mean())

    def guess(self) -> float:
        """Score on the test split of what needs no features: the commonest class, the mean."""
        outputs = self.targets.mean(0).expand(len(self.answers["test"]), -1)
        return self.score(outputs, "test")


class Head(nn.Module):
    """A multilayer perceptron that answers one question."""

    def __init__(self, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Answer from features (B, width): logits or values, (B, outputs)."""
        answer: Tensor = self.output(F.elu(self.hidden(x)))
        return answer


@dataclass(frozen=True)
class Fit:
    """How well a question is answered on the test split, after which epoch, by which network."""

    score: float
    epoch: int
    head: Head = field(compare=False, repr=False)


class Mlps(nn.Module):
    """One multilayer perceptron per question; their hidden layers are one matrix product."""

    def __init__(self, width: int, hidden: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden * len(outputs))
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Answer every question from features (B, width): logits or values, (B, n) each."""
        parts = F.elu(self.hidden(x)).chunk(len(self.heads), dim=1)
        return [head(part) for head, part in zip(self.heads, parts, strict=True)]

    @torch.no_grad()
    def single(self, index: int) -> Head:
        """Copy the perceptron of one question as it is now, to the CPU."""
        output = cast("nn.Linear", self.heads[index])
        with torch.random.fork_rng(devices=[]):  # its initial weights are not used
            head = Head(self.hidden.in_features, output.in_features, output.out_features)
        for mine, theirs in (
            (head.hidden.weight, self.hidden.weight.chunk(len(self.heads))[index]),
            (head.hidden.bias, self.hidden.bias.chunk(len(self.heads))[index]),
            (head.output.weight, output.weight),
            (head.output.bias, output.bias),
        ):
            mine.copy_(theirs)
        return head.eval().requires_grad_(False)


def fit_mlps(
    features: Mapping[str, Tensor],
    questions: Sequence[Question],
    config: MlpConfig,
    *,
    seed: int,
    device: torch.device,
    name: str = "probes",
) -> dict[str, Fit]:
    """Train an MLP for each question and score it on the test split.

    The questions share no weight, and Adam moves every weight by its own gradients alone, so
    training them together is training each for itself.

    Args:
        features: by split, (n, width) float32: "train", "test", and "validation" if the best
            epoch is wanted.
        questions: with answers of the same splits.
        config: see `MlpConfig`.
        seed: of the initial weights and the order of the examples.
        device: where to train.
        name: what the progress bar is called.

    Returns:
        A fit by the name of each question.

    Raises:
        ValueError: if the training diverges.
    """
    x = features["train"].to(device)
    answers = [question.answers["train"].to(device) for question in questions]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Mlps(x.shape[1], config.hidden, [q.outputs for q in questions]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)

    def scores(split: str) -> list[float]:
        with torch.inference_mode():
            parts = [
                [out.cpu() for out in network(part.to(device))]
                for part in features[split].split(_CHUNK)
            ]
        outputs = [torch.cat(column) for column in zip(*parts, strict=True)]
        return [q.score(out, split) for q, out in zip(questions, outputs, strict=True)]

    best = [-math.inf] * len(questions)
    fits: dict[str, Fit] = {}
    for epoch in tqdm(range(1, config.epochs + 1), desc=name, unit="epoch", disable=None):
        order = torch.randperm(len(x), generator=generator).to(device)
        for rows in order.split(config.batch_size):
            outputs = zip(questions, network(x[rows]), answers, strict=True)
            loss = torch.stack([q.loss(out, true[rows]) for q, out, true in outputs]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if config.epoch == "last" and epoch < config.epochs:
            continue
        now = scores("validation") if config.epoch == "best" else [0.0] * len(questions)
        better = [new > old for new, old in zip(now, best, strict=True)]
        if any(better):
            tested = scores("test")
            for i, question in enumerate(questions):
                if better[i]:
                    best[i] = now[i]
                    fits[question.name] = Fit(tested[i], epoch, network.single(i))
    if len(fits) < len(questions) or not all(math.isfinite(fit.score) for fit in fits.values()):
        raise ValueError(f"the training of {name} diverged; choose a lower learning_rate.")
    return fits


def fit_linear(
    features: Mapping[str, Tensor], questions: Sequence[Question], ridge: float
) -> dict[str, float]:
    """Solve a ridge regression for each question; classes are regressed as one-hot.

    Args:
        features: by split, (n, width): "train" and "test".
        questions: with answers of the same splits.
        ridge: weight of the squared coefficients of standardised features, as examples; > 0.

    Returns:
        The score on the test split by the name of each question.
    """
    features = standardise({name: x.double() for name, x in features.items()})
    x = features["train"]
    targets = torch.cat([q.targets for q in questions], dim=1).double()
    mean = targets.mean(0)
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (targets - mean))
    outputs = (features["test"] @ weights + mean).split([q.outputs for q in questions], dim=1)
    return {q.name: q.score(out, "test") for q, out in zip(questions, outputs, strict=True)}


def standardise(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring columns to the training split's mean 0 and standard deviation 1, if they vary."""
    mean, scale = moments(values["train"])
    return {name: (x - mean) / scale for name, x in values.items()}


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the columns of (n, d), each (d,); 1 if they do not vary."""
    mean, std = values.mean(0), values.std(0, correction=0)
    return mean, std.where(std > 1e-6 * mean.abs().clamp_min(1e-6), torch.ones_like(std))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` independent trials, in [0, 1]."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    return max(0.0, centre - z * half), min(1.0, centre + z * half)
