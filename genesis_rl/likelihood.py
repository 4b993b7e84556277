"""Densities and the stick-breaking construction: one equation per function."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Mixture = Literal["channel", "pixel"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """A diagonal normal distribution: mean and standard deviation of the same shape."""

    mu: Tensor
    sigma: Tensor

    def draw(self, eps: Tensor | None) -> Tensor:
        """Reparameterised value mu + sigma * eps; the mean where ``eps`` is None."""
        return self.mu if eps is None else self.mu + self.sigma * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, summed over the last dimension."""
        scaled = (z - self.mu) / self.sigma
        return -(0.5 * scaled.square() + self.sigma.log() + _HALF_LOG_2PI).sum(-1)


def kl_monte_carlo(z: Tensor, q: Gaussian, p: Gaussian) -> Tensor:
    """Single-sample estimate log q(z) - log p(z) of KL(q || p), summed over the last dimension.

    The authors' code uses this estimator, not the closed form; it may be negative.
    """
    return q.log_prob(z) - p.log_prob(z)


def stick_breaking(logits: Tensor) -> Tensor:
    """Split each pixel between K slots (paper Eq. 4), in log space.

    pi_1 = s_1, pi_k = s_k prod_{j<k} (1 - s_j), pi_K = prod_{j<K} (1 - s_j), s = sigmoid(logits).

    Args:
        logits: mask logits of slots 1..K-1, shape (B, K-1, 1, H, W), unbounded.

    Returns:
        log_pi, shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K.

    Raises:
        ValueError: if ``logits`` is not 5-D or holds no slot.
    """
    if logits.ndim != 5 or logits.shape[1] < 1:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}; wanted (B, K-1, 1, H, W) with K >= 2."
        )
    log_scope = F.logsigmoid(-logits).cumsum(1)  # what is left after slot k
    log_take = F.logsigmoid(logits)
    first, rest = log_take[:, :1], log_take[:, 1:] + log_scope[:, :-1]
    return torch.cat([first, rest, log_scope[:, -1:]], dim=1)


def mixture_nll(
    x: Tensor,
    mu_x: Tensor,
    log_pi: Tensor,
    sigma_x: float,
    *,
    mixture: Mixture = "channel",
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Negative log likelihood of images under the spatial Gaussian mixture (paper Eq. 3).

    The authors' code mixes the slots separately in every colour channel ("channel"); "pixel" has
    one mixture per pixel jointly over its channels, so that a slot must explain the whole colour.

    Args:
        x: images, shape (B, 3, H, W) in [0, 1].
        mu_x: component means, shape (B, K, 3, H, W).
        log_pi: log mixing probabilities, shape (B, K, 1, H, W).
        sigma_x: standard deviation of every component, in pixel units.
        mixture: "channel" or "pixel".
        pixel_weight: optional weight of each pixel's part of the sum, shape (B, 1, H, W), >= 0.

    Returns:
        Shape (B,), nats, summed over pixels and channels.
    """
    scaled = (x.unsqueeze(1) - mu_x).square() * (-0.5 / sigma_x**2)
    log_norm = math.log(sigma_x) + _HALF_LOG_2PI
    if mixture == "pixel":
        nll = x.shape[1] * log_norm - torch.logsumexp(scaled.sum(2, keepdim=True) + log_pi, dim=1)
    else:
        nll = log_norm - torch.logsumexp(scaled + log_pi, dim=1)
    if pixel_weight is not None:
        nll = nll * pixel_weight
    return nll.sum((1, 2, 3))
