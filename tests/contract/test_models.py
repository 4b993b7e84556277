"""Properties of every scene model."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.checkpoints.loading import fingerprint, load_pretrained, save_pretrained
from genesis_rl.models import MODELS
from genesis_rl.models.base import BaseModel
from genesis_rl.models.genesis import GenesisS
from genesis_rl.models.refinement import refine
from genesis_rl.perception.editing import select
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.slots import Noise, SceneModel, Slots

NAMES = list(MODELS)
# Further configs of models, as a name of MODELS and changed fields.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = (
    {
        f"{name}, plain decoders": (
            name,
            {
                "mask_decoder": "broadcast",
                "mask_broadcast_channels": 5,
                "component_decoder": "flat",
                "posterior_sigma_bias": -2.0,
            },
        )
        for name in ("genesis", "genesis_s")
    }
    | {
        f"{name}, {what}": (name, {field: value})
        for name in ("genesis", "genesis_s")
        for what, field, value in (
            ("painted background", "component_decoder", "flat_objects"),
            ("three passes", "posterior_passes", 3),
            ("predicted background", "background", "predicted"),
            ("static background", "background", "static"),
            ("local masks", "mask_decoder", "local"),
            ("mixture prior", "prior_components", 3),
            ("flow prior", "prior_flow_layers", 2),
        )
    }
    | {
        f"{name}, attention on a {background} background": (
            name,
            {
                "compact": True,
                "background": background,
                "prior_components": 2,
                "posterior_passes": 1 + (background == "predicted"),
            },
        )
        for name in ("genesis", "genesis_s")
        for background in ("predicted", "static")
    }
)
AUTOREGRESSIVE = ["genesis", "genesis_s", "genesis_v2"]
K = 4
Build = Callable[..., Any]


@pytest.fixture(scope="module")
def build(small_model: Build) -> Build:
    def build(name: str, **changes: Any) -> Any:
        if not name.endswith("vae"):
            changes = {"num_slots": K, **changes}
        if name == "genesis_v2":
            changes["mask_loss"] = True
        model = small_model(name, updates=3, **changes)
        if name == "genesis_v2":
            model.embedding.gate.data.fill_(0.3)  # which is 0 before the first step
        return model

    return build


def images(batch: int) -> Tensor:
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[*NAMES, *VARIANTS])
def model(request: pytest.FixtureRequest, build: Build) -> Any:
    name, changes = VARIANTS.get(request.param, (request.param, {}))
    return build(name, **changes)


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_shapes(model: Any, batch: int) -> None:
    assert isinstance(model, SceneModel)
    d_m, d_c = model.latent_sizes
    slots, k = model.infer(images(batch)), model.config.num_slots
    assert slots.z_m.shape == (batch, k, d_m)
    assert slots.z_c.shape == (batch, k, d_c)
    assert slots.log_pi.shape == (batch, k, 1, 32, 32)
    assert slots.features.shape == (batch, k, d_m + d_c)
    assert slots.mask_geometry().shape == (batch, k, 3)
    decoded = model.decode(slots)
    assert decoded.mu_x.shape == (batch, k, 3, 32, 32)
    assert decoded.log_pi.shape == slots.log_pi.shape
    assert decoded.image.shape == (batch, 3, 32, 32)
    assert 0 <= float(decoded.mu_x.min()) and float(decoded.mu_x.max()) <= 1
    terms = model.elbo(images(batch))
    assert terms.nll.shape == terms.kl.shape == (batch,)
    assert terms.kl_m.shape == terms.kl_c.shape == (batch, k)
    scenes = model.sample(batch)
    assert scenes.features.shape == slots.features.shape
    assert model.decode(scenes).image.shape == (batch, 3, 32, 32)


@torch.no_grad()
def test_masks_sum_to_one(model: Any) -> None:
    inferred, sampled = model.infer(images(2)), model.sample(2)
    for log_pi in (inferred.log_pi, sampled.log_pi, model.decode(inferred).log_pi):
        total = log_pi.logsumexp(1)
        torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)


@torch.no_grad()
def test_images_of_a_batch_are_independent(model: Any) -> None:
    x = images(4)
    order = torch.tensor([2, 0, 3, 1])
    whole = model.infer(x)
    torch.testing.assert_close(model.infer(x[order]).features, whole.features[order])
    torch.testing.assert_close(model.infer(x[:1]).features, whole.features[:1])
    nll = model.elbo(x, sample=False).nll
    torch.testing.assert_close(model.elbo(x[order], sample=False).nll, nll[order])


@torch.no_grad()
def test_pixel_weight_scales_the_likelihood_only(model: Any) -> None:
    x = images(2)
    plain = model.elbo(x, sample=False)
    weight = torch.zeros(2, 1, 32, 32)
    weight[..., :20] = 2.0
    left = model.elbo(x, sample=False, pixel_weight=weight)
    right = model.elbo(x, sample=False, pixel_weight=2 - weight)
    torch.testing.assert_close(left.nll + right.nll, 2 * plain.nll)
    assert (left.nll - right.nll).abs().min() > 1
    torch.testing.assert_close(left.kl, plain.kl)


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


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
@torch.no_grad()
def test_samples_come_from_the_prior_that_is_trained(build: Build, name: str) -> None:
    """Invert sampling by the prior of the ELBO, which must recover the noise."""
    model = build(name)
    noise = Noise(*(torch.randn(2, K, d) for d in model.latent_sizes))
    slots = model._generate(noise)
    if name == "genesis_v2":
        checks = [(slots.z_c, model._prior_of(slots.z_c), noise.c)]
    else:
        p_c = model._component_prior(slots.z_m)
        checks = [(slots.z_m, model._prior_of(slots.z_m), noise.m), (slots.z_c, p_c, noise.c)]
    for z, p, eps in checks:
        torch.testing.assert_close((z - p.mu) / p.sigma, eps, atol=1e-4, rtol=1e-4)
    first = checks[0][1].mu
    assert torch.equal(first[:, 0], torch.zeros_like(first[:, 0]))
    assert float(first.abs().max()) < 1  # the mean is bounded by tanh


@torch.no_grad()
def test_temperature_scales_the_prior(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    cold = model.sample(3, generator=generator, temperature=0.0)
    torch.testing.assert_close(cold.features[0], cold.features[1])
    width = max(model.latent_sizes[0], 1)  # the first latent's; its first slot is standard normal
    first = [
        model.sample(2, generator=generator.manual_seed(5), temperature=t).features[:, 0, :width]
        for t in (1.0, 2.5)
    ]
    if getattr(model, "prior_first_flow", None) is None:
        torch.testing.assert_close(first[1], 2.5 * first[0])


def test_every_parameter_learns(model: Any) -> None:
    if getattr(model, "corrector", None) is not None:  # starts as no correction at all
        torch.nn.init.normal_(model.corrector.head.weight)
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


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_inference_mode_holds_for_all_calls(model: Any, precision: torch.dtype) -> None:
    enabled = precision == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        x = images(2)
        first = model.infer(x)
        model.decode(model.sample(2))
        second = model.infer(x)
        terms = model.elbo(x)
    assert torch.equal(first.features, second.features)
    for value in (second.z_m, second.z_c, second.log_pi, *terms):
        assert value.dtype == torch.float32 and not value.requires_grad
    assert model.infer(images(2)).features.requires_grad
    with torch.no_grad():
        assert not model.infer(images(2)).features.requires_grad


@torch.no_grad()
def test_a_loaded_model_equals_the_saved_one(model: Any, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "m", preprocessing=Preprocessing("crop"), extra={"step": 3})
    loaded, preprocessing, metadata = load_pretrained(tmp_path / "m", device="cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name  # type: ignore[attr-defined]
    # Loaded weights are in channels_last format, which changes the order of summation.
    features = [m.infer(images(2)).features for m in (loaded, model)]
    torch.testing.assert_close(*features, atol=1e-6, rtol=1e-5)
    assert loaded.config == model.config
    assert preprocessing.resize == "crop" and metadata["step"] == 3
    assert fingerprint(loaded) == fingerprint(model)
    next(iter(model.parameters())).data.add_(1)
    assert fingerprint(loaded) != fingerprint(model)


def test_folding_leaves_the_encoder(model: Any) -> None:
    from genesis_rl.models.blocks import fold_batch_norm

    expected = model.infer(images(2))
    got = fold_batch_norm(model).infer(images(2))  # type: ignore[operator]
    torch.testing.assert_close(got.features, expected.features, atol=1e-4, rtol=1e-4)


def test_bad_arguments(model: Any) -> None:
    with pytest.raises(ValueError, match=r"^x "):
        model.infer(torch.rand(2, 3, 16, 32))
    with pytest.raises(ValueError, match=r"^n "):
        model.sample(0)
    with pytest.raises(ValueError, match=r"^temperature "):
        model.sample(1, temperature=-1)
    slots = model.infer(images(1))
    twice = (torch.cat([part, part], 1) for part in (slots.z_m, slots.z_c, slots.log_pi))
    with pytest.raises(ValueError, match=r"slots\.z_m"):
        model.decode(Slots(*twice))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_shared_options_do_what_they_say(build: Build, name: str) -> None:
    x = images(2)
    narrow, wide = (build(name, sigma_x=s).elbo(x, sample=False).nll for s in (0.2, 0.7))
    assert (narrow - wide).abs().min() > 1
    generator = torch.Generator().manual_seed(0)
    spread = [
        build(name, posterior_sigma_min=floor)
        .infer(x, sample=True, generator=generator.manual_seed(0))
        .features
        for floor in (1e-8, 50.0)
    ]
    assert spread[1].std() > 10 > spread[0].std()
    if hasattr(build(name).config, "mixture"):
        channel, pixel = (
            build(name, mixture=mixture, sigma_x=0.05, posterior_sigma_min=5.0)
            .elbo(x, generator=generator.manual_seed(0))
            .nll
            for mixture in ("channel", "pixel")
        )
        assert (channel - pixel).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["genesis", "genesis_s"])
@torch.no_grad()
def test_options_do_what_they_say(build: Build, name: str) -> None:
    x = images(2)
    floored = build(name, posterior_sigma_min=0.5)._latents(x, None)
    assert float(floored.q_m.sigma.min()) > 0.5
    biased = build(name, mask_logit_bias=-6.0).infer(x)
    assert float(biased.log_pi[:, -1].exp().mean()) > 0.9
    # With a bound of 2 every slot but the last has at least sigmoid(-2) of the remaining scope.
    bounded = build(name, mask_logit_bias=-60.0, mask_logit_bound=2.0).infer(x)
    assert float(bounded.log_pi[:, 0].exp().min()) == pytest.approx(0.1192, abs=1e-3)
    with pytest.raises(ValueError, match=r"^mask_logit_bound "):
        build(name, mask_logit_bound=0.0)
    # In eval mode decoding the K-th mask has no effect.
    last, skipped = (build(name, decode_last_mask=flag) for flag in (True, False))
    skipped.load_state_dict(last.state_dict())
    torch.testing.assert_close(last.infer(x).log_pi, skipped.infer(x).log_pi)


def test_latents_do_not_depend_on_the_last_slots_mask(build: Build) -> None:
    """The K-th mask is the remaining scope, so that its latent only conditions appearance."""
    model: GenesisS = build("genesis")
    slots = model.sample(1)
    moved = dataclasses.replace(slots, z_m=slots.z_m + torch.eye(K)[:, -1:].expand(K, 7))
    assert torch.equal(model.decode(moved).log_pi, model.decode(slots).log_pi)


@pytest.mark.parametrize("name", ["genesis", "genesis_s"])
def test_recomputing_changes_nothing(build: Build, name: str) -> None:
    kept, spared = build(name).train(), build(name).train()
    spared.activation_checkpointing = True
    for model in (kept, spared):
        terms = model.elbo(images(4), generator=torch.Generator().manual_seed(2))
        (terms.nll + terms.kl).mean().backward()
    grads = dict(spared.named_parameters())
    for parameter, value in kept.named_parameters():
        torch.testing.assert_close(grads[parameter].grad, value.grad)
    torch.testing.assert_close(spared.state_dict(), kept.state_dict())  # running statistics, too


@torch.no_grad()
def test_shares_of_a_batch_make_the_whole(model: Any) -> None:
    """Processes that split a batch compute the terms of a single process."""
    model.double()
    x = images(6).double()
    whole = model(x, generator=torch.Generator().manual_seed(4))
    for rank in range(2):
        part = model(x[rank::2], generator=torch.Generator().manual_seed(4), share=(rank, 2))
        for name in ("nll", "kl_m", "kl_c"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[rank::2])


def test_responsibilities_of_every_model(model: Any) -> None:
    x = images(2)
    with torch.no_grad():
        p = model.log_responsibilities(x, model.decode(model.infer(x))).exp()
    assert p.shape == (2, model.config.num_slots, 1, 32, 32)
    torch.testing.assert_close(p.sum(1), torch.ones(2, 1, 32, 32))


# ---- refinement ----------------------------------------------------------------------------------


def nll(model: Any, x: Tensor, slots: Slots) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.nll(x, model.decode(slots))
    return found


def test_refinement_raises_every_likelihood(model: Any) -> None:
    model, x = model.double(), images(3).double()  # a fresh decoder hardly answers to its latents
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():  # as in evaluations and wrappers
        slots = model.infer(x)
        few, many = (refine(model, x, slots, steps) for steps in (2, 20))
    assert (nll(model, x, few) < nll(model, x, slots)).all()
    assert (nll(model, x, many) < nll(model, x, few)).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not few.features.requires_grad
    assert torch.equal(few.log_pi, model.decode(few).log_pi)


def test_images_are_refined_independently(model: Any) -> None:
    x = images(3)
    with torch.no_grad():
        slots = model.infer(x)
    together = refine(model, x, slots, 3).features
    for i in range(3):
        alone = refine(model, x[i : i + 1], select(slots, [i]), 3).features
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-4)


def test_no_latent_moves_further_than_the_steps(model: Any) -> None:
    x = images(2)
    with torch.no_grad():
        slots = model.infer(x)
    moved = (refine(model, x, slots, 2, step_size=0.01).features - slots.features).abs()
    # Adam's second step is a little longer than its step size where a gradient has grown.
    assert 0 < moved.max() <= 0.02 * 1.02


def test_the_step_size_is_the_models(model: Any) -> None:
    x = images(2)
    with torch.no_grad():
        slots = model.infer(x)
    size = model.refine_step_size
    own, given = refine(model, x, slots, 1), refine(model, x, slots, 1, step_size=size)
    assert torch.equal(own.features, given.features)
    if getattr(model.config, "mask_decoder", None) == "local":
        assert size < BaseModel.refine_step_size


def test_zero_steps_return_the_slots(model: Any) -> None:
    with torch.no_grad():
        slots = model.infer(images(2))
    assert refine(model, images(2), slots, 0) is slots


def test_a_likelihood_is_the_one_that_is_trained_on(build: Build) -> None:
    model, x = build("genesis"), images(2)
    with torch.no_grad():
        terms, slots = model.elbo(x, sample=False), model.infer(x)
    torch.testing.assert_close(nll(model, x, slots), terms.nll)
    weight = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        weighed = model.elbo(x, sample=False, pixel_weight=weight).nll
        torch.testing.assert_close(model.nll(x, model.decode(slots), pixel_weight=weight), weighed)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x, s: refine(m, x, s, -1), ValueError, "^steps "),
        (lambda m, x, s: refine(m, x, s, 1, step_size=0), ValueError, r"^step_size "),
        (lambda m, x, s: refine(m, x, s, 1, step_size=math.nan), ValueError, r"^step_size "),
    ],
)
def test_bad_refinement_is_refused(
    build: Build, call: Callable[..., Any], error: Any, message: str
) -> None:
    model, x = build("bd_vae"), images(1)
    with torch.no_grad():
        slots = model.infer(x)
    with pytest.raises(error, match=message):
        call(model, x, slots)
