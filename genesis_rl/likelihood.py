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


class GaussianMixture(NamedTuple):
    """A mixture of C diagonal normal distributions.

    Attributes:
        log_weight: logarithms of the weights, (..., C).
        mu: means, (..., C, D).
        sigma: standard deviations, (..., C, D).
    """

    log_weight: Tensor
    mu: Tensor
    sigma: Tensor

    def draw(self, eps: Tensor) -> Tensor:
        """Sample of the mixture for standard normal noise (..., D).

        The first dimension's noise selects the component; its rank within the selected component's
        share is the noise of that dimension.
        """
        if not eps.shape[-1]:
            return eps
        weight = self.log_weight.exp()
        upper = weight.cumsum(-1)
        rank = torch.special.ndtr(eps[..., :1])
        index = (rank > upper[..., :-1]).sum(-1, keepdim=True)
        weight, upper = weight.gather(-1, index), upper.gather(-1, index)
        within = ((rank - upper + weight) / weight).clamp(1e-6, 1 - 1e-6)
        first = torch.where(weight < 1 - 1e-6, torch.special.ndtri(within), eps[..., :1])
        eps = torch.cat([first, eps[..., 1:]], -1)
        mu, sigma = (
            v.take_along_dim(index[..., None], -2).squeeze(-2) for v in (self.mu, self.sigma)
        )
        return mu + sigma * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density in nats, summed over the last dimension."""
        each = Gaussian(self.mu, self.sigma).log_prob(z[..., None, :])
        return torch.logsumexp(self.log_weight + each, -1)


Prior = Gaussian | GaussianMixture


def standard_normal(like: Tensor) -> Gaussian:
    """N(0, I) of a tensor's shape."""
    return Gaussian(torch.zeros_like(like), torch.ones_like(like))


def standard_mixture(like: Tensor, num_components: int) -> GaussianMixture:
    """N(0, I) of a tensor's shape (..., D) as a mixture whose first component has all weight."""
    weight = like.new_full((*like.shape[:-1], num_components), -1e9)
    weight[..., 0] = 0
    mu = like.new_zeros(*weight.shape, like.shape[-1])
    return GaussianMixture(weight, mu, torch.ones_like(mu))


def concatenate(first: Gaussian, rest: Gaussian) -> Gaussian:
    """Join the distributions of slots: (B, J, D) and (B, K, D) to (B, J + K, D)."""
    mu, sigma = (torch.cat(pair, 1) for pair in zip(first, rest, strict=True))
    return Gaussian(mu, sigma)


def kl_monte_carlo(z: Tensor, q: Gaussian, p: Prior) -> Tensor:
    """Single-sample estimate log q(z) - log p(z) of KL(q || p), summed over the last dimension.

    The authors' code uses this estimator, not the closed form; it may be negative.
    """
    return q.log_prob(z) - p.log_prob(z)


def kl_standard_normal(q: Gaussian) -> Tensor:
    """KL(q || N(0, 1)) in closed form, summed over the last dimension."""
    return (0.5 * (q.mu.square() + q.sigma.square() - 1) - q.sigma.log()).sum(-1)


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
    nll = -torch.logsumexp(joint_log_prob(x, mu_x, log_pi, sigma_x, mixture), dim=1)
    if pixel_weight is not None:
        nll = nll * pixel_weight
    return nll.sum((1, 2, 3))


def joint_log_prob(
    x: Tensor, mu_x: Tensor, log_pi: Tensor, sigma_x: float, mixture: Mixture
) -> Tensor:
    """Log probability log pi_k N(x; mu_k, sigma_x) of slot k and the pixel's value together.

    Args as for `mixture_nll`.

    Returns:
        Shape (B, K, 3, H, W) for "channel" and (B, K, 1, H, W) for "pixel", nats; its logsumexp
        over the slots is the log likelihood.
    """
    scaled = (x.unsqueeze(1) - mu_x).square() * (-0.5 / sigma_x**2)
    log_norm = math.log(sigma_x) + _HALF_LOG_2PI
    if mixture == "pixel":
        return scaled.sum(2, keepdim=True) + (log_pi - x.shape[1] * log_norm)
    return scaled + (log_pi - log_norm)


def log_responsibilities(x: Tensor, mu_x: Tensor, log_pi: Tensor, sigma_x: float) -> Tensor:
    """Log p(k | x, z), which slot each pixel is of, now that its colour is known.

        p(k | x_i, z) = pi_ik N(x_i; mu_ik, sigma_x) / sum_j pi_ij N(x_i; mu_ij, sigma_x)

    The masks pi are the model's guess before it sees the pixel; this is Bayes' rule, after. A pixel
    is of one slot in all of its channels, in whatever way the model was trained to mix them.

    Args as for `mixture_nll`.

    Returns:
        Shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K.
    """
    return F.log_softmax(joint_log_prob(x, mu_x, log_pi, sigma_x, "pixel"), dim=1)


def leave_one_out_logsumexp(values: Tensor) -> Tensor:
    """For each slot k the logsumexp of all others, over dim 1; needs K >= 2 slots."""
    slots = values.shape[1]
    own = torch.eye(slots, dtype=torch.bool, device=values.device)
    own = own.view(1, slots, slots, *(1,) * (values.ndim - 2))
    return values.unsqueeze(1).masked_fill(own, -math.inf).logsumexp(2)


def categorical_kl(log_q: Tensor, log_p: Tensor, floor: float = 1e-5) -> Tensor:
    """KL(q || p) of two mask distributions over the slots, summed over pixels.

    Both are floored and normalised anew, as in the authors' code: a pixel costs at most
    ln(1 / floor) nats.

    Args:
        log_q: log masks, shape (B, K, 1, H, W).
        log_p: log masks of the same shape.
        floor: least probability of a slot at a pixel.

    Returns:
        Each slot's part sum q_k log(q_k / p_k), shape (B, K), nats. Only the sum over the slots is
        a KL and never negative; a slot's part may be.
    """
    q, p = (log.exp().clamp_min(floor) for log in (log_q, log_p))
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    return (q * (q.log() - p.log())).sum((2, 3, 4))
