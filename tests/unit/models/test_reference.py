"""Numbers of the authors' released models under a deterministic fill of the weights.

The fill and the numbers are described in tests/fixtures/README.md. All arrays are checked where the
full reference folder lies beside the checkout; a small fixture of sums is checked everywhere.
"""

import json
import math
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl.models import MODELS
from genesis_rl.models.blocks import fold_batch_norm
from genesis_rl.models.genesis import GenesisS
from genesis_rl.models.monet import Monet
from genesis_rl.models.official import OfficialModel, load_official
from genesis_rl.models.vae import Vae
from genesis_rl.slots import ElboTerms, Noise

SHARED = Path(__file__).parents[4] / "shared" / "reference"
FIXTURES = Path(__file__).parents[2] / "fixtures"
NAMES: tuple[OfficialModel, ...] = get_args(OfficialModel)
SIZE, K, SEED = 32, 4, 1
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}
DTYPES = list(TOLERANCE)
# The reference has its optional mask loss; GENESIS decodes the K-th mask too, whose activations are
# part of the batch statistics in training.
OPTIONS: dict[str, dict[str, Any]] = {
    "genesis": {"decode_last_mask": True},
    "genesis_s": {"decode_last_mask": True},
    "genesis_v2": {"mask_loss": True},
}


class Mode(NamedTuple):
    """Relative deviations that a way of training may have from the reference's float64 numbers."""

    loss: float
    gradient: float  # of every parameter's gradient, in units of its norm


# Measured: at most 4e-7 of the loss and 3.4e-4 of a gradient in float32 (MONet, the others 2e-5),
# 1.6e-3 and .14 with convolutions in bfloat16.
FLOAT32, BFLOAT16 = Mode(1e-5, 5e-4), Mode(3e-3, 0.2)
# Arrays compared (both passes and the sampled scene), and parameters that keep their form.
ARRAYS = {
    "genesis": 24,
    "genesis_s": 18,
    "monet": 16,
    "bd_vae": 10,
    "dc_vae": 10,
    "genesis_v2": 18,
}
SAME_FORM = {
    "genesis": 47,
    "genesis_s": 31,
    "monet": 50,
    "bd_vae": 23,
    "dc_vae": 20,
    "genesis_v2": 68,
}
# Of the authors' models; GENESIS-V2's embedding has a bias of 8 numbers more that has no effect.
PARAMETERS = {
    ("monet", 32): 749_701,
    ("monet", 64): 974_085,
    ("monet", 128): 1_788_293,
    ("bd_vae", 32): 2_852_291,
    ("bd_vae", 64): 9_143_747,
    ("genesis_v2", 32): 2_618_574 - 8,
    ("genesis_v2", 64): 2_729_422 - 8,
    ("genesis_v2", 128): 2_840_270 - 8,
}

_KEEP = re.compile(r"(^|\.)(std|g_1|g_2|num_batches_tracked|log_sigma)$")
_TRANSPOSED = re.compile(r"p_x_nn\.\d+\.conv\.weight$|^decoder_module\.\d+\.weight$")
_GATED = re.compile(r"(q_z_nn|p_x_nn)\.\d+\.conv\.weight$")


def fill(name: str, shape: list[int]) -> npt.NDArray[np.float32]:
    """Deterministic weights by name and shape (the rule of the reference's README, section 2)."""
    if name.endswith("log_sigma"):  # as GENESIS-V2 starts with
        return np.array(-np.log(K * np.log(2)))
    if _KEEP.search(name):
        return np.zeros(shape, dtype=np.float32)
    noise = np.random.RandomState(zlib.crc32(name.encode()) ^ SEED).standard_normal(shape)
    if len(shape) >= 2:
        wide = _TRANSPOSED.search(name) and shape[-1] > 1
        fan = 12 * shape[0] if wide else int(np.prod(shape[1:]))
        value = noise * ((2.0 if _GATED.search(name) else 1.4) / np.sqrt(fan))
    elif not shape:
        value = 0.15 + 0.01 * noise
    elif name.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif name.endswith(".weight"):
        value = 1 + 0.1 * noise
    else:
        value = 0.1 * noise
    return np.asarray(value, dtype=np.float32)


def fixture(name: str) -> dict[str, Any]:
    file = "genesis_reference.json" if name in ("genesis", "genesis_s") else "baselines.json"
    stored: dict[str, Any] = json.loads((FIXTURES / file).read_text())[name]
    return stored


def official_state(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    entries = fixture(name)["entries"]
    return {n: torch.from_numpy(fill(n, s)).to(dtype) for n, s in entries.items()}


def build(name: OfficialModel, dtype: torch.dtype, **config: Any) -> Any:
    state = official_state(name, dtype)
    return load_official(state, name, image_size=SIZE, num_slots=K, **config)


def images(dtype: torch.dtype) -> Tensor:
    x = np.random.RandomState(0).rand(2, 3, SIZE, SIZE).astype(np.float32)
    return torch.from_numpy(x).to(dtype)


def deviation(ours: Tensor, reference: npt.NDArray[Any]) -> float:
    got = ours.detach().double().numpy()
    assert got.shape == reference.shape
    return float(np.max(np.abs(got - reference) / (1 + np.abs(reference))))


@pytest.fixture(params=DTYPES, ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def outputs(model: Any, x: Tensor, noise: Noise | None) -> dict[str, Tensor]:
    """Everything that the reference stores of one pass, by its names."""
    slots, terms = model._infer_slots(x, noise), model._score(x, noise, None)
    decoded = model.decode(slots)
    out = {"recon": decoded.image, "err": terms.nll}
    if isinstance(model, Vae):
        mu, sigma = (part.squeeze(1) for part in model._infer(x, noise).q_c)
        return out | {"kl": terms.kl, "q_mu": mu, "q_sigma": sigma, "h": model.encoder(x)}
    out |= {"log_m": slots.log_pi, "x_r": decoded.mu_x, "kl_c": terms.kl_c}
    if isinstance(model, GenesisS):
        latents = model._latents(x, noise)
        priors: Any = model._priors(latents.z_m)
        p_m, p_c = priors
        out |= {
            "kl_m": terms.kl_m,
            "q_m_mu": latents.q_m.mu,
            "q_m_sigma": latents.q_m.sigma,
            "p_m_mu": p_m.mu,
            "p_m_sigma": p_m.sigma,
            "h": model.encoder(x),
            "q_c_mu": latents.q_c.mu,
            "q_c_sigma": latents.q_c.sigma,
            "p_c_mu": p_c.mu,
            "p_c_sigma": p_c.sigma,
        }
        return {k: v for k, v in out.items() if model.latent_sizes[1] or "_c" not in k}
    q_c = model._infer(x, noise).q_c
    out["kl_m"] = terms.kl_m.sum(1)
    # The scope before slot k is what it and all later slots take.
    out["log_s"] = slots.log_pi.flip(1).logcumsumexp(1).flip(1)
    if isinstance(model, Monet):
        out["log_m_r"] = model._decode_components(slots.z_c).log_pi
        return out | {"q_c_mu": q_c.mu, "q_c_sigma": q_c.sigma}
    p_c = model._prior_of(slots.z_c)
    return out | {
        "log_m_r": decoded.log_pi,
        "q_c_mu": q_c.mu,
        "q_c_sigma": q_c.sigma,
        "p_c_mu": p_c.mu,
        "p_c_sigma": p_c.sigma,
    }


def noise_of(
    name: str, arrays: dict[str, npt.NDArray[Any]], dtype: torch.dtype, *, mean: bool
) -> Noise | None:
    """The reference's noise; ``mean`` for its passes at z = mu, where only V2's seeds are left."""
    seeds = arrays.get("rand_pixel")
    if mean and seeds is None:
        return None
    slots = 1 if name.endswith("vae") else K
    empty = np.zeros((2, slots, 0))
    eps_c = arrays["eps"][:, None] if "eps" in arrays else arrays.get("eps_c", empty)
    m, c = (torch.from_numpy(eps).to(dtype) for eps in (arrays.get("eps_m", empty), eps_c))
    inner = None if seeds is None else torch.from_numpy(seeds).to(dtype)
    return Noise(m, 0 * c if mean else c, inner)


def seed_map() -> dict[str, npt.NDArray[Any]]:
    """GENESIS-V2's seed map, with noise that is not used."""
    rand_pixel = np.random.RandomState(2).rand(2, 1, SIZE, SIZE).astype(np.float32)
    return {"rand_pixel": rand_pixel, "eps_c": np.zeros((2, K, 64))}


def mean_noise(name: str, dtype: torch.dtype) -> Noise | None:
    """The noise of a pass at z = mu with no array of the reference at hand but the seed map."""
    return noise_of(name, seed_map(), dtype, mean=True) if name == "genesis_v2" else None


def reference_arrays(name: str) -> dict[str, npt.NDArray[Any]]:
    path = SHARED / f"{name}.npz"
    if not path.is_file():
        pytest.skip("the full reference folder is not beside this checkout")
    return dict(np.load(path, allow_pickle=False))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_all_arrays(name: OfficialModel, dtype: torch.dtype) -> None:
    arrays = reference_arrays(name)
    model, x = build(name, dtype, **OPTIONS.get(name, {})), images(dtype)
    means = outputs(model, x, noise_of(name, arrays, dtype, mean=True))
    checked = {key: deviation(value, arrays[key]) for key, value in means.items()}
    noise = noise_of(name, arrays, dtype, mean=False)
    for key, value in outputs(model, x, noise).items():
        if f"{key}_eps" in arrays:
            checked[f"{key}_eps"] = deviation(value, arrays[f"{key}_eps"])
    scene = model._generate(noise)
    image = "gen_tanh_image" if "gen_tanh_image" in arrays else "gen_image"
    checked[image] = deviation(model.decode(scene).image, arrays[image])
    if name in ("monet", "genesis_v2"):
        checked["gen_log_m"] = deviation(scene.log_pi, arrays["gen_log_m"])
    worst = max(checked, key=lambda key: checked[key])
    assert checked[worst] <= TOLERANCE[dtype], f"{worst}: {checked[worst]:.2e}"
    assert len(checked) == ARRAYS[name]


@torch.no_grad()
def test_genesis_v2_seeds(dtype: torch.dtype) -> None:
    arrays = reference_arrays("genesis_v2")
    model = build("genesis_v2", dtype)
    embedding = model.embedding(model.segment_head(model.encoder(images(dtype))))
    attention = model._attend(embedding, torch.from_numpy(arrays["rand_pixel"]).to(dtype))
    assert attention.seeds.tolist() == arrays["seed_index"].tolist()
    # Ours has no bias, which adds the same to every pixel.
    state = official_state("genesis_v2", dtype)
    head = "att_process.colour_head"
    bias = state[f"{head}.gate.gate"] * state[f"{head}.conv.bias"]
    colour = embedding + bias[:, None, None]
    assert deviation(colour, arrays["colour"]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_fixture(name: OfficialModel, dtype: torch.dtype) -> None:
    check_inference(name, build(name, dtype, **OPTIONS.get(name, {})), dtype, TOLERANCE[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_training_pass(name: OfficialModel, dtype: torch.dtype) -> None:
    """Loss terms, gradients and batch statistics in training mode."""
    model = build(name, dtype, **OPTIONS.get(name, {})).train()
    exact = Mode(1e-9, 1e-8) if dtype == torch.float64 else Mode(1e-5, 3e-4)
    check_training(name, model, model._score, exact)
    if isinstance(model, GenesisS):
        check_batch_statistics(model, fixture(name)["training"]["running"])


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, mode) for name in NAMES for mode in ("channels_last", "bfloat16")),
        ("genesis", "recomputed"),
        ("genesis_s", "recomputed"),
        ("genesis", "compiled"),
    ],
)
def test_training_pass_in_every_mode(name: OfficialModel, mode: str) -> None:
    """What makes training fast or small leaves the authors' numbers, within the mode's rounding."""
    if mode == "compiled" and not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    model = build(name, torch.float32, **OPTIONS.get(name, {})).train()
    model.to(memory_format=torch.channels_last)
    model.activation_checkpointing = mode == "recomputed"
    score = torch.compile(model._score) if mode == "compiled" else model._score
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bfloat16"):
        check_training(name, model, score, BFLOAT16 if mode == "bfloat16" else FLOAT32)


@pytest.mark.parametrize("mode", ["folded", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_inference_in_every_mode(name: OfficialModel, mode: str) -> None:
    """As above: batch norm folded into the convolutions, and convolutions in bfloat16."""
    dtype = torch.float32
    model = build(name, dtype, **OPTIONS.get(name, {}))
    if mode == "folded":
        model = fold_batch_norm(model)
    tolerance = TOLERANCE[dtype] if mode == "folded" else 0.03
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bfloat16"):
        check_inference(name, model, dtype, tolerance)


def check_inference(name: OfficialModel, model: Any, dtype: torch.dtype, tolerance: float) -> None:
    """Compare what a pass at z = mu computes with the small fixture."""
    got = outputs(model, images(dtype), mean_noise(name, dtype))
    for key, reference in fixture(name)["arrays"].items():
        assert deviation(got[key], np.array(reference)) <= tolerance, key


def check_training(
    name: OfficialModel, model: Any, score: Callable[..., ElboTerms], mode: Mode
) -> None:
    """Compare loss terms and gradients with the reference's, at the weights of ``official_state``.

    Args:
        name: name of the official model.
        model: the model of this package, in training mode.
        score: its ``_score``, or a replacement.
        mode: tolerances.
    """
    stored = fixture(name)["training"]
    dtype = next(model.parameters()).dtype
    state = official_state(name, dtype)
    parameters = same_form(model, {n: v for n, v in state.items() if n in stored["grads"]})
    terms = score(images(dtype), mean_noise(name, dtype), None)
    loss = terms.nll.mean() + terms.kl.mean()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(stored["loss"], rel=mode.loss)
    np.testing.assert_allclose(terms.nll.detach().numpy(), stored["err"], rtol=mode.loss)

    # A stored value per official parameter; ours that keep their form are compared one to one.
    largest = max(norm for norm, _ in stored["grads"].values())
    for official, parameter in parameters.items():
        norm, probe = stored["grads"][official]
        gradient = parameter.grad
        assert gradient is not None
        direction = np.random.RandomState(zlib.crc32(f"{official}/probe".encode()))
        along = float((gradient.numpy() * direction.standard_normal(gradient.shape)).sum())
        scale = norm + 1e-3 * largest
        assert abs(float(gradient.norm()) - norm) / scale <= mode.gradient, official
        assert abs(along - probe) / (scale * np.sqrt(gradient.numel())) <= mode.gradient, official
    assert len(parameters) == SAME_FORM[name]


def same_form(model: torch.nn.Module, official: dict[str, Tensor]) -> dict[str, torch.nn.Parameter]:
    """Our parameters that equal one of the authors', by its name."""
    by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        by_shape.setdefault(parameter.shape, []).append(parameter)
    found = {}
    for name, value in official.items():
        for parameter in by_shape.get(value.shape, []):
            if torch.equal(parameter, value):
                found[name] = parameter
    return found


def check_batch_statistics(model: GenesisS, running: dict[str, list[float]]) -> None:
    statistics = dict(model.named_buffers())
    for i in range(5):
        for ours, theirs in (("encoder", f"q_z_nn.{i}"), ("mask_decoder", f"p_x_nn.{i + 1}")):
            layer = f"att_process.core.{theirs}"
            value = statistics[f"{ours}.convs.{i}.norm.running_var"]
            norms = [running[f"{layer}.{h}.running_var"][0] for h in ("h_norm", "g_norm")]
            assert float(value.norm()) == pytest.approx(math.hypot(*norms), rel=1e-5)


@pytest.mark.parametrize(("name", "size"), PARAMETERS)
def test_number_of_parameters(name: str, size: int) -> None:
    config_class, model_class = MODELS[name]
    model = model_class(config_class(image_size=size))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, size]


def test_official_checkpoints_that_do_not_fit() -> None:
    state = official_state("monet", torch.float32)
    with pytest.raises(ValueError, match=r"^checkpoint .* att_process\.core\.q_z_nn\.0"):
        load_official(state, "genesis", image_size=SIZE)
    with pytest.raises(ValueError, match=r"^model "):
        load_official(state, "slots")  # type: ignore[arg-type]
    name = "comp_vae.encoder_module.module.0.weight"
    with pytest.raises(ValueError, match=r"^checkpoint .*module\.0\.weight.*\(3, 4, 3, 3\)"):
        load_official(state | {name: state[name][:3]}, "monet", image_size=SIZE)
    with pytest.raises(ValueError, match=r"^checkpoint .*more"):
        load_official(state | {"more": torch.zeros(2)}, "monet", image_size=SIZE)
    state.pop(name)
    with pytest.raises(ValueError, match=rf"^checkpoint .*{name}"):
        load_official(state, "monet", image_size=SIZE)


def test_checkpoints_are_read_from_files(tmp_path: Path) -> None:
    state = official_state("dc_vae", torch.float32)
    wrapped = {"model_state_dict": {f"module.{n}": v for n, v in state.items()}, "iter": 3}
    torch.save(wrapped, tmp_path / "model.ckpt")
    model = load_official(tmp_path / "model.ckpt", "dc_vae", image_size=SIZE)
    expected = build("dc_vae", torch.float32)
    x = images(torch.float32)
    assert torch.equal(model.infer(x).features, expected.infer(x).features)
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"^checkpoint .*broken\.ckpt"):
        load_official(tmp_path / "broken.ckpt")
    with pytest.raises(ValueError, match=r"^checkpoint .*nowhere"):
        load_official("nowhere")
