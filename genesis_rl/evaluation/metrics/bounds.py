"""Lower bounds on the log likelihood of images, from importance weights.

For z sampled from the posterior, w = p(x, z) / q(z | x) has the expectation p(x), and by Jensen's
inequality E[log mean_S w] <= log p(x). One sample gives the evidence lower bound, more samples a
tighter bound (Burda, Grosse, Salakhutdinov 2016, eq. 8). This holds conditionally on any other
random variable of the inference (GENESIS-V2's seeds, IODINE's earlier samples).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genesis_rl.evaluation.metrics.segmentation import Array, as_tensor
from genesis_rl.slots import SceneModel


class Bounds(NamedTuple):
    """Two lower bounds on log p(x) from the same samples, each (B,), float64, in nats.

    Attributes:
        elbo: mean of the log weights: the evidence lower bound, averaged over the samples.
        iwae: log of the mean of the weights: the importance-weighted bound, never below ``elbo``.
    """

    elbo: Tensor
    iwae: Tensor


def log_weights(
    model: SceneModel,
    x: Array,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute log importance weights log p(x, z) - log q(z | x) for posterior samples z.

    Args:
        model: a scene model, in eval mode.
        x: images, shape (B, 3, H, W) in [0, 1].
        num_samples: number of samples S, at least 1.
        generator: random number generator.

    Returns:
        Shape (S, B), float64, nats.

    Raises:
        TypeError: if ``x`` is not floating-point.
        ValueError: if num_samples is below 1 or ``x`` has a wrong shape for the model.
    """
    if not isinstance(x, Tensor):
        x = as_tensor(x, "x")
        if not x.is_floating_point():
            raise TypeError(f"x must be floats in [0, 1], got {x.dtype}.")
        x = x.float()
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    weights = [model.log_weight(x, generator=generator) for _ in range(num_samples)]
    return torch.stack(weights).double()


def bounds(weights: Array) -> Bounds:
    """Compute both bounds from log weights.

    Args:
        weights: log importance weights, shape (S, B), nats.

    Returns:
        The bounds of each image, equal for S = 1.

    Raises:
        ValueError: if the shape is not (S, B) with S >= 1.
    """
    weights = as_tensor(weights, "weights")
    if weights.ndim != 2 or len(weights) < 1:
        raise ValueError(f"weights must have shape (S, B), S >= 1, got {tuple(weights.shape)}.")
    weights = weights.double()
    return Bounds(weights.mean(dim=0), weights.logsumexp(dim=0) - math.log(len(weights)))


def bits_per_dim(log_likelihood: float, num_dims: int, *, levels: int | None = None) -> float:
    """Convert a log likelihood to bits per dimension; lower is better.

    The models define a density over continuous images in [0, 1]. Their bits per dimension,
    -log2 p(x) / D, may be negative and depend on the unit of the colours. Images quantised to
    ``levels`` values have a step of 1 / (levels - 1). The probability of a value is the density
    times the step, which adds log2(levels - 1) bits: 7.994 at 256 levels, as reported for 8-bit
    images. The error of assuming a constant density over a step is (step / sigma_x)^2 / 24 nats,
    below 1e-4 for sigma_x >= 0.1.

    Args:
        log_likelihood: log p(x) or a bound on it, in nats per image.
        num_dims: D = 3 H W, the number of values of an image.
        levels: None for bits of the density; 256 for bits of 8-bit images.

    Returns:
        Bits per dimension.

    Raises:
        ValueError: if num_dims is below 1 or levels below 2.
    """
    if num_dims < 1:
        raise ValueError(f"num_dims must be at least 1, got {num_dims}.")
    if levels is not None and levels < 2:
        raise ValueError(f"levels must be None or at least 2, got {levels}.")
    bits = -log_likelihood / (num_dims * math.log(2))
    return bits if levels is None else bits + math.log2(levels - 1)
