"""Importance weights of every model against the likelihood of its samples and the bound."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.evaluation.metrics import bounds
from genesis_rl.models import MODELS
from genesis_rl.models.likelihood import Mixture, mixture_nll
from genesis_rl.slots import Decoded

SIDE, DRAWS = 32, 300
# With these sigma_x, latents affect the likelihood, and DRAWS samples suffice to estimate it.
SIGMA_X = {"monet": 0.4, "bd_vae": 0.2, "dc_vae": 0.05, "genesis_v2": 0.8, "iodine": 0.7}
NARROW = {"num_slots": 2, "mask_latent_size": 1, "component_latent_size": 1, "latent_size": 1}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest, small_model: Callable[..., Any]) -> Any:
    name: str = request.param
    fields = {field.name for field in dataclasses.fields(MODELS[name][0])}
    changes = {
        field: value for field, value in (NARROW | {"mask_loss": True}).items() if field in fields
    }
    # The posterior is twice as wide as the prior, so weights without its density are wrong.
    return small_model(name, posterior_sigma_min=1.0, sigma_x=SIGMA_X.get(name, 0.5), **changes)


@pytest.fixture
def x() -> Tensor:
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return image.expand(DRAWS, -1, -1, -1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def nll(model: Any, x: Tensor, decoded: Decoded) -> Tensor:
    mixture: Mixture = getattr(model.config, "mixture", "channel")
    return mixture_nll(x, decoded.mu_x, decoded.log_pi, model.config.sigma_x, mixture=mixture)


@torch.no_grad()
def test_weights_average_to_the_likelihood_of_samples(model: Any, x: Tensor) -> None:
    log_p = -nll(model, x, model.decode(model.sample(DRAWS, generator=generator())))
    weights = model.log_weight(x, generator=generator())
    assert weights.shape == (DRAWS,)
    estimate, expected = (bounds(values.unsqueeze(1)).iwae for values in (weights, log_p))
    torch.testing.assert_close(estimate, expected, atol=0.4, rtol=0)


@torch.no_grad()
def test_log_weights_average_to_the_bound(model: Any, x: Tensor) -> None:
    weights = model.log_weight(x, generator=generator())
    terms = model.elbo(x, generator=generator())
    score = terms.nll
    if hasattr(model, "attention"):  # its bound has masks that samples do not have
        slots = model.infer(x, sample=True, generator=generator())
        score = nll(model, x, model._decode_components(slots.z_c))
    kl = terms.kl_c.sum(1)
    if model.latent_sizes[0] > 0:  # otherwise kl_m is not a latent's KL
        kl = kl + terms.kl_m.sum(1)
    # Weights and bound use the same draws.
    if hasattr(model, "refinement"):  # IODINE's bound has the KL in closed form
        noise = -weights - score - kl
        assert noise.std() > 0.1
        torch.testing.assert_close(noise.mean(), torch.tensor(0.0), atol=0.4, rtol=0)
    else:
        torch.testing.assert_close(weights, -(score + kl), atol=1e-2, rtol=0)


def test_images_of_another_size_raise(model: Any) -> None:
    with pytest.raises(ValueError, match=r"^x "):
        model.log_weight(torch.rand(2, 3, 16, 32))
