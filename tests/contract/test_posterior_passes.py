"""Posteriors of several passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.models.genesis import GenesisS

GATED = ["genesis", "genesis_s"]
Build = Callable[..., Any]


@pytest.fixture
def build(small_model: Build) -> Build:
    """Build small models of equal weights for equal names but for the corrector."""

    def build(name: str, passes: int, **changes: Any) -> GenesisS:
        model: GenesisS = small_model(name, posterior_passes=passes, **changes)
        first = small_model(name, **changes).state_dict()
        missing, unexpected = model.load_state_dict(first, strict=False)
        assert not unexpected and all(key.startswith("corrector.") for key in missing)
        return model

    return build


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def wake(model: GenesisS) -> GenesisS:
    """Set the corrector's last layer to random weights, as after training."""
    assert model.corrector is not None
    torch.manual_seed(2)
    torch.nn.init.normal_(model.corrector.head.weight, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", GATED)
def test_initially_it_equals_the_posterior_of_one_pass(build: Build, name: str) -> None:
    x = images(3)
    one, three = build(name, 1).infer(x), build(name, 3).infer(x)
    for part in ("z_m", "z_c", "log_pi"):
        torch.testing.assert_close(getattr(one, part), getattr(three, part))


@torch.no_grad()
@pytest.mark.parametrize("name", GATED)
def test_every_pass_corrects_the_one_before(build: Build, name: str) -> None:
    x = images(2)
    latents = [wake(build(name, passes)).infer(x).z_m for passes in (2, 3)]
    assert (latents[0] - build(name, 1).infer(x).z_m).abs().max() > 1e-3
    assert (latents[1] - latents[0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_correction_depends_on_the_slot_and_no_other_image(build: Build) -> None:
    model = wake(build("genesis", 2, sigma_x=0.05))
    x = images(3)
    torch.testing.assert_close(model.infer(x[1:2]).z_m, model.infer(x).z_m[1:2])
    evidence = model._corrector_inputs(x, torch.randn(3, 3, 14)).unflatten(0, (3, 3))
    assert torch.equal(evidence[1, 2, :3], x[1])
    for share in (evidence[:, :, 3], evidence[:, :, 4]):  # masks, responsibilities
        torch.testing.assert_close(share.sum(1), torch.ones(3, 32, 32))
    assert (evidence[:, :, 3] - evidence[:, :, 4]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("passes", [1, 3])
def test_draws_are_of_the_density_that_is_scored(build: Build, passes: int) -> None:
    model = build("genesis", passes)
    model = wake(model) if passes > 1 else model
    x, noise = images(2), model._noise(images(2), torch.Generator().manual_seed(3))
    slots, q_m = model._infer_slots(x, noise), model._latents(x, noise).q_m
    torch.testing.assert_close(slots.z_m, q_m.mu + q_m.sigma * noise.m)
    torch.testing.assert_close(slots.log_pi, model.decode(slots).log_pi)
    if passes > 1:  # of known parameters, whatever is drawn
        torch.testing.assert_close(q_m.mu, model._latents(x, None).q_m.mu)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
@pytest.mark.parametrize("name", GATED)
def test_every_parameter_has_a_gradient(
    build: Build, name: str, activation_checkpointing: bool
) -> None:
    model = wake(build(name, 2)).train()
    model.activation_checkpointing = activation_checkpointing
    terms = model.elbo(images(4), generator=torch.Generator().manual_seed(4))
    (terms.nll + terms.kl).mean().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
