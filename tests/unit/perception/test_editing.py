"""Edits of slots, exact on hand-made masks."""

import pytest
import torch
from torch import Tensor

from genesis_rl.perception.editing import drop_slot, interpolate, replace_slot, select, set_latent
from genesis_rl.slots import Decoded, Slots

B, K, D_M, D_C, H, W = 2, 5, 7, 3, 4, 6


def make_slots(seed: int, batch: int = B, *, d_m: int = D_M, num_slots: int = K) -> Slots:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, num_slots, *shape, generator=generator)

    return Slots(normal(d_m), normal(D_C), normal(1, H, W).log_softmax(1))


def pi(slots: Slots | Decoded) -> Tensor:
    return slots.log_pi.exp()


def others(values: Tensor, slot: int) -> Tensor:
    return values[:, [k for k in range(values.shape[1]) if k != slot]]


def test_select_takes_scenes() -> None:
    slots = make_slots(0, 3)
    for index in (slice(1, 3), [2, 0, 2], torch.tensor([1])):
        taken = select(slots, index)
        assert torch.equal(taken.z_m, slots.z_m[index])
        assert torch.equal(taken.z_c, slots.z_c[index])
        assert torch.equal(taken.log_pi, slots.log_pi[index])


@pytest.mark.parametrize("batch", [1, B])
@pytest.mark.parametrize("slot", [0, 2, K - 1])
@pytest.mark.parametrize("donor_slot", [None, 1])
def test_replace_slot(batch: int, slot: int, donor_slot: int | None) -> None:
    slots, donor = make_slots(0, batch), make_slots(1, batch)
    before = [value.clone() for value in (slots.z_m, slots.z_c, slots.log_pi)]
    source = slot if donor_slot is None else donor_slot
    edited = replace_slot(slots, slot, donor, donor_slot=donor_slot)
    for name in ("z_m", "z_c"):
        new, old = getattr(edited, name), getattr(slots, name)
        assert torch.equal(new[:, slot], getattr(donor, name)[:, source])
        assert torch.equal(others(new, slot), others(old, slot))
    # The new slot's mask is the donor's; the others share the rest as they did.
    torch.testing.assert_close(pi(edited)[:, slot], pi(donor)[:, source])
    torch.testing.assert_close(pi(edited).sum(1), torch.ones(batch, 1, H, W))
    shares = others(pi(slots), slot)
    shares = shares / shares.sum(1, keepdim=True)
    left = 1 - pi(donor)[:, source].unsqueeze(1)
    torch.testing.assert_close(others(pi(edited), slot), left * shares)
    # What went in is as it was.
    after = (slots.z_m, slots.z_c, slots.log_pi)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_replacing_a_slot_by_itself_changes_nothing() -> None:
    slots = make_slots(0)
    torch.testing.assert_close(replace_slot(slots, 3, slots).log_pi, slots.log_pi)


def test_a_swap_twice_is_none() -> None:
    first, second = make_slots(0), make_slots(1)
    once = replace_slot(first, 1, second), replace_slot(second, 1, first)
    again = replace_slot(once[0], 1, once[1])
    torch.testing.assert_close(again.features, first.features)
    torch.testing.assert_close(again.log_pi, first.log_pi)


def test_a_mask_of_one_leaves_the_others_nothing_and_stays_finite() -> None:
    slots, donor = make_slots(0), make_slots(1)
    full = torch.full_like(donor.log_pi, -200.0)
    full[:, 2] = 0
    edited = replace_slot(slots, 2, Slots(donor.z_m, donor.z_c, full))
    assert edited.log_pi.isfinite().all()
    torch.testing.assert_close(pi(edited)[:, 2], torch.ones(B, 1, H, W))
    assert float(others(pi(edited), 2).max()) < 1e-6


def test_the_only_slot_is_replaced_whole() -> None:
    slots, donor = (make_slots(seed, d_m=0, num_slots=1) for seed in (0, 1))
    edited = replace_slot(slots, 0, donor)
    assert torch.equal(edited.features, donor.features)
    assert torch.equal(edited.log_pi, torch.zeros(B, 1, 1, H, W))


@pytest.mark.parametrize("slot", [0, 2, K - 1])
def test_drop_slot_keeps_the_others_shares(slot: int) -> None:
    slots = make_slots(0)
    mu_x = torch.rand(B, K, 3, H, W, generator=torch.Generator().manual_seed(2))
    dropped = drop_slot(Decoded(mu_x, slots.log_pi), slot)
    assert torch.equal(dropped.mu_x, others(mu_x, slot))
    torch.testing.assert_close(pi(dropped).sum(1), torch.ones(B, 1, H, W))
    shares = others(pi(slots), slot)
    torch.testing.assert_close(pi(dropped), shares / shares.sum(1, keepdim=True))


def test_drop_slot_where_it_had_every_pixel() -> None:
    # The others had 3 : 1 of nearly nothing, and in the right half exactly nothing.
    log_pi = torch.tensor([-90.0, 0.0, -90.0 + torch.tensor(3.0).log().item()])
    log_pi = log_pi.view(1, 3, 1, 1, 1).repeat(1, 1, 1, H, W)
    log_pi[:, [0, 2], :, :, W // 2 :] = -torch.inf
    dropped = drop_slot(Decoded(torch.zeros(1, 3, 3, H, W), log_pi), 1)
    expected = torch.full((1, 2, 1, H, W), 0.5)
    expected[:, 0, ..., : W // 2], expected[:, 1, ..., : W // 2] = 0.25, 0.75
    torch.testing.assert_close(pi(dropped), expected, rtol=1e-4, atol=0)


def test_without_any_slot_the_image_is_black() -> None:
    dropped = drop_slot(Decoded(torch.ones(B, 1, 3, H, W), torch.zeros(B, 1, 1, H, W)), 0)
    assert dropped.mu_x.shape == (B, 0, 3, H, W)
    assert torch.equal(dropped.image, torch.zeros(B, 3, H, W))


@pytest.mark.parametrize("d_m", [D_M, 0])
def test_set_latent(d_m: int) -> None:
    slots = make_slots(0, d_m=d_m)
    for dimension in (0, d_m, d_m + D_C - 1):
        for value in (4.0, torch.tensor([1.0, -2.0])):
            edited = set_latent(slots, 2, dimension, value)
            expected = slots.features
            expected[:, 2, dimension] = torch.as_tensor(value)
            assert torch.equal(edited.features, expected)
            assert edited.z_m.shape == slots.z_m.shape
            assert torch.equal(edited.log_pi, slots.log_pi)


def test_set_another_latent_in_each_scene() -> None:
    slots = make_slots(0)
    edited = set_latent(slots, 1, torch.tensor([6, 8]), torch.tensor([9.0, -9.0]))
    assert (float(edited.z_m[0, 1, 6]), float(edited.z_c[1, 1, 1])) == (9.0, -9.0)
    assert int((edited.features != slots.features).sum()) == 2


def test_interpolate() -> None:
    first, second = make_slots(0), make_slots(1)
    for weight in (0.25, torch.tensor([0.25, 0.25])):
        mixed = interpolate(first, second, weight)
        torch.testing.assert_close(mixed.z_m, 0.75 * first.z_m + 0.25 * second.z_m)
        torch.testing.assert_close(mixed.z_c, 0.75 * first.z_c + 0.25 * second.z_c)
        torch.testing.assert_close(pi(mixed), 0.75 * pi(first) + 0.25 * pi(second))
    ends = interpolate(first, second, torch.tensor([0.0, 1.0]))
    for end, scene in ((0, first), (1, second)):
        torch.testing.assert_close(ends.features[end], scene.features[end])
        torch.testing.assert_close(ends.log_pi[end], scene.log_pi[end])


def test_bad_input_is_named() -> None:
    slots, decoded = make_slots(0), Decoded(torch.zeros(1, 3, 3, H, W), torch.zeros(1, 3, 1, H, W))
    with pytest.raises(ValueError, match=r"^slot "):
        replace_slot(slots, 5, slots)
    with pytest.raises(ValueError, match=r"^donor_slot "):
        replace_slot(slots, 1, slots, donor_slot=-1)
    with pytest.raises(ValueError, match=r"^donor\.z_m .*\(2, 0\)"):
        replace_slot(slots, 1, make_slots(1, d_m=0))
    with pytest.raises(ValueError, match=r"^donor\.z_m .*\(1, 7\)"):
        replace_slot(slots, 1, make_slots(1, 1))
    with pytest.raises(ValueError, match=r"^slot "):
        drop_slot(decoded, 3)
    with pytest.raises(ValueError, match=r"^dimension "):
        set_latent(slots, 0, D_M + D_C, 0.0)
    with pytest.raises(ValueError, match=r"^second "):
        interpolate(slots, make_slots(1, 1), 0.5)
    with pytest.raises(ValueError, match=r"^weight "):
        interpolate(slots, slots, 1.5)
