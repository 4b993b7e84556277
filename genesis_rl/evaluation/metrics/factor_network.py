"""The network of `genesis_rl.evaluation.metrics.features` and its training."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.data import Pack
from genesis_rl.data.feed import batch_indices
from genesis_rl.data.multi_dsprites import SHAPES
from genesis_rl.utils.checks import Count, Natural, check_fields
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.sprites import STATE_COLUMNS
from genesis_rl.worlds.sprites.drawing import OUTLINES

GRID = 4  # cells per side
_LABELS = 256  # labels of a uint8 mask
_CHUNK = 1024
WIDTH = 64
_BATCH, _LEARNING_RATE, _WEIGHT_DECAY = 64, 3e-3, 1e-2
_NOISE = 0.05  # largest standard deviation of the noise on training images
_HELD_OUT, _MAX_HELD_OUT = 0.1, 2000  # share of the pack, and number of images
_MIN_VARIANCE = 1e-3  # variance of a regression target below which it counts as constant


class CellTargets(NamedTuple):
    """Areas and colours of objects on a grid of G = `GRID`^2 cells, in row-major order.

    Attributes:
        area: (B, G, S) share of each cell covered by objects of each shape, in [0, 1].
        colour: (B, G, 3) mean colour of the objects in each cell, in [0, 1]; 0 without objects.
        background: (B, 3) mean colour of the background, in [0, 1].
        background_area: (B,) share of the image covered by the background, in [0, 1].
    """

    area: Tensor
    colour: Tensor
    background: Tensor
    background_area: Tensor


def cell_targets(images: Tensor, masks: Tensor, shapes: Tensor, num_shapes: int) -> CellTargets:
    """Compute the targets of scenes.

    All but the shapes come from images and instance masks, so any pack with masks is valid.

    Args:
        images: (B, 3, H, W), float in [0, 1].
        masks: (B, H, W) labels, 0 = background.
        shapes: (B, L) shape of label l, from 1; 0 for the background.
        num_shapes: number of shapes S.
    """
    kinds = shapes.long().gather(1, masks.long().flatten(1)).view_as(masks)
    layers = F.one_hot(kinds, num_shapes + 1).permute(0, 3, 1, 2).to(images.dtype)
    area = F.adaptive_avg_pool2d(layers[:, 1:], GRID).flatten(2).transpose(1, 2)
    background, objects = layers[:, :1], 1 - layers[:, :1]
    tint = F.adaptive_avg_pool2d(images * objects, GRID).flatten(2).transpose(1, 2)
    share = background.mean((1, 2, 3))
    return CellTargets(
        area,
        tint / area.sum(-1, keepdim=True).clamp_min(1e-6),
        (images * background).mean((2, 3)) / share.clamp_min(1e-6)[:, None],
        share,
    )


def require_masks(pack: Pack) -> npt.NDArray[np.uint8]:
    """Return the masks of a pack, (N, H, W) uint8.

    Raises:
        ValueError: if it has none.
    """
    if pack.masks is None:
        raise ValueError(f"pack must have masks, got none in {pack.folder}.")
    return pack.masks


def count_objects(pack: Pack) -> npt.NDArray[np.int64]:
    """Count the visible objects of each image: non-zero labels in its mask, shape (N,).

    Raises:
        ValueError: if the pack has no masks.
    """
    masks = require_masks(pack)
    counts = np.empty(len(pack), np.int64)
    for first in range(0, len(pack), _CHUNK):
        labels = torch.from_numpy(masks[first : first + _CHUNK].astype(np.int64)).flatten(1)
        exists = torch.zeros(len(labels), _LABELS, dtype=torch.bool).scatter_(1, labels, True)
        counts[first : first + _CHUNK] = exists[:, 1:].sum(1).numpy()
    return counts


def object_shapes(pack: Pack) -> tuple[tuple[str, ...], npt.NDArray[np.uint8]]:
    """Return the shape of each label of each mask.

    Returns:
        Names of the S shapes, a single "object" for packs other than Multi-dSprites and the sprite
        worlds; and (N, 256) indices of the labels' shapes, from 1, or 0 for the background.

    Raises:
        ValueError: if the factors are broken.
    """
    dataset = pack.meta.get("dataset")
    table = np.ones((len(pack), _LABELS), np.uint8)
    names: tuple[str, ...] = ("object",)
    if dataset == "multi_dsprites":
        names = SHAPES
        shape = pack.factors["shape"]
        table[:, 1 : 1 + shape.shape[1]] += shape
    elif dataset == "sprite_scenes":
        names = tuple(OUTLINES)
        state = pack.factors["state"]
        one_hot = state[..., [STATE_COLUMNS.index(name) for name in names]]
        table[:, 1 : 1 + state.shape[1]] += one_hot.argmax(-1).astype(np.uint8)
    table[:, 0] = 0
    return names, table


@dataclass(frozen=True)
class FactorConfig:
    """Settings of a network and its training data."""

    image_size: tuple[int, int]
    """(H, W) of the images in pixels"""
    shapes: tuple[str, ...]
    """shapes of the objects; one if unknown"""
    most_objects: int
    """largest number of objects in an image"""
    data: str
    """digest of the training pack"""
    steps: Count = 1500
    """training steps of 64 images"""
    seed: Natural = 0
    """seed of the initial weights, the batches and the noise"""

    def __post_init__(self) -> None:
        """Validate every value."""
        if len(self.image_size) != 2 or min(self.image_size) < 4 * GRID:
            raise ValueError(
                f"image_size must be (H, W) of at least {4 * GRID} px, got {self.image_size}."
            )
        if self.most_objects < 1:
            raise ValueError("masks must contain objects, got background only.")
        check_fields(self)


class FactorPredictions(NamedTuple):
    """Predictions of the network.

    Attributes:
        objects: (B, most_objects + 1) logits of the number of objects.
        area, colour, background: as in `CellTargets`, standardised.
    """

    objects: Tensor
    area: Tensor
    colour: Tensor
    background: Tensor


class FactorNetwork(nn.Module):
    """Convolutions down to `GRID` x `GRID` cells, 64 features, linear heads."""

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
        # Normalisation without scale and shift gives all features equal weight in a distance.
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels[-1] * GRID**2, WIDTH, bias=False),
            nn.BatchNorm1d(WIDTH, affine=False),
        )
        cells = GRID**2
        self._split = [config.most_objects + 1, cells * len(config.shapes), cells * 3, 3]
        self.answers = nn.Linear(WIDTH, sum(self._split))

    def forward(self, x: Tensor) -> Tensor:
        """Compute features (B, 64) of images (B, 3, H, W)."""
        features: Tensor = self.features(self.convs(x))
        return features

    def predict(self, features: Tensor) -> FactorPredictions:
        """Predict factors from features (B, 64)."""
        objects, area, colour, background = self.answers(features).split(self._split, dim=1)
        area, colour = (part.unflatten(1, (GRID**2, -1)) for part in (area, colour))
        return FactorPredictions(objects, area, colour, background)


class FactorDataset:
    """A pack's images and targets, on a device.

    Attributes:
        shapes: names of the objects' shapes.
        most_objects: largest number of objects in an image.
        num_images: number of images.
        num_training: number of training images; the following ones are held out.
        means, variances: statistics of the regression targets over at most 2,000 training images,
            by name.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        """Read the factors of a pack.

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
        targets = _regression_targets(cells)
        self.means = {name: float(_mean(v, weight)) for name, v, weight in targets}
        self.variances = {
            name: float(_mean((v - self.means[name]).square(), weight))
            for name, v, weight in targets
        }

    def __call__(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, CellTargets, Tensor]:
        """Return images (B, 3, H, W) in [0, 1], their targets and numbers of objects (B,)."""
        pixels, masks, shapes, counts = (
            torch.from_numpy(array[rows]).to(self.device)
            for array in (self._images, self._masks, self._shapes, self._counts)
        )
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        return images, cell_targets(images, masks, shapes, len(self.shapes)), counts


def _regression_targets(cells: CellTargets) -> list[tuple[str, Tensor, Tensor]]:
    """Return names, values and weights of the regression targets."""
    return [
        ("area", cells.area, torch.ones_like(cells.area)),
        ("colour", cells.colour, cells.area.sum(-1, keepdim=True)),
        ("background", cells.background, cells.background_area[:, None]),
    ]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def _unexplained_variance(
    predictions: FactorPredictions, cells: CellTargets, scenes: FactorDataset
) -> dict[str, Tensor]:
    """Return the unexplained share of the variance, by name."""
    unexplained = {}
    for name, values, weight in _regression_targets(cells):
        unit = max(scenes.variances[name], _MIN_VARIANCE) ** 0.5
        error = getattr(predictions, name) - (values - scenes.means[name]) / unit
        unexplained[name] = _mean(error.square(), weight)
    return unexplained


def fit(network: FactorNetwork, scenes: FactorDataset) -> None:
    """Train a network; it stays in training mode.

    The loss is the cross entropy of the number of objects plus the unexplained shares of the
    regression targets' variance, which have the same order of magnitude.
    """
    config, device = network.config, scenes.device
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _rate_factor(step / config.steps)
    )
    generator = torch.Generator(device).manual_seed(config.seed)
    batch_size = min(_BATCH, scenes.num_training)
    network.train()
    for step in ProgressBar(range(config.steps), desc="feature network", unit="step"):
        rows = batch_indices(step, batch_size, scenes.num_training, config.seed).numpy()
        images, cells, counts = scenes(np.sort(rows))  # in disk order
        level = torch.rand(batch_size, 1, 1, 1, generator=generator, device=device)
        noise = torch.randn(images.shape, generator=generator, device=device)
        # bfloat16 is faster on GPUs and slower on CPUs.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = network(images + _NOISE * level * noise)
        predictions = network.predict(features.float())
        unexplained = _unexplained_variance(predictions, cells, scenes)
        loss = F.cross_entropy(predictions.objects, counts) + sum(unexplained.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _rate_factor(progress: float) -> float:
    """Return the learning rate's factor: linear warm-up over a tenth, then cosine decay."""
    return min(1.0, 10 * progress + 0.01) * (1 + math.cos(math.pi * progress)) / 2


@torch.inference_mode()
def evaluate(network: FactorNetwork, scenes: FactorDataset) -> dict[str, float]:
    """Evaluate a network in eval mode on the held-out images; see `FactorFeatures.held_out`."""
    predicted, true, numbers = [], [], []
    for first in range(scenes.num_training, scenes.num_images, _BATCH):
        images, cells, counts = scenes(np.arange(first, min(first + _BATCH, scenes.num_images)))
        predicted.append(network.predict(network(images)))
        true.append(cells)
        numbers.append(counts)
    predictions = FactorPredictions(*(torch.cat(parts) for parts in zip(*predicted, strict=True)))
    cells = CellTargets(*(torch.cat(parts) for parts in zip(*true, strict=True)))
    correct = predictions.objects.argmax(-1) == torch.cat(numbers)
    scores = {"objects_accuracy": float(correct.float().mean())}
    if len(scenes.shapes) > 1:
        correct = predictions.area.argmax(-1) == cells.area.argmax(-1)
        scores["shape_accuracy"] = float(_mean(correct.float(), cells.area.sum(-1)))
    for name, unexplained in _unexplained_variance(predictions, cells, scenes).items():
        if scenes.variances[name] >= _MIN_VARIANCE:
            scores[f"{name}_r2"] = 1 - float(unexplained)
    return scores
