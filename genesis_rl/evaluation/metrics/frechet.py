"""Frechet distances between sets of images, on the features of a network.

A set is represented by the mean and covariance of its features, assumed Gaussian (Heusel et al.
2017, arXiv:1706.08500). Networks are in `genesis_rl.evaluation.metrics.features`: with the standard
Inception network the distance is the FID; `FactorFeatures` ranks models where that network is
unavailable. Distances with different networks or numbers of images are not comparable: the estimate
is biased upwards by about 1 / num_images.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from genesis_rl.data import Pack
from genesis_rl.evaluation.metrics.segmentation import Array, as_tensor
from genesis_rl.slots import Decoded, SceneModel

_BATCH = 64
_MAX_IMAGES = 10_000


class FeatureNetwork(Protocol):
    """Network of images (B, 3, H, W), float in [0, 1], to features (B, width), on any device."""

    @property
    def width(self) -> int:
        """Number of features of an image."""

    @property
    def fingerprint(self) -> str:
        """Identifier of the network; distances are comparable only between equal ones."""

    def __call__(self, images: Tensor) -> Tensor:
        """Compute the features of images."""


class FeatureStatistics:
    """Running number, mean and covariance of features, in float64 on the CPU.

    Attributes:
        count: number of images so far.
    """

    def __init__(self) -> None:
        """Initialise without images; the first batch sets the width."""
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Array) -> None:
        """Add features, shape (B, D).

        Two passes within the batch, then Chan's merge of centred sums: no cancellation if the mean
        is much larger than the standard deviation.

        Raises:
            ValueError: if they are not a finite matrix of the same width as before.
        """
        features = as_tensor(features, "features")
        if features.ndim != 2 or features.shape[1] == 0:
            raise ValueError(f"features must have shape (N, D), got {tuple(features.shape)}.")
        batch = features.detach().to("cpu", torch.float64)
        broken = int((~batch.isfinite()).any(1).sum())
        if broken:
            raise ValueError(
                f"features must be finite, got NaN or infinity for {broken} of {len(batch)} images."
            )
        if self.count == 0:
            self._mean = batch.new_zeros(batch.shape[1])
            self._scatter = batch.new_zeros(batch.shape[1], batch.shape[1])
        elif batch.shape[1] != len(self._mean):
            raise ValueError(f"features must have width {len(self._mean)}, got {batch.shape[1]}.")
        if not len(batch):
            return
        total = self.count + len(batch)
        mean = batch.mean(0)
        centred, shift = batch - mean, mean - self._mean
        self._scatter.addmm_(centred.T, centred)
        self._scatter.addr_(shift, shift, alpha=self.count * len(batch) / total)
        self._mean += shift * (len(batch) / total)
        self.count = total

    @property
    def width(self) -> int:
        """Number of features D; 0 before the first batch."""
        return len(self._mean)

    @property
    def mean(self) -> Tensor:
        """Mean, shape (D,), float64."""
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, shape (D, D), float64; requires two images."""
        return self._scatter / (self.count - 1)


def frechet_distance(
    real: Tensor | npt.ArrayLike | FeatureStatistics,
    generated: Tensor | npt.ArrayLike | FeatureStatistics,
) -> float:
    """Compute the squared Frechet (2-Wasserstein) distance of Gaussians fitted to two feature sets.

    ``|m_1 - m_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^(1/2))``, in float64. The last trace is the
    sum of the singular values of ``S_1^(1/2) S_2^(1/2)``. Two symmetric eigendecompositions and
    singular values are accurate for singular covariances (a constant feature) too, unlike the
    square root or the eigenvalues of the asymmetric product.

    Args:
        real: features of real images, shape (N, D), or their statistics.
        generated: features of generated images, shape (M, D), or their statistics.

    Returns:
        The distance, >= 0, in squared units of the features.

    Raises:
        ValueError: for wrong shapes, different widths, features that are not finite, or N or M not
            above D, for which the covariance is rank-deficient.
    """
    a, b = _statistics(real), _statistics(generated)
    if a.width != b.width:
        raise ValueError(
            f"generated must have features of width {a.width}, as real, got {b.width}."
        )
    for name, stats in (("real", a), ("generated", b)):
        if stats.count <= stats.width:
            raise ValueError(
                f"{name} must have at least {stats.width + 1} images for {stats.width} features,"
                f" got {stats.count}."
            )
    values_a, vectors_a = torch.linalg.eigh(a.covariance)
    values_b, vectors_b = torch.linalg.eigh(b.covariance)
    # Rounding can make zero eigenvalues slightly negative.
    root_a, root_b = values_a.clamp_min(0).sqrt(), values_b.clamp_min(0).sqrt()
    # S^(1/2) = V root V^T; the outer rotations do not change singular values.
    product = root_a[:, None] * (vectors_a.T @ vectors_b) * root_b
    overlap = torch.linalg.svdvals(product).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))


def _statistics(features: Tensor | npt.ArrayLike | FeatureStatistics) -> FeatureStatistics:
    if isinstance(features, FeatureStatistics):
        return features
    statistics = FeatureStatistics()
    if not isinstance(features, Tensor):
        features = torch.from_numpy(np.asarray(features, np.float64))
    statistics.update(features)
    return statistics


def feature_statistics(features: FeatureNetwork, images: Iterable[Tensor]) -> FeatureStatistics:
    """Compute the feature statistics of batches of images (B, 3, H, W), float in [0, 1].

    Raises:
        ValueError: if features are not finite.
    """
    statistics = FeatureStatistics()
    for batch in images:
        statistics.update(features(batch))
    return statistics


def sampled_images(
    model: SceneModel, num_images: int, *, seed: int = 0, temperature: float = 1.0
) -> Iterator[Tensor]:
    """Yield the images of `sampled_scenes`, in batches (B, 3, H, W) on the model's device.

    An image is the mixture's mean, ``sum_k pi_k mu_x_k``, clipped to [0, 1], without pixel noise,
    so that the score does not depend on the width of the likelihood.
    """
    for scenes in sampled_scenes(model, num_images, seed=seed, temperature=temperature):
        yield scenes.image.clamp(0, 1)


@torch.inference_mode()
def sampled_scenes(
    model: SceneModel, num_images: int, *, seed: int = 0, temperature: float = 1.0
) -> Iterator[Decoded]:
    """Sample scenes from a model's prior, in eval mode.

    Args:
        model: a scene model; its training mode is restored.
        num_images: number of scenes.
        seed: seed of the noise; determines the scenes for a model and device.
        temperature: factor of the prior's sigma.

    Yields:
        Batches on the model's device.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}.")
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    training = model.training
    for first in range(0, num_images, _BATCH):
        count = min(_BATCH, num_images - first)
        model.eval()
        slots = model.sample(count, generator=generator, temperature=temperature)
        decoded = model.decode(slots)
        model.train(training)  # before the consumer runs
        yield decoded


class SampleScorer:
    """Scores samples of several models against the same real images with the same network.

    The first n images of a pack are the real ones; the next n are for reference distances. Every
    set has n images, so all distances have the same bias and are comparable.

    Attributes:
        num_images: n.
    """

    def __init__(self, features: FeatureNetwork, pack: Pack, num_images: int | None = None) -> None:
        """Compute the features of the real images.

        Args:
            features: the network.
            pack: a held-out split for both model and network, in random order.
            num_images: n; half of the pack by default, at most 10,000.

        Raises:
            ValueError: if the pack has fewer than 2n images, or n is not above the width of the
                features.
        """
        n = min(len(pack) // 2, _MAX_IMAGES) if num_images is None else num_images
        if n <= features.width:
            raise ValueError(
                f"num_images must be at least {features.width + 1} for {features.width} features,"
                f" got {n} (the pack has {len(pack)}, of which each half is used)."
            )
        if 2 * n > len(pack):
            raise ValueError(
                f"num_images must be at most {len(pack) // 2}, half of the pack's {len(pack)}, got"
                f" {n}."
            )
        self.num_images = n
        self._features, self._pack = features, pack
        self._references: dict[str, float] | None = None
        self._real = feature_statistics(features, pack_images(pack, 0, n))

    def distance(self, images: Iterable[Tensor]) -> float:
        """Compute the Frechet distance of images, in batches (B, 3, H, W), to the real ones."""
        return frechet_distance(self._real, feature_statistics(self._features, images))

    def references(self) -> dict[str, float]:
        """Return reference distances.

        Returns:
            ``real``: other real images, the lower bound of a perfect model. ``shuffled_pixels``:
            these with the pixels of each image shuffled. ``mean_image``: n times the mean of the
            real images.
        """
        if self._references is None:
            n, generator = self.num_images, torch.Generator().manual_seed(0)
            shuffled = (_shuffle(batch, generator) for batch in self._others())
            self._references = {
                "real": self.distance(self._others()),
                "shuffled_pixels": self.distance(shuffled),
                "mean_image": self._repeated(_mean_image(self._pack, n)),
            }
        return dict(self._references)

    def __call__(
        self, model: SceneModel, *, seed: int = 0, temperature: float = 1.0
    ) -> dict[str, Any]:
        """Score n samples of a model, see `sampled_images`.

        Returns:
            JSON data: ``distance``, ``references`` (see the method), ``num_images`` and the
            ``features`` network's fingerprint.

        Raises:
            ValueError: if samples are not finite.
        """
        images = sampled_images(model, self.num_images, seed=seed, temperature=temperature)
        return {
            "distance": self.distance(images),
            "references": self.references(),
            "num_images": self.num_images,
            "features": self._features.fingerprint,
        }

    def _others(self) -> Iterator[Tensor]:
        return pack_images(self._pack, self.num_images, self.num_images)

    def _repeated(self, image: Tensor) -> float:
        """Score n copies of an image, shape (3, H, W)."""
        statistics = FeatureStatistics()
        statistics.update(self._features(image[None]).expand(self.num_images, -1))
        return frechet_distance(self._real, statistics)


def pack_images(pack: Pack, first: int = 0, count: int | None = None) -> Iterator[Tensor]:
    """Yield images ``first`` to ``first + count`` of a pack in batches; None: to its end.

    Yields:
        (B, 3, H, W), float in [0, 1], on the CPU, channels_last in memory.
    """
    end = len(pack) if count is None else first + count
    for start in range(first, end, _BATCH):
        yield pack.tensor(slice(start, min(start + _BATCH, end)))


def _mean_image(pack: Pack, count: int) -> Tensor:
    """Return the mean of the first images of a pack, shape (3, H, W)."""
    total = sum(batch.sum(0, dtype=torch.float64) for batch in pack_images(pack, 0, count))
    return torch.as_tensor(total / count, dtype=torch.float32)


def _shuffle(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle the pixels of each image."""
    pixels = images.flatten(2)
    order = torch.rand(len(images), 1, pixels.shape[2], generator=generator).argsort(-1)
    return pixels.gather(2, order.expand_as(pixels)).view_as(images)
