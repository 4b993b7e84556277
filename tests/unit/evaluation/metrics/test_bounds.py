"""Bounds on the likelihood of a model with known likelihood."""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from genesis_rl.evaluation import metrics
from genesis_rl.models.likelihood import Gaussian
from genesis_rl.slots import SceneModel

SIGMA = 0.5


class LinearGaussian:
    """p(z) = N(0, 1), p(x | z) = N(z, SIGMA^2); q(z | x) is the posterior, or a wider normal."""

    def __init__(self, width: float) -> None:
        self.width = width

    def log_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        one, sigma = torch.ones_like(x), math.sqrt(SIGMA**2 / (1 + SIGMA**2))
        q = Gaussian(x / (1 + SIGMA**2), self.width * sigma * one)
        z = q.draw(torch.randn(x.shape, generator=generator, dtype=x.dtype))
        prior, likelihood = Gaussian(0 * one, one), Gaussian(z, SIGMA * one)
        return prior.log_prob(z) + likelihood.log_prob(x) - q.log_prob(z)


def weights(width: float, num_samples: int, x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    model = cast("SceneModel", LinearGaussian(width))
    return metrics.log_weights(model, x, num_samples, generator=generator)


def evidence(x: Tensor) -> Tensor:
    return Gaussian(torch.zeros_like(x), torch.full_like(x, math.sqrt(1 + SIGMA**2))).log_prob(x)


@pytest.fixture
def x() -> Tensor:
    return torch.tensor([[-1.5], [0.0], [2.0]], dtype=torch.float64)


def test_the_true_posterior_makes_every_weight_the_evidence(x: Tensor) -> None:
    got = weights(1.0, 4, x)
    assert got.shape == (4, 3)
    torch.testing.assert_close(got, evidence(x).expand(4, 3))


def test_bounds_of_a_wider_posterior(x: Tensor) -> None:
    width = 2.0
    draws = weights(width, 50, x.repeat(400, 1)).view(-1, 3)  # 20,000 for each
    bounds = metrics.bounds(draws)
    # The gap of the ELBO is KL(q || posterior).
    gap = (width**2 - 1) / 2 - math.log(width)
    torch.testing.assert_close(bounds.elbo, evidence(x) - gap, atol=0.05, rtol=0)
    torch.testing.assert_close(bounds.iwae, evidence(x), atol=0.02, rtol=0)
    # In between lies the expectation of the bound of few samples.
    few = metrics.bounds(draws.view(4, -1)).iwae.view(-1, 3).mean(0)
    assert (few > bounds.elbo + 0.3).all()
    assert (few < evidence(x) - 0.02).all()


def test_one_sample_gives_the_elbo() -> None:
    draws = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    bounds = metrics.bounds(draws)
    assert torch.equal(bounds.elbo, bounds.iwae)
    assert torch.equal(bounds.elbo, draws[0].double())


def test_bounds_by_hand_and_far_from_zero() -> None:
    draws = torch.tensor([[-90_000.0, 1.0], [-90_000.0 + math.log(3), 1.0]], dtype=torch.float64)
    bounds = metrics.bounds(draws)
    torch.testing.assert_close(
        bounds.elbo, torch.tensor([-90_000 + math.log(3) / 2, 1.0], dtype=torch.float64)
    )
    torch.testing.assert_close(
        bounds.iwae, torch.tensor([-90_000 + math.log(2), 1.0], dtype=torch.float64)
    )
    assert metrics.bounds(draws.float()).iwae.dtype == torch.float64


def test_bits_per_dim() -> None:
    # Uniform on [0, 1]^D: density 1, and 8 bits for 256 values but for the outer half bins.
    assert metrics.bits_per_dim(0.0, 12) == 0
    assert metrics.bits_per_dim(0.0, 12, levels=256) == pytest.approx(math.log2(255))
    assert metrics.bits_per_dim(-12 * math.log(2), 12) == pytest.approx(1.0)
    assert metrics.bits_per_dim(12 * math.log(2), 6, levels=2) == pytest.approx(-2.0)
    # The probability of a level under a normal density, integrated over its width.
    sigma, width = 0.1, 1 / 255
    normal = torch.distributions.Normal(0.0, sigma)
    edges = normal.cdf(torch.tensor([-width / 2, width / 2], dtype=torch.float64))
    density = float(normal.log_prob(torch.tensor(0.0, dtype=torch.float64)))
    exact = -math.log2(float(edges[1] - edges[0]))
    assert metrics.bits_per_dim(density, 1, levels=256) == pytest.approx(exact, abs=1e-4)


def test_bad_input_is_named(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^num_samples "):
        weights(1.0, 0, x)
    for shape in ((3,), (0, 3)):
        with pytest.raises(ValueError, match=r"^weights "):
            metrics.bounds(torch.zeros(shape))
    bad: list[tuple[dict[str, Any], str]] = [
        ({"num_dims": 0}, r"^num_dims "),
        ({"num_dims": 3, "levels": 1}, r"^levels "),
    ]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=message):
            metrics.bits_per_dim(-1.0, **arguments)
