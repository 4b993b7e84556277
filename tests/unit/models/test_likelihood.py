"""Densities and stick-breaking against closed forms and loops."""

import math

import pytest
import torch

from genesis_rl.models.likelihood import (
    Gaussian,
    GaussianMixture,
    Mixture,
    categorical_kl,
    joint_log_prob,
    kl_monte_carlo,
    kl_standard_normal,
    leave_one_out_logsumexp,
    log_responsibilities,
    mixture_nll,
    standard_mixture,
    standard_normal,
    stick_breaking,
)


def scene(
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 4, 6, generator=generator, dtype=dtype)
    mu_x = torch.rand(2, 5, 3, 4, 6, generator=generator, dtype=dtype)
    logits = torch.randn(2, 5, 1, 4, 6, generator=generator, dtype=dtype)
    return x, mu_x, logits.log_softmax(1)


def test_stick_breaking_follows_equation_4() -> None:
    logits = torch.randn(2, 4, 1, 3, 5, dtype=torch.float64)
    pi = stick_breaking(logits).exp()
    scope = torch.ones(2, 1, 3, 5, dtype=torch.float64)
    for k in range(4):
        share = scope * torch.sigmoid(logits[:, k])
        torch.testing.assert_close(pi[:, k], share)
        scope = scope - share
    torch.testing.assert_close(pi[:, 4], scope)


def test_masks_sum_to_one_from_both_sides_at_extreme_logits() -> None:
    logits = torch.tensor([-200.0, 200.0, 0.0, 60.0]).view(1, 4, 1, 1, 1)
    log_pi = stick_breaking(logits)
    assert log_pi.isfinite().all()
    torch.testing.assert_close(log_pi.logsumexp(1), torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize("shape", [(2, 0, 1, 3, 5), (2, 4, 3, 5)])
def test_stick_breaking_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^logits "):
        stick_breaking(torch.zeros(shape))


@pytest.mark.parametrize("mixture", ["channel", "pixel"])
def test_mixture_against_sum_of_densities(mixture: str) -> None:
    x, mu_x, log_pi = scene()
    density = torch.distributions.Normal(mu_x, 0.3).log_prob(x.unsqueeze(1)).exp()
    if mixture == "channel":
        expected = -(density * log_pi.exp()).sum(1).log().sum((1, 2, 3))
    else:
        joint = density.prod(2, keepdim=True)
        expected = -(joint * log_pi.exp()).sum(1).log().sum((1, 2, 3))
    got = mixture_nll(x, mu_x, log_pi, 0.3, mixture=mixture)  # type: ignore[arg-type]
    torch.testing.assert_close(got, expected)


def test_channel_and_pixel_mixtures_differ() -> None:
    x, mu_x, log_pi = scene()
    channel = mixture_nll(x, mu_x, log_pi, 0.2, mixture="channel")
    pixel = mixture_nll(x, mu_x, log_pi, 0.2, mixture="pixel")
    assert (pixel - channel).abs().min() > 1


def test_mixture_is_finite_at_small_sigma() -> None:
    """The authors' sum of densities underflows to infinity here."""
    x = torch.zeros(1, 3, 1, 1)
    nll = mixture_nll(
        x, torch.ones(1, 2, 3, 1, 1), torch.full((1, 2, 1, 1, 1), math.log(0.5)), 0.05
    )
    expected = 3 * (0.5 / 0.05**2 + math.log(0.05) + 0.5 * math.log(2 * math.pi))
    assert float(nll) == pytest.approx(expected, rel=1e-6)


def test_pixel_weight_scales_each_pixel() -> None:
    x, mu_x, log_pi = scene()
    left = torch.zeros(2, 1, 4, 6, dtype=torch.float64)
    left[..., :3] = 1
    halves = [mixture_nll(x, mu_x, log_pi, 0.7, pixel_weight=w) for w in (left, 1 - left)]
    torch.testing.assert_close(sum(halves), mixture_nll(x, mu_x, log_pi, 0.7))
    torch.testing.assert_close(
        mixture_nll(x, mu_x, log_pi, 0.7, pixel_weight=3 * left), 3 * halves[0]
    )


def test_gaussian_matches_torch() -> None:
    mu, sigma = torch.randn(2, 5, 7), torch.rand(2, 5, 7) + 0.1
    q = Gaussian(mu, sigma)
    eps = torch.randn(2, 5, 7)
    z = q.draw(eps)
    torch.testing.assert_close(z, mu + sigma * eps)
    assert q.draw(None) is mu
    torch.testing.assert_close(
        q.log_prob(z), torch.distributions.Normal(mu, sigma).log_prob(z).sum(-1)
    )


def test_monte_carlo_kl_averages_to_the_closed_form() -> None:
    q = Gaussian(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.8, 0.3]]))
    p = Gaussian(torch.tensor([[0.0, -0.5]]), torch.tensor([[1.0, 0.6]]))
    eps = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    estimate = kl_monte_carlo(q.draw(eps), q, p).mean()
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(*q), torch.distributions.Normal(*p)
    ).sum()
    assert float(estimate) == pytest.approx(float(exact), abs=0.02)


def test_closed_form_kl_is_the_mean_of_the_estimate() -> None:
    q = Gaussian(torch.tensor([[0.3, -1.2]]), torch.tensor([[0.5, 2.0]]))
    p = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(*q), p).sum(-1)
    torch.testing.assert_close(kl_standard_normal(q), expected)


@pytest.mark.parametrize("mixture", ["channel", "pixel"])
def test_joint_log_prob_sums_to_the_likelihood(mixture: Mixture) -> None:
    x, mu_x, log_pi = scene()
    joint = joint_log_prob(x, mu_x, log_pi, 0.3, mixture)
    assert joint.shape == (2, 5, 3 if mixture == "channel" else 1, 4, 6)
    nll = mixture_nll(x, mu_x, log_pi, 0.3, mixture=mixture)
    torch.testing.assert_close(-joint.logsumexp(1).sum((1, 2, 3)), nll)


def test_leave_one_out_leaves_one_out() -> None:
    values = torch.randn(2, 5, 1, 4, 6, dtype=torch.float64)
    got = leave_one_out_logsumexp(values)
    for k in range(5):
        others = torch.cat([values[:, :k], values[:, k + 1 :]], 1)
        torch.testing.assert_close(got[:, k], others.logsumexp(1))


def test_categorical_kl_of_masks() -> None:
    _, _, log_q = scene()
    log_p = log_q.roll(1, 1)
    parts = categorical_kl(log_q, log_p)
    expected = (log_q.exp() * (log_q - log_p)).sum((2, 3, 4))
    torch.testing.assert_close(parts, expected, rtol=1e-3, atol=1e-3)
    assert parts.shape == (2, 5) and bool((parts.sum(1) > 0).all())
    torch.testing.assert_close(categorical_kl(log_q, log_q), torch.zeros(2, 5).double())


def test_categorical_kl_is_bounded_by_its_floor() -> None:
    """Two opposite one-hot masks have a KL of ln(1e5) per pixel, as in the authors' code."""
    log_q = torch.tensor([0.0, -math.inf]).view(1, 2, 1, 1, 1).expand(-1, -1, -1, 3, 4)
    kl = categorical_kl(log_q, log_q.flip(1)).sum(1)
    torch.testing.assert_close(kl, torch.tensor([12 * math.log(1e5)]), rtol=1e-4, atol=0)


def test_responsibilities_follow_bayes_rule() -> None:
    x, mu_x, log_pi = scene()
    p = log_responsibilities(x, mu_x, log_pi, 0.4).exp()
    assert p.shape == log_pi.shape
    for b, i, j in ((0, 0, 0), (1, 3, 5), (1, 2, 4)):
        joint = [
            float(log_pi[b, k, 0, i, j].exp())
            * math.exp(-float((x[b, :, i, j] - mu_x[b, k, :, i, j]).square().sum()) / 0.32)
            for k in range(5)
        ]
        expected = torch.tensor(joint, dtype=torch.float64) / sum(joint)
        torch.testing.assert_close(p[b, :, 0, i, j], expected)


def test_a_pixel_is_assigned_to_the_slot_of_its_colour() -> None:
    x = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    mu_x = torch.tensor([[0.0, 0, 0], [1, 0, 0]]).view(1, 2, 3, 1, 1)
    log_pi = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1, 1)  # the mask says the other
    p = log_responsibilities(x, mu_x, log_pi, 0.3).exp().flatten()
    # .9 exp(-1 / .18) against .1
    assert p[1] == pytest.approx(0.1 / (0.1 + 0.9 * math.exp(-1 / 0.18)))
    blurred = log_responsibilities(x, mu_x, log_pi, 100.0).exp().flatten()
    assert blurred[0] == pytest.approx(
        0.9, abs=1e-4
    )  # for uninformative colours they equal the masks


def mixture() -> GaussianMixture:
    weight = torch.tensor([0.2, 0.5, 0.3])
    mu = torch.tensor([[-2.0, 0.5], [0.0, 1.0], [3.0, -1.0]])
    sigma = torch.tensor([[0.3, 0.2], [0.5, 0.4], [0.2, 1.0]])
    return GaussianMixture(weight.log(), mu, sigma)


def test_a_mixtures_density_is_that_of_its_components() -> None:
    found = mixture().log_prob(torch.tensor([[0.1, 0.9], [3.0, 0.0]]))
    expected = [
        math.log(
            sum(
                w * math.exp(float(Gaussian(m, s).log_prob(torch.tensor(z))))
                for w, m, s in zip((0.2, 0.5, 0.3), mixture().mu, mixture().sigma, strict=True)
            )
        )
        for z in ([0.1, 0.9], [3.0, 0.0])
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_a_mixtures_samples_have_its_moments() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 200_000
    one = mixture()
    many = GaussianMixture(*(v.expand(count, *v.shape) for v in one))
    z = many.draw(torch.randn(count, 2, generator=generator))
    weight = one.log_weight.exp()[:, None]
    mean = (weight * one.mu).sum(0)
    second = torch.einsum("c,ci,cj->ij", weight[:, 0], one.mu, one.mu)
    cov = second + torch.diag((weight * one.sigma.square()).sum(0)) - torch.outer(mean, mean)
    torch.testing.assert_close(z.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.T.cov(), cov, atol=0.03, rtol=0)
    nearest = torch.cdist(z, one.mu).argmin(1)
    share = torch.bincount(nearest[(z[:, 0] < -1) | (z[:, 0] > 2)], minlength=3) / count
    assert share[[0, 2]].tolist() == pytest.approx([0.2, 0.3], abs=0.01)


def test_a_mixture_with_one_weight_is_that_component() -> None:
    z = torch.randn(5, 4)
    expected = standard_normal(z).log_prob(z)
    torch.testing.assert_close(standard_mixture(z, 3).log_prob(z), expected)
    eps = 5 * torch.randn(100, 4)  # far from the middle too, as at a high temperature
    assert torch.equal(standard_mixture(eps, 3).draw(eps), eps)
    assert standard_mixture(z[:, :0], 2).draw(z[:, :0]).shape == (5, 0)
