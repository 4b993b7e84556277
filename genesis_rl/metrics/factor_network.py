"""The network behind `genesis_rl.metrics.features`, and its training."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from genesis_rl.data import Pack
from genesis_rl.data.feed import batch_indices
from genesis_rl.metrics.targets import (
    GRID,
    CellTargets,
    cell_targets,
    count_objects,
    object_shapes,
    require_masks,
)

WIDTH = 64
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 64, 3e-3, 1e-2
_NOISE = 0.05  # standard deviation, at most, that is added to training images
_HELD_OUT, _MAX_HELD_OUT = 0.1, 2000  # share of the pack, and images
_LEAST_VARIANCE = 1e-3  # of what is regressed; below, it counts as constant


@dataclass(frozen=True)
class FactorConfig:
    """What shapes a network, and what it was trained on."""

    image_size: tuple[int, int]
    """(H, W) of the images in pixels"""
    shapes: tuple[str, ...]
    """shapes of the objects, one if they are not known"""
    most_objects: int
    """the largest number of objects in an image"""
    data: str
    """digest of the pack that it was trained on"""
    steps: int = 1500
    """training steps of 64 images"""
    seed: int = 0
    """of the initial weights, the batches and the noise"""

    def __post_init__(self) -> None:
        """Check every value."""
        if len(self.image_size) != 2 or min(self.image_size) < 4 * GRID:
            raise ValueError(
                f"image_size is {self.image_size}; wanted (H, W) of at least {4 * GRID} px."
            )
        if self.most_objects < 1:
            raise ValueError("the masks show no object in any image; wanted some.")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; wanted >= 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; wanted >= 0.")


class Answers(NamedTuple):
    """What the network says.

    Attributes:
        objects: (B, most + 1) logits.
        area, colour, background: as in `CellTargets`, less the mean and in standard deviations.
    """

    objects: Tensor
    area: Tensor
    colour: Tensor
    background: Tensor


class FactorNetwork(nn.Module):
    """Convolutions down to `GRID` x `GRID` cells, 64 features, linear answers."""

    def __init__(self, config: FactorConfig) -> None:
        super().__init__()
        self.config = config
        strides = [2] * int(np.log2(min(config.image_size) / GRID))
        strides.insert(-1, 1)
        channels = [3, 32, *[64] * (len(strides) - 2), 128]
        layers: list[nn.Module] = []
        for before, after, stride in zip(channels[:-1], channels[1:], strides, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)]
            layers.append(nn.ReLU(inplace=True))
        self.convs = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(GRID))
        # The norm without scale and shift gives every feature the same weight in a distance.
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * GRID**2, WIDTH, bias=False),
            nn.BatchNorm1d(WIDTH, affine=False),
        )
        cells = GRID**2
        self._split = [config.most_objects + 1, cells * len(config.shapes), cells * 3, 3]
        self.answers = nn.Linear(WIDTH, sum(self._split))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 64)."""
        features: Tensor = self.features(self.convs(x))
        return features

    def answer(self, features: Tensor) -> Answers:
        """Say what the features (B, 64) show."""
        objects, area, colour, background = self.answers(features).split(self._split, dim=1)
        cells = (GRID**2, -1)
        return Answers(objects, area.unflatten(1, cells), colour.unflatten(1, cells), background)


class Scenes:
    """A pack's images with what is asked about them, on a device.

    Attributes:
        shapes: names of the objects' shapes.
        most_objects: the largest number of objects in an image.
        num_images: in all.
        num_training: images to train on; the ones after them are held out.
        means, variances: of what is regressed, over at most 2,000 training images, by name.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        """Take a pack and find out what is known about it.

        Raises:
            ValueError: if it has no masks, or broken factors.
        """
        self.device = device
        self._images, self._masks = pack.images, require_masks(pack)
        self._counts = count_objects(pack)
        self.most_objects = int(self._counts.max())
        self.shapes, self._shapes = object_shapes(pack)
        self.num_images = len(pack)
        self.num_training = len(pack) - max(1, min(_MAX_HELD_OUT, int(_HELD_OUT * len(pack))))
        _, cells, _ = self(np.arange(min(_MAX_HELD_OUT, self.num_training)))
        self.means = {name: float(_mean(v, weight)) for name, v, weight in _asked(cells)}
        self.variances = {
            name: float(_mean((v - self.means[name]).square(), weight))
            for name, v, weight in _asked(cells)
        }

    def __call__(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, CellTargets, Tensor]:
        """Images (B, 3, H, W) in [0, 1], what is in their cells, and how many objects (B,)."""
        pixels, masks, shapes, counts = (
            torch.from_numpy(array[rows]).to(self.device)
            for array in (self._images, self._masks, self._shapes, self._counts)
        )
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        return images, cell_targets(images, masks, shapes, len(self.shapes)), counts


def _asked(cells: CellTargets) -> list[tuple[str, Tensor, Tensor]]:
    """What is regressed: names, values and their weights."""
    return [
        ("area", cells.area, torch.ones_like(cells.area)),
        ("colour", cells.colour, cells.area.sum(-1, keepdim=True)),
        ("background", cells.background, cells.background_area[:, None]),
    ]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def _unexplained(answers: Answers, cells: CellTargets, scenes: Scenes) -> dict[str, Tensor]:
    """Share of the variance that the answers leave, by name."""
    said = {"area": answers.area, "colour": answers.colour, "background": answers.background}
    left = {}
    for name, values, weight in _asked(cells):
        unit = max(scenes.variances[name], _LEAST_VARIANCE) ** 0.5
        left[name] = _mean((said[name] - (values - scenes.means[name]) / unit).square(), weight)
    return left


def fit(network: FactorNetwork, scenes: Scenes) -> None:
    """Train a network; it is left in training mode.

    The loss is the cross entropy of the number of objects plus the shares of variance left in what
    is regressed: terms of the same order.
    """
    config, device = network.config, scenes.device
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _share_of_rate(step / config.steps)
    )
    generator = torch.Generator(device).manual_seed(config.seed)
    batch_size = min(_BATCH, scenes.num_training)
    network.train()
    for step in tqdm(range(config.steps), desc="features network", unit="step", disable=None):
        rows = batch_indices(step, batch_size, scenes.num_training, config.seed).numpy()
        images, cells, counts = scenes(np.sort(rows))  # in the order of the disk
        level = torch.rand(batch_size, 1, 1, 1, generator=generator, device=device)
        noise = torch.randn(images.shape, generator=generator, device=device)
        # A GPU's tensor cores take bf16; a CPU is faster without.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = network(images + _NOISE * level * noise)
        answers = network.answer(features.float())
        left = _unexplained(answers, cells, scenes)
        loss = F.cross_entropy(answers.objects, counts) + sum(left.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _share_of_rate(progress: float) -> float:
    """Learning rate after a share of the steps: up within a tenth, down along a cosine."""
    return min(1.0, 10 * progress + 0.01) * (1 + math.cos(math.pi * progress)) / 2


@torch.inference_mode()
def examine(network: FactorNetwork, scenes: Scenes) -> dict[str, float]:
    """Score a network in eval mode on the held-out images; see `FactorFeatures.held_out`."""
    said, true, numbers = [], [], []
    for first in range(scenes.num_training, scenes.num_images, _BATCH):
        images, cells, counts = scenes(np.arange(first, min(first + _BATCH, scenes.num_images)))
        said.append(network.answer(network(images)))
        true.append(cells)
        numbers.append(counts)
    answers = Answers(*(torch.cat(parts) for parts in zip(*said, strict=True)))
    cells = CellTargets(*(torch.cat(parts) for parts in zip(*true, strict=True)))
    right = answers.objects.argmax(-1) == torch.cat(numbers)
    scores = {"objects_accuracy": float(right.float().mean())}
    if len(scenes.shapes) > 1:
        right = answers.area.argmax(-1) == cells.area.argmax(-1)
        scores["shape_accuracy"] = float(_mean(right.float(), cells.area.sum(-1)))
    for name, left in _unexplained(answers, cells, scenes).items():
        if scenes.variances[name] >= _LEAST_VARIANCE:
            scores[f"{name}_r2"] = 1 - float(left)
    return scores
