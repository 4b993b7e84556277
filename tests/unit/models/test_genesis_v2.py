"""GENESIS-V2's attention: seeds, masks and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.models.genesis_v2 import GenesisV2, PixelEmbedding
from genesis_rl.slots import Slots

K, SIDE = 4, 32
Build = Callable[..., Any]


@pytest.fixture
def model(small_model: Build) -> GenesisV2:
    found: GenesisV2 = small_model("genesis_v2", num_slots=K)
    return found


def images() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_seeds_maximise_seed_map_times_remaining_scope(model: GenesisV2) -> None:
    embedding = torch.randn(2, 8, SIDE, SIDE, dtype=torch.float64)
    seeds = torch.rand(2, 1, SIDE, SIDE, dtype=torch.float64)
    log_pi, positions = model._attend(embedding, seeds)
    assert positions.shape == (2, K - 1)
    for i in range(2):
        scope = torch.ones(SIDE, SIDE, dtype=torch.float64)
        for k in range(K - 1):
            position = int((scope * seeds[i, 0]).argmax())
            assert position == int(positions[i, k])
            row, column = divmod(position, SIDE)
            offset = embedding[i] - embedding[i, :, row, column, None, None]
            alpha = torch.exp(-offset.square().sum(0) / model.log_sigma.exp()).clamp(0.01, 0.99)
            torch.testing.assert_close(log_pi[i, k, 0].exp(), scope * alpha)
            scope = scope * (1 - alpha)
        torch.testing.assert_close(log_pi[i, -1, 0].exp(), scope)


def test_the_clamp_lets_gradients_through(model: GenesisV2) -> None:
    embedding = torch.zeros(1, 2, SIDE, SIDE)
    embedding[0, 0] = torch.linspace(0, 9, SIDE)  # far beyond the clamp's lower end
    embedding.requires_grad_()
    seeds = torch.rand(1, 1, SIDE, SIDE)
    log_pi, _ = model._attend(embedding, seeds)
    assert float(log_pi.detach().exp().min()) < 0.011
    log_pi[:, 0, 0, :, SIDE // 2 + 1].sum().backward()
    assert embedding.grad is not None and embedding.grad.isfinite().all()
    assert embedding.grad.abs().max() > 0


@torch.no_grad()
def test_seeds_come_from_the_generator_or_are_fixed(model: GenesisV2) -> None:
    x = images()[:1].expand(2, -1, -1, -1)
    fixed = model.infer(x).log_pi
    torch.testing.assert_close(fixed[0], fixed[1])  # the same image, the same seeds
    generator = torch.Generator().manual_seed(0)
    drawn = model.infer(x, sample=True, generator=generator).log_pi
    assert (drawn[0] - drawn[1]).abs().max() > 0.1
    assert torch.equal(model.fixed_seeds, GenesisV2(model.config).fixed_seeds)


def test_the_embedding_starts_as_the_position() -> None:
    embedding = PixelEmbedding(6, 5, SIDE)
    x = torch.rand(2, 6, SIDE, SIDE)
    y = embedding(x)
    assert torch.equal(y[:, :3], torch.zeros(2, 3, SIDE, SIDE))
    assert y[0, 3, :, 0].tolist() == pytest.approx(torch.linspace(-1, 1, SIDE).tolist())  # rows
    assert y[0, 4, 0].tolist() == pytest.approx(torch.linspace(-1, 1, SIDE).tolist())
    y.square().sum().backward()
    # At the first step only the gate has a gradient.
    assert embedding.gate.grad is not None and embedding.gate.grad != 0
    assert embedding.conv.weight.grad is not None and not embedding.conv.weight.grad.any()


def test_the_mask_loss_moves_the_attention_only(model: GenesisV2, small_model: Build) -> None:
    without, model = model, small_model("genesis_v2", num_slots=K, mask_loss=True).train()
    kl_m = model(images()).kl_m
    assert bool((kl_m.sum(1) > 0).all())
    kl_m.sum().backward()
    assert model.decoder.head.weight.grad is None
    assert model.log_sigma.grad is not None and model.log_sigma.grad != 0
    assert not without(images()).kl_m.any()


@torch.no_grad()
def test_masks_of_decoded_slots(model: GenesisV2, small_model: Build) -> None:
    """GENESIS-V2 decodes masks from the latents; MONet keeps those of the slots."""
    slots = model.infer(images())
    decoded = model.decode(slots).log_pi
    assert (decoded - slots.log_pi).abs().max() > 0.1
    uniform = Slots(slots.z_m, slots.z_c, torch.full_like(slots.log_pi, 1 / K).log())
    assert torch.equal(model.decode(uniform).log_pi, decoded)
    monet = small_model("monet", num_slots=K)
    slots = monet.infer(images())
    assert torch.equal(monet.decode(slots).log_pi, slots.log_pi)
    assert (monet._decode_components(slots.z_c).log_pi - slots.log_pi).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"^slots\.log_pi "):
        monet.decode(Slots(slots.z_m, slots.z_c, slots.log_pi[..., :16]))
