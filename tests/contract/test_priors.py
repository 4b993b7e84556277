"""Autoregressive priors, and the ablation with independent slots."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.checkpoints.loading import (
    _FIRST_NAMES,
    _YOUNGEST_DEFAULTS,
    fingerprint,
    load_pretrained,
    save_pretrained,
)
from genesis_rl.models import MODELS
from genesis_rl.models.prior import CouplingFlow, SceneBuilder
from genesis_rl.slots import Noise

K = 3
NAMES = ["genesis", "genesis_s", "genesis_v2"]
GATED = ["genesis", "genesis_s"]
Build = Callable[..., Any]


@pytest.fixture
def build(small_model: Build) -> Build:
    def build(name: str, **changes: Any) -> Any:
        model = small_model(name, **changes)
        with torch.no_grad():  # distributions that depend on the slots clearly
            model.prior_lstm.weight_ih.mul_(5)
            model.prior_head.weight.mul_(5)
            for flow in (m for m in model.modules() if isinstance(m, CouplingFlow)):
                for parameter in flow.parameters():
                    parameter.normal_(0, 0.3)
        return model

    return build


def noise(model: Any, batch: int) -> Noise:
    generator = torch.Generator().manual_seed(1)
    m, c = (torch.randn(batch, K, d, generator=generator) for d in model.latent_sizes)
    return Noise(m, c)


def built(model: Any, eps: Noise) -> tuple[Tensor, Tensor]:
    """Draw scenes slot by slot, (B, K, D), with the log densities of their slots, (B, K)."""
    z: list[Tensor] = []
    log_p: list[Tensor] = []
    state = None
    for k in range(K):
        slot = model.next_slot(Noise(eps.m[:, k], eps.c[:, k]), z[-1] if z else None, state)
        state = slot.state
        z.append(torch.cat([slot.z_m, slot.z_c], 1))
        log_p.append(slot.log_p)
    return torch.stack(z, 1), torch.stack(log_p, 1)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in NAMES),
        ("genesis", {"prior_components": 3}),
        ("genesis_s", {"prior_components": 2, "background": "static"}),
        ("genesis", {"prior_components": 2, "background": "static"}),
        ("genesis", {"prior_components": 2, "prior_flow_layers": 3}),
        ("genesis_s", {"prior_flow_layers": 2, "background": "static"}),
        ("genesis", {"prior_flow_layers": 2, "background": "static"}),
    ],
)
@torch.no_grad()
def test_slot_by_slot_is_sampling(build: Build, name: str, changes: dict[str, Any]) -> None:
    model = build(name, **changes)
    assert issubclass(type(model), SceneBuilder)
    eps = noise(model, 3)
    scenes, log_p = built(model, eps)
    sampled = model._generate(eps)
    torch.testing.assert_close(scenes, sampled.features)
    # The density is that of the prior in the ELBO.
    if name == "genesis_v2":
        expected = model._prior_of(sampled.z_c).log_prob(sampled.z_c)
    else:
        p_m, p_c = model._priors(sampled.z_m)
        expected = p_m.log_prob(sampled.z_m) + p_c.log_prob(sampled.z_c)
    torch.testing.assert_close(log_p, expected)


def test_a_flow_is_inverted_with_its_jacobian() -> None:
    torch.manual_seed(0)
    flow = CouplingFlow(5, 2, 8, 3).double()
    u, context = torch.randn(4, 5).double(), torch.randn(4, 2).double()
    torch.testing.assert_close(flow(u, context), u, atol=0.02, rtol=0)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z = flow(u, context)
    again, log_det = flow.inverse(z, context)
    torch.testing.assert_close(again, u)
    for row in range(4):
        jacobian = torch.func.jacrev(flow)(u[row], context[row])
        torch.testing.assert_close(log_det[row], -jacobian.det().abs().log())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_candidates_share_the_slots_before(build: Build, name: str) -> None:
    model = build(name)
    eps = noise(model, 6)
    first = model.next_slot(Noise(eps.m[:1, 0], eps.c[:1, 0]))
    before = torch.cat([first.z_m, first.z_c], 1)
    together = model.next_slot(Noise(eps.m[:, 1], eps.c[:, 1]), before, first.state)
    for row in range(6):
        alone = model.next_slot(
            Noise(eps.m[row : row + 1, 1], eps.c[row : row + 1, 1]), before, first.state
        )
        torch.testing.assert_close(alone.z_c[0], together.z_c[row])
        torch.testing.assert_close(alone.log_p[0], together.log_p[row])


def test_models_without_such_a_prior() -> None:
    for name in set(MODELS) - set(NAMES):
        assert not issubclass(MODELS[name][1], SceneBuilder), name


@pytest.mark.parametrize("name", GATED)
@torch.no_grad()
def test_slots_of_the_ablation_are_independent(build: Build, name: str) -> None:
    """The prior of a slot depends on the slots before, except in the ablation."""
    z = torch.randn(2, K, 7, generator=torch.Generator().manual_seed(2))
    moved = z.clone()
    moved[:, 1] += 1
    for prior in ("autoregressive", "independent"):
        model = build(name, prior=prior)
        before, after = model._prior_of(z), model._prior_of(moved)
        same = (before.mu == after.mu).flatten(2).all(2).all(0)
        assert same.tolist() == [True, True, prior == "independent"]
        if prior == "independent":  # one Gaussian per slot, whatever the scene, none like another
            torch.testing.assert_close(before.mu[0], before.mu[1])
            assert (before.mu[0, 1] - before.mu[0, 2]).abs().max() > 1e-3
            assert torch.equal(before.sigma[:, 0], torch.ones(2, 7))


@torch.no_grad()
def test_the_ablation_changes_nothing_but_the_prior(build: Build) -> None:
    full, ablated = build("genesis"), build("genesis", prior="independent")
    ablated.load_state_dict(full.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    one, other = full.elbo(x, sample=False), ablated.elbo(x, sample=False)
    assert torch.equal(one.nll, other.nll) and torch.equal(one.kl_c, other.kl_c)
    assert torch.equal(one.kl_m[:, 0], other.kl_m[:, 0])
    assert not torch.equal(one.kl_m[:, 1:], other.kl_m[:, 1:])


def test_the_ablation_trains(build: Build) -> None:
    model = build("genesis", prior="independent").train()
    model.elbo(torch.rand(4, 3, 32, 32)).kl.mean().backward()
    for name in ("prior_lstm.weight_hh", "prior_lstm.bias_ih", "prior_head.weight"):
        assert model.get_parameter(name).grad.abs().max() > 0, name


@pytest.mark.parametrize("prior", ["autoregressive", "independent"])
def test_it_is_saved(build: Build, prior: str, tmp_path: Path) -> None:
    save_pretrained(build("genesis_s", prior=prior), tmp_path)
    loaded = load_pretrained(tmp_path, device="cpu").model
    assert loaded.config.prior == prior
    assert loaded.conditional is (prior == "autoregressive")  # type: ignore[attr-defined]


def test_models_from_before_the_option_keep_their_fingerprint(build: Build) -> None:
    model = build("genesis", **_YOUNGEST_DEFAULTS, mask_broadcast_channels=32)
    younger = (
        "prior",
        "posterior_sigma_bias",
        "mask_decoder",
        "mask_broadcast_channels",
        "component_decoder",
        *_YOUNGEST_DEFAULTS,
    )
    fields = [f for f in dataclasses.fields(model.config) if f.name not in younger]
    first = {f.name: _FIRST_NAMES.get(f.name, f.name) for f in fields}
    values = ", ".join(f"{old}={getattr(model.config, new)!r}" for new, old in first.items())
    digest = hashlib.sha256(f"Genesis GenesisConfig({values})".encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    assert fingerprint(model) == digest.hexdigest()
    ablated = build("genesis", **_YOUNGEST_DEFAULTS, prior="independent")
    ablated.load_state_dict(model.state_dict())
    assert fingerprint(ablated) != fingerprint(model)


@pytest.mark.parametrize("name", GATED)
def test_other_priors(build: Build, name: str) -> None:
    with pytest.raises(ValueError, match=r"^prior "):
        build(name, prior="flat")
