"""What every scene model keeps to, whatever it is."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.checkpoint import fingerprint, load_pretrained, save_pretrained
from genesis_rl.frames import Preprocessing
from genesis_rl.likelihood import Gaussian
from genesis_rl.models import MODELS, build_model
from genesis_rl.models.base import Noise
from genesis_rl.models.genesis import GenesisS
from genesis_rl.slots import SceneModel, Slots

NAMES = list(MODELS)
K, D_M = 5, 7
SMALL: dict[str, Any] = {
    "image_size": 32,
    "num_slots": K,
    "mask_latent_size": D_M,
    "encoder_channels": (4, 4, 6, 6, 6),
    "decoder_channels": (6, 4, 4, 4, 4),
    "feature_size": 12,
    "posterior_lstm_size": 10,
    "prior_lstm_size": 11,
    "component_decoder_channels": 4,
}


def build(name: str, **changes: Any) -> Any:
    config_class = MODELS[name][0]
    values = SMALL | changes
    if name == "genesis":
        values |= {"component_latent_size": 3, "component_encoder_channels": (4, 6)}
    torch.manual_seed(0)
    model = build_model(config_class(**values))
    # Batch statistics from a few batches, as after training.
    for _ in range(3):
        model.elbo(torch.rand(8, 3, 32, 32))
    return model.eval()


def images(batch: int) -> Tensor:
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_shapes(model: Any, batch: int) -> None:
    assert isinstance(model, SceneModel)
    d_m, d_c = model.latent_sizes
    slots = model.infer(images(batch))
    assert slots.z_m.shape == (batch, K, d_m)
    assert slots.z_c.shape == (batch, K, d_c)
    assert slots.log_pi.shape == (batch, K, 1, 32, 32)
    assert slots.features.shape == (batch, K, d_m + d_c)
    assert slots.mask_geometry().shape == (batch, K, 3)
    decoded = model.decode(slots)
    assert decoded.mu_x.shape == (batch, K, 3, 32, 32)
    assert decoded.image.shape == (batch, 3, 32, 32)
    assert 0 <= float(decoded.mu_x.min()) and float(decoded.mu_x.max()) <= 1
    terms = model.elbo(images(batch))
    assert terms.nll.shape == terms.kl.shape == (batch,)
    assert terms.kl_m.shape == terms.kl_c.shape == (batch, K)
    assert model.sample(batch).z_m.shape == (batch, K, d_m)


@torch.no_grad()
def test_masks_sum_to_one(model: Any) -> None:
    for slots in (model.infer(images(2)), model.sample(2)):
        total = slots.log_pi.logsumexp(1)
        torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)


@torch.no_grad()
def test_images_do_not_see_each_other(model: Any) -> None:
    x = images(4)
    order = torch.tensor([2, 0, 3, 1])
    whole = model.infer(x)
    torch.testing.assert_close(model.infer(x[order]).features, whole.features[order])
    torch.testing.assert_close(model.infer(x[:1]).features, whole.features[:1])


@torch.no_grad()
def test_means_need_no_noise_and_generators_repeat(model: Any) -> None:
    x = images(2)
    torch.manual_seed(1)
    first = model.infer(x)
    torch.manual_seed(2)
    assert torch.equal(first.features, model.infer(x).features)

    def draw(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [
            model.infer(x, sample=True, generator=generator).features,
            model.elbo(x, generator=generator).nll,
            model.sample(2, generator=generator).features,
        ]

    for same, again, other in zip(draw(0), draw(0), draw(1), strict=True):
        assert torch.equal(same, again)
        assert not torch.equal(same, other)


@torch.no_grad()
def test_samples_come_from_the_prior_that_is_trained(model: Any) -> None:
    """Undo the sampling with the prior that scores: the noise must come back."""
    noise = Noise(*(torch.randn(2, K, d) for d in model.latent_sizes))
    slots = model._generate(noise)
    p_m, p_c = model._mask_prior(slots.z_m), model._component_prior(slots.z_m)
    torch.testing.assert_close((slots.z_m - p_m.mu) / p_m.sigma, noise.m, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close((slots.z_c - p_c.mu) / p_c.sigma, noise.c, atol=1e-4, rtol=1e-4)
    assert torch.equal(p_m.mu[:, 0], torch.zeros(2, D_M))
    assert float(p_m.mu.abs().max()) < 1  # the mean is bounded by tanh


@torch.no_grad()
def test_temperature_scales_the_prior(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    cold = model.sample(3, generator=generator, temperature=0.0)
    torch.testing.assert_close(cold.z_m[0], cold.z_m[1])
    first = [
        model.sample(2, generator=generator.manual_seed(5), temperature=t).z_m[:, 0]
        for t in (1.0, 2.5)
    ]
    torch.testing.assert_close(first[1], 2.5 * first[0])


def test_every_parameter_learns(model: Any) -> None:
    model.train()
    terms = model(images(4))
    (terms.nll.mean() + terms.kl.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_bfloat16_stays_near_float32(model: Any) -> None:
    x = images(2)
    exact = model.elbo(x, sample=False)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.elbo(x, sample=False)
    assert rounded.nll.dtype == torch.float32
    torch.testing.assert_close(rounded.nll, exact.nll, rtol=1e-3, atol=0)
    torch.testing.assert_close(rounded.kl, exact.kl, rtol=2e-2, atol=0.5)


@torch.no_grad()
def test_saving_gives_back_the_same_model(model: Any, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "m", preprocessing=Preprocessing("crop"), extra={"step": 3})
    loaded, preprocessing, metadata = load_pretrained(tmp_path / "m", device="cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name  # type: ignore[attr-defined]
    # The loaded weights lie in memory channels last, which sums in another order.
    features = [m.infer(images(2)).features for m in (loaded, model)]
    torch.testing.assert_close(*features, atol=1e-6, rtol=1e-5)
    assert loaded.config == model.config
    assert preprocessing.resize == "crop" and metadata["step"] == 3
    assert fingerprint(loaded) == fingerprint(model)
    next(iter(model.parameters())).data[0] += 1
    assert fingerprint(loaded) != fingerprint(model)


def test_folding_leaves_the_encoder(model: Any) -> None:
    from genesis_rl.blocks import fold_batch_norm

    expected = model.infer(images(2))
    got = fold_batch_norm(model).infer(images(2))  # type: ignore[operator]
    torch.testing.assert_close(got.features, expected.features, atol=1e-4, rtol=1e-4)


def test_bad_arguments(model: Any) -> None:
    with pytest.raises(
        ValueError, match=r"x has shape \(2, 3, 16, 32\); wanted \(any, 3, 32, 32\)"
    ):
        model.infer(torch.rand(2, 3, 16, 32))
    with pytest.raises(ValueError, match="n is 0"):
        model.sample(0)
    with pytest.raises(ValueError, match="temperature is -1"):
        model.sample(1, temperature=-1)
    slots = model.infer(images(1))
    with pytest.raises(ValueError, match=r"slots\.z_m"):
        model.decode(Slots(slots.z_m[:, :3], slots.z_c[:, :3], slots.log_pi[:, :3]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_slots", 1),
        ("image_size", 48),
        ("sigma_x", 0.0),
        ("mixture", "both"),
        ("encoder_channels", (4, 4)),
        ("mask_latent_size", 0),
        ("posterior_sigma_floor", 0.0),
    ],
)
def test_bad_configs(name: str, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        MODELS[name][0](**{field: value})


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_options_do_what_they_say(name: str) -> None:
    x = images(2)
    floored = build(name, posterior_sigma_floor=0.5)._infer(x, None)
    assert float(floored.q_m.sigma.min()) > 0.5
    biased = build(name, mask_logit_bias=-6.0).infer(x)
    assert float(biased.log_pi[:, -1].exp().mean()) > 0.9
    channel, pixel = (
        build(name, mixture=mixture, sigma_x=0.05).elbo(x, sample=False).nll
        for mixture in ("channel", "pixel")
    )
    assert (channel - pixel).abs().min() > 1e-3
    # In eval mode the K-th mask's decoding changes nothing.
    last, skipped = (build(name, decode_last_mask=flag) for flag in (True, False))
    skipped.load_state_dict(last.state_dict())
    torch.testing.assert_close(last.infer(x).log_pi, skipped.infer(x).log_pi)


def test_latents_do_not_depend_on_the_last_slots_mask() -> None:
    """The K-th mask is what is left: its latent moves no mask (it only conditions appearance)."""
    model: GenesisS = build("genesis")
    slots = model.sample(1)
    moved = dataclasses.replace(slots, z_m=slots.z_m + torch.eye(K)[:, -1:].expand(K, D_M))
    assert torch.equal(model.decode(moved).log_pi, model.decode(slots).log_pi)


def test_build_model_refuses_strangers() -> None:
    with pytest.raises(TypeError, match="config is a Gaussian"):
        build_model(Gaussian(torch.zeros(1), torch.ones(1)))
