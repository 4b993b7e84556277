"""Densities, KL divergences and the stick-breaking construction."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

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
        """Return the sample mu + sigma * eps, or the mean if ``eps`` is None."""
        return self.mu if eps is None else self.mu + self.sigma * eps

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density in nats, summed over the last dimension."""
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
        """Return the sample of the mixture for standard normal noise (..., D).

        The quantile of the first dimension's noise selects the component; its position within the
        selected component's share of [0, 1] is that dimension's quantile in the component.
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
        """Return the log density in nats, summed over the last dimension."""
        log_density = Gaussian(self.mu, self.sigma).log_prob(z[..., None, :])
        return torch.logsumexp(self.log_weight + log_density, -1)


class Flow(Protocol):
    """Invertible map of latents (..., D) given a context (..., H)."""

    def __call__(self, u: Tensor, context: Tensor) -> Tensor:
        """Map u to z."""

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u, and the logarithm of |det du/dz|, (...)."""


class FlowPrior(NamedTuple):
    """The distribution of z = flow(u, context), where u has the distribution ``base``."""

    base: "SlotPrior"
    flow: Flow
    context: Tensor

    def draw(self, eps: Tensor) -> Tensor:
        """Return the sample for standard normal noise (..., D)."""
        return self.flow(self.base.draw(eps), self.context)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density in nats."""
        u, log_det = self.flow.inverse(z, self.context)
        return self.base.log_prob(u) + log_det


class FirstAndRest(NamedTuple):
    """Distributions of the first slot, (B, 1, ...), and of the others, (B, K - 1, ...)."""

    first: Gaussian | GaussianMixture | FlowPrior
    rest: FlowPrior

    def draw(self, eps: Tensor) -> Tensor:
        """Return the samples for standard normal noise (B, K, D)."""
        return torch.cat([self.first.draw(eps[:, :1]), self.rest.draw(eps[:, 1:])], 1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log densities (B, K) of latents (B, K, D), in nats."""
        return torch.cat([self.first.log_prob(z[:, :1]), self.rest.log_prob(z[:, 1:])], 1)


SlotPrior = Gaussian | GaussianMixture | FlowPrior
Prior = SlotPrior | FirstAndRest
P = TypeVar("P", Gaussian, GaussianMixture)


def standard_normal(like: Tensor) -> Gaussian:
    """Return N(0, I) of a tensor's shape."""
    return Gaussian(torch.zeros_like(like), torch.ones_like(like))


def standard_mixture(like: Tensor, num_components: int) -> GaussianMixture:
    """Return N(0, I) of a tensor's shape (..., D) as a mixture with one non-zero weight."""
    weight = like.new_full((*like.shape[:-1], num_components), -1e9)
    weight[..., 0] = 0
    mu = like.new_zeros(*weight.shape, like.shape[-1])
    return GaussianMixture(weight, mu, torch.ones_like(mu))


def concatenate(first: P, rest: P) -> P:
    """Concatenate the distributions of slots: (B, J, ...) and (B, K, ...) to (B, J + K, ...)."""
    return type(first)(*(torch.cat(pair, 1) for pair in zip(first, rest, strict=True)))


def join(first: SlotPrior, rest: SlotPrior) -> Prior:
    """Join the priors of the first slot and of the others, (B, 1, ...) and (B, K - 1, ...)."""
    if isinstance(rest, FlowPrior):
        return FirstAndRest(first, rest)
    joined: Prior = concatenate(first, rest)  # type: ignore[type-var]
    return joined


def stack(priors: Sequence[SlotPrior]) -> SlotPrior:
    """Stack the priors (B, ...) of K slots, of one class and flow, to one (B, K, ...)."""
    first = priors[0]
    if isinstance(first, FlowPrior):
        bases, _, contexts = zip(*priors, strict=True)
        return first._replace(base=stack(bases), context=torch.stack(contexts, 1))
    return type(first)(*(torch.stack(field, 1) for field in zip(*priors, strict=True)))


def kl_monte_carlo(z: Tensor, q: Gaussian, p: Prior) -> Tensor:
    """Estimate KL(q || p) by log q(z) - log p(z), summed over the last dimension.

    The estimator of the authors' code, instead of the closed form; it may be negative.
    """
    return q.log_prob(z) - p.log_prob(z)


def kl_standard_normal(q: Gaussian) -> Tensor:
    """Compute KL(q || N(0, 1)) in closed form, summed over the last dimension."""
    return (0.5 * (q.mu.square() + q.sigma.square() - 1) - q.sigma.log()).sum(-1)


def stick_breaking(logits: Tensor) -> Tensor:
    """Compute masks of K slots by stick-breaking (paper Eq. 4), in log space.

    pi_1 = s_1, pi_k = s_k prod_{j<k} (1 - s_j), pi_K = prod_{j<K} (1 - s_j), s = sigmoid(logits).

    Args:
        logits: mask logits of slots 1..K-1, shape (B, K-1, 1, H, W), unbounded.

    Returns:
        log_pi, shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K.

    Raises:
        ValueError: if ``logits`` is not 5-D or has no slot.
    """
    if logits.ndim != 5 or logits.shape[1] < 1:
        raise ValueError(
            f"logits must have shape (B, K-1, 1, H, W) with K >= 2, got {tuple(logits.shape)}."
        )
    log_scope = F.logsigmoid(-logits).cumsum(1)  # remaining scope after slot k
    log_alpha = F.logsigmoid(logits)
    first, rest = log_alpha[:, :1], log_alpha[:, 1:] + log_scope[:, :-1]
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
    """Compute the negative log likelihood of images under the Gaussian mixture (paper Eq. 3).

    The authors' code has a mixture of the slots per colour channel ("channel"); "pixel" has one
    mixture per pixel, so that one slot explains all channels of a pixel.

    Args:
        x: images, shape (B, 3, H, W) in [0, 1].
        mu_x: component means, shape (B, K, 3, H, W).
        log_pi: log mixing probabilities, shape (B, K, 1, H, W).
        sigma_x: standard deviation of every component, in pixel units.
        mixture: "channel" or "pixel".
        pixel_weight: weight of each pixel in the sum, shape (B, 1, H, W), >= 0; None: all 1.

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
    """Compute the joint log probability log pi_k N(x; mu_k, sigma_x) of slot and pixel value.

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
    """Compute log p(k | x, z), the posterior assignment of each pixel to a slot.

        p(k | x_i, z) = pi_ik N(x_i; mu_ik, sigma_x) / sum_j pi_ij N(x_i; mu_ij, sigma_x)

    The masks pi are the prior assignment. A pixel is assigned jointly over its channels, also for
    models trained with a mixture per channel.

    Args as for `mixture_nll`.

    Returns:
        Shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K.
    """
    return F.log_softmax(joint_log_prob(x, mu_x, log_pi, sigma_x, "pixel"), dim=1)


def leave_one_out_logsumexp(values: Tensor) -> Tensor:
    """Return, for each slot k, the logsumexp over all other slots in dim 1; requires K >= 2."""
    slots = values.shape[1]
    diagonal = torch.eye(slots, dtype=torch.bool, device=values.device)
    diagonal = diagonal.view(1, slots, slots, *(1,) * (values.ndim - 2))
    return values.unsqueeze(1).masked_fill(diagonal, -math.inf).logsumexp(2)


def categorical_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Compute KL(q || p) of two mask distributions over the slots, summed over pixels.

    Both are clamped at 1e-5 and renormalised, as in the authors' code, so that the KL of a pixel is
    at most 11.5 nats.

    Args:
        log_q: log masks, shape (B, K, 1, H, W).
        log_p: log masks of the same shape.

    Returns:
        Each slot's term sum q_k log(q_k / p_k), shape (B, K), nats. The sum over the slots is the
        KL, and non-negative; single terms may be negative.
    """
    q, p = (log.exp().clamp_min(1e-5) for log in (log_q, log_p))
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    return (q * (q.log() - p.log())).sum((2, 3, 4))
