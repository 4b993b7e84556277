"""IODINE: its iterations against a direct computation of the equations."""

import math

import pytest
import torch
from torch import Tensor

from genesis_rl.models.iodine import Iodine, IodineConfig
from genesis_rl.models.likelihood import Mixture, kl_standard_normal
from genesis_rl.slots import Noise

K, D, SIDE, SIGMA = 3, 4, 32, 0.3


def build(**changes: object) -> Iodine:
    values: dict[str, object] = {
        "image_size": SIDE,
        "num_slots": K,
        "num_iterations": 2,
        "component_latent_size": D,
        "kernel_size": 3,
        "decoder_channels": 4,
        "refinement_channels": (4, 6),
        "refinement_size": 12,
        "refinement_lstm_size": 10,
        "sigma_x": SIGMA,
    }
    torch.manual_seed(0)
    return Iodine(IodineConfig(**(values | changes)))  # type: ignore[arg-type]


def squares(count: int) -> Tensor:
    """A red and a green square at random places on black."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, SIDE - 12, (count, 2, 2), generator=generator).tolist()
    x = torch.zeros(count, 3, SIDE, SIDE)
    for i, squares in enumerate(places):
        for colour, (row, column) in enumerate(squares):
            x[i, :, row : row + 12, column : column + 12] = 0
            x[i, colour, row : row + 12, column : column + 12] = 1
    return x


def log_normal(x: Tensor, mu: Tensor) -> Tensor:
    return -0.5 * ((x - mu) / SIGMA) ** 2 - math.log(SIGMA * math.sqrt(2 * math.pi))


def normed(x: Tensor) -> Tensor:
    return (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)


def slow_elbo(
    model: Iodine, x: Tensor, inner: Tensor, last: Tensor, mixture: Mixture
) -> list[tuple[float, Tensor]]:
    """(nll, KL of every slot) of one image after each update, slot by slot.

    Args:
        model: gives the networks.
        x: image, (3, H, W).
        inner: noise (T, K, D) of the samples on the way.
        last: noise (K, D) of the last.
        mixture: per pixel or per channel.
    """
    lam = [torch.cat([model.first_mean, model.first_sigma]).detach() for _ in range(K)]
    states = [None] * K
    bounds = []
    for t, noise in enumerate([*inner, last]):
        lam = [part.detach().requires_grad_() for part in lam]
        mu, sigma = zip(
            *((p[:D], torch.log(1 + torch.exp(p[D:] + 0.5)) + 1e-8) for p in lam), strict=True
        )
        raw = [model.decoder((mu[k] + sigma[k] * noise[k])[None])[0] for k in range(K)]
        colour = [torch.sigmoid(r[:3]) for r in raw]
        logits = [r[3:] for r in raw]
        total = torch.stack([logit.exp() for logit in logits]).sum(0)
        masks = [logit.exp() / total for logit in logits]
        fit = [log_normal(x, c) for c in colour]
        if mixture == "pixel":
            fit = [f.sum(0, keepdim=True) for f in fit]
        p = torch.stack([m * f.exp() for m, f in zip(masks, fit, strict=True)]).sum(0)
        nll = -p.log().sum()
        kl = torch.stack(
            [(0.5 * (m**2 + s**2 - 1) - s.log()).sum() for m, s in zip(mu, sigma, strict=True)]
        )
        if t > 0:
            bounds.append((float(nll.detach()), kl.detach()))
        if t == len(inner):
            return bounds
        by_lam, by_colour, by_logit = (
            torch.autograd.grad(nll + kl.sum(), wanted, retain_graph=True)
            for wanted in (lam, colour, logits)
        )
        everyone = torch.stack([f.exp() for f in fit]).sum(0)
        for k in range(K):
            rest = [j for j in range(K) if j != k]
            without = torch.stack([masks[j] * fit[j].exp() for j in rest]).sum(0)
            without = without / torch.stack([masks[j] for j in rest]).sum(0)
            posterior = fit[k].exp() / everyone
            maps = [
                x,
                colour[k],
                masks[k],
                logits[k],
                posterior.mean(0, keepdim=True),
                normed(by_colour[k]),
                normed(by_logit[k]),
                normed(p.log().sum(0, keepdim=True)),
                normed((p / without).log().sum(0, keepdim=True)),
                model.coordinates[0],
            ]
            vectors = torch.cat([lam[k], normed(by_lam[k])])[None]
            update, states[k] = model.refinement(torch.cat(maps)[None], vectors, states[k])
            lam[k] = lam[k] + update[0]
    return bounds


@pytest.mark.parametrize(("mixture", "kernel"), [("pixel", 3), ("channel", 3), ("pixel", 5)])
def test_bound_equals_the_slow_computation(mixture: Mixture, kernel: int) -> None:
    model = build(mixture=mixture, kernel_size=kernel).double().eval()
    x = squares(2).double()
    noise = Noise(
        torch.zeros(2, K, 0),
        torch.randn(2, K, D, dtype=torch.float64),
        torch.randn(2, 2, K, D, dtype=torch.float64),
    )
    assert noise.inner is not None
    with torch.no_grad():
        terms = model._score(x, noise, None)
        weighted = model.train()._score(x, noise, None)
    for i in range(2):
        first, last = slow_elbo(model, x[i], noise.inner[i], noise.c[i], mixture)
        assert float(terms.nll[i]) == pytest.approx(last[0], rel=1e-9)
        torch.testing.assert_close(terms.kl_c[i], last[1])
        # In training the bounds after updates 1 and 2 have weights 1/2 and 2/2, scaled to sum to 1.
        mean = (0.5 * first[0] + last[0]) / 1.5
        assert float(weighted.nll[i]) == pytest.approx(mean, rel=1e-9)
        torch.testing.assert_close(weighted.kl_c[i], (0.5 * first[1] + last[1]) / 1.5)
    assert torch.equal(terms.kl_m, torch.zeros(2, K))


def test_means_break_the_slots_symmetry() -> None:
    model = build().eval()
    slots = model.infer(squares(1))
    for k in range(1, K):
        assert (slots.z_c[0, 0] - slots.z_c[0, k]).abs().max() > 1e-3
    # The result is a mean, equal for another model with the same seed.
    assert torch.equal(build().eval().infer(squares(1)).z_c, slots.z_c)


def test_gradients_reach_the_first_posterior_through_every_update() -> None:
    model = build(num_iterations=3).train()
    model(squares(2)).nll.sum().backward()
    for parameter in (model.first_mean, model.first_sigma):
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


def test_likelihoods_and_gradients_are_not_differentiated_again() -> None:
    model = build(num_iterations=1).train()
    seen: list[Tensor] = []
    model.refinement.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(squares(1))
    weight = model.decoder.head.weight
    sizes = {"image": 3, "component": 3, "mask": 1, "logit": 1, "posterior": 1, "rest": 8}
    moves = set()
    for name, maps in zip(sizes, seen[0].split(list(sizes.values()), 1), strict=True):
        (by_maps,) = torch.autograd.grad(maps.square().sum(), weight, retain_graph=True)
        if by_maps.any():
            moves.add(name)
    assert moves == {"component", "mask", "logit", "posterior"}


def test_a_slot_that_explains_a_pixel_far_better_stays_finite() -> None:
    model = build(sigma_x=0.005).train()
    terms = model(squares(2))
    (terms.nll.mean() + terms.kl.mean()).backward()
    assert terms.nll.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_after_a_short_training_the_updates_lower_the_loss() -> None:
    model = build(num_iterations=3, decoder_channels=8, refinement_channels=(8, 8)).train()
    x = squares(64)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        terms = model(x[torch.randint(0, 64, (8,), generator=generator)], generator=generator)
        loss = terms.nll.mean() + terms.kl.mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 100
    with torch.no_grad():
        steps = model.eval()._iterate(x[:16], None)
        bounds = [
            float((model.nll(x[:16], s.decoded) + kl_standard_normal(s.q).sum(1)).mean())
            for s in steps
        ]
    assert bounds[0] > bounds[-1]
