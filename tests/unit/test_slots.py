"""Slots, components and ELBO terms: shapes, geometry of masks."""

import re

import pytest
import torch
from torch import Tensor

from genesis_rl.models import MODELS, build_model
from genesis_rl.slots import Decoded, ElboTerms, SceneModel, Slots, check_shape

K, D_M, D_C, H, W = 5, 7, 3, 4, 6


def slots(pi: Tensor) -> Slots:
    """Build slots of given masks, (B, K, H, W)."""
    b, k = pi.shape[:2]
    return Slots(torch.zeros(b, k, D_M), torch.zeros(b, k, D_C), pi.log()[:, :, None])


@pytest.mark.parametrize("b", [1, 2])
def test_features_are_both_latents(b: int) -> None:
    z_m, z_c = torch.randn(b, K, D_M), torch.randn(b, K, D_C)
    features = Slots(z_m, z_c, torch.zeros(b, K, 1, H, W)).features
    assert features.shape == (b, K, D_M + D_C)
    assert torch.equal(features[..., :D_M], z_m) and torch.equal(features[..., D_M:], z_c)


def test_a_latent_may_have_width_zero() -> None:
    z_m = torch.randn(2, K, D_M)
    assert torch.equal(Slots(z_m, z_m[..., :0], torch.zeros(2, K, 1, H, W)).features, z_m)


@pytest.mark.parametrize(
    ("z_m", "z_c", "log_pi", "message"),
    [
        ((2, D_M), (2, K, D_C), (2, K, 1, H, W), r"^z_m .*\(2, 7\)"),
        ((2, K, D_M), (1, K, D_C), (2, K, 1, H, W), r"^z_c .*\(1, 5, 3\)"),
        ((2, K, D_M), (2, 4, D_C), (2, K, 1, H, W), r"^z_c .*\(2, 4, 3\)"),
        ((2, K, D_M), (2, K, D_C), (2, K, H, W), r"^log_pi .*\(2, 5, 4, 6\)"),
        ((2, K, D_M), (2, K, D_C), (2, K, 3, H, W), r"^log_pi .*\(2, 5, 3, 4, 6\)"),
    ],
)
def test_slots_of_other_shapes_are_refused(
    z_m: tuple[int, ...], z_c: tuple[int, ...], log_pi: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Slots(torch.zeros(z_m), torch.zeros(z_c), torch.zeros(log_pi))


def test_check_shape() -> None:
    value = torch.zeros(2, 3, 4)
    check_shape(value, (2, 3, 4), "x")
    check_shape(value, (None, 3, None), "x")
    check_shape(torch.tensor(0.0), (), "x")
    for expected, shape in (
        ((2, 3), "(2, 3)"),
        ((2, 3, 4, 1), "(2, 3, 4, 1)"),
        ((None, 4, None), "(any, 4, any)"),
        ((), "()"),
    ):
        with pytest.raises(ValueError, match=f"^x .*{re.escape(shape)}.*2, 3, 4"):
            check_shape(value, expected, "x")


def test_geometry_of_hand_made_masks() -> None:
    pi = torch.zeros(2, K, H, W)
    pi[0, 0] = 0.5  # half of everything
    pi[0, 1, 0, 0] = 1  # the top left pixel
    pi[0, 2, H - 1] = 1  # the bottom row
    pi[0, 3, :, W - 1] = 0.25  # the right column, thin
    # Slot 4 is empty.
    pi[1, 0, 1, 2:4] = torch.tensor([1.0, 0.5])
    geometry = slots(pi).mask_geometry()
    assert geometry.shape == (2, K, 3)
    column = (1.0 * (-1 / 5) + 0.5 * (1 / 5)) / 1.5  # pixel centres lie at -1, -3/5, ..., 1
    expected = torch.tensor([[0, 0, 0.5], [-1, -1, 1 / 24], [1, 0, 6 / 24], [0, 1, 1 / 24]])
    torch.testing.assert_close(geometry[0, :4], expected)
    torch.testing.assert_close(geometry[1, 0], torch.tensor([-1 / 3, column, 1.5 / 24]))
    assert torch.equal(geometry[0, 4], torch.zeros(3))
    assert torch.equal(geometry[1, 1:], torch.zeros(K - 1, 3))


def test_geometry_of_an_empty_mask_has_no_nan_in_its_gradient() -> None:
    log_pi = torch.full((1, 2, 1, H, W), -200.0, requires_grad=True)
    geometry = Slots(torch.zeros(1, 2, D_M), torch.zeros(1, 2, D_C), log_pi).mask_geometry()
    geometry.sum().backward()
    assert log_pi.grad is not None and log_pi.grad.isfinite().all()


def test_areas_of_masks_that_share_the_image_sum_to_one() -> None:
    pi = torch.rand(2, K, H, W).softmax(1)
    torch.testing.assert_close(slots(pi).mask_geometry()[..., 2].sum(1), torch.ones(2))


def test_the_image_is_the_mixtures_mean() -> None:
    log_pi = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1, 1).expand(1, 2, 1, H, W)
    mu_x = torch.stack([torch.zeros(3, H, W), torch.ones(3, H, W)])[None]
    image = Decoded(mu_x, log_pi).image
    assert image.shape == (1, 3, H, W)
    torch.testing.assert_close(image, torch.full((1, 3, H, W), 0.75))


def test_kl_sums_both_kinds_over_slots() -> None:
    terms = ElboTerms(torch.zeros(2), torch.ones(2, K), torch.full((2, K), 2.0))
    assert torch.equal(terms.kl, torch.full((2,), 15.0))


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_the_protocol(name: str) -> None:
    assert isinstance(build_model(MODELS[name][0]()), SceneModel)
    assert not isinstance(torch.nn.Linear(1, 1), SceneModel)
