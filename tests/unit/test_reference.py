"""Numbers of the authors' released models under a deterministic fill of the weights.

The fill and the numbers are described in tests/fixtures/README.md. All arrays are checked where the
full reference folder lies beside the checkout; a small fixture of sums is checked everywhere.
"""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl.models.base import Noise
from genesis_rl.models.genesis import GenesisS
from genesis_rl.models.official import OfficialModel, load_official

SHARED = Path(__file__).parents[3] / "shared" / "reference"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "genesis_reference.json"
MODELS: tuple[OfficialModel, ...] = ("genesis", "genesis_s")
SIZE, K, SEED = 32, 4, 1
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}
DTYPES = list(TOLERANCE)

_KEEP = re.compile(r"(^|\.)(std|g_1|g_2|num_batches_tracked|log_sigma)$")
_TRANSPOSED = re.compile(r"p_x_nn\.\d+\.conv\.weight$|^decoder_module\.\d+\.weight$")
_GATED = re.compile(r"(q_z_nn|p_x_nn)\.\d+\.conv\.weight$")


def fill(name: str, shape: list[int]) -> npt.NDArray[np.float32]:
    """Deterministic weights by name and shape (the rule of the reference's README, section 2)."""
    if _KEEP.search(name):
        return np.zeros(shape, dtype=np.float32)
    noise = np.random.RandomState(zlib.crc32(name.encode()) ^ SEED).standard_normal(shape)
    if len(shape) >= 2:
        wide = _TRANSPOSED.search(name) and shape[-1] > 1
        fan = 12 * shape[0] if wide else int(np.prod(shape[1:]))
        value = noise * ((2.0 if _GATED.search(name) else 1.4) / np.sqrt(fan))
    elif name.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif name.endswith(".weight"):
        value = 1 + 0.1 * noise
    else:
        value = 0.1 * noise
    return np.asarray(value, dtype=np.float32)


def fixture() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(FIXTURE.read_text())
    return stored


def build(name: OfficialModel, dtype: torch.dtype, **config: Any) -> GenesisS:
    entries = fixture()[name]["entries"]
    state = {n: torch.from_numpy(fill(n, s)).to(dtype) for n, s in entries.items()}
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


def outputs(model: GenesisS, x: Tensor, noise: Noise | None) -> dict[str, Tensor]:
    """Everything that the reference stores of one pass, by its names."""
    inference = model._infer(x, noise)
    slots = inference.slots
    decoded = model.decode(slots)
    terms = model._score(x, noise, None)
    out = {
        "recon": decoded.image,
        "err": terms.nll,
        "kl_m": terms.kl_m,
        "log_m": slots.log_pi,
        "x_r": decoded.mu_x,
        "q_m_mu": inference.q_m.mu,
        "q_m_sigma": inference.q_m.sigma,
        "p_m_mu": inference.p_m.mu,
        "p_m_sigma": inference.p_m.sigma,
        "h": model.encoder(x),
    }
    if model.latent_sizes[1]:
        out |= {
            "kl_c": terms.kl_c,
            "q_c_mu": inference.q_c.mu,
            "q_c_sigma": inference.q_c.sigma,
            "p_c_mu": inference.p_c.mu,
            "p_c_sigma": inference.p_c.sigma,
        }
    return out


def noise_of(arrays: dict[str, npt.NDArray[Any]], dtype: torch.dtype) -> Noise:
    eps_m = torch.from_numpy(arrays["eps_m"]).to(dtype)
    eps_c = arrays.get("eps_c", np.zeros((2, K, 0)))
    return Noise(eps_m, torch.from_numpy(eps_c).to(dtype))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_all_arrays(name: OfficialModel, dtype: torch.dtype) -> None:
    path = SHARED / f"{name}.npz"
    if not path.is_file():
        pytest.skip("the full reference folder is not beside this checkout")
    arrays = dict(np.load(path, allow_pickle=False))
    model, x = build(name, dtype), images(dtype)
    checked = {key: deviation(value, arrays[key]) for key, value in outputs(model, x, None).items()}
    noise = noise_of(arrays, dtype)
    for key, value in outputs(model, x, noise).items():
        if f"{key}_eps" in arrays:
            checked[f"{key}_eps"] = deviation(value, arrays[f"{key}_eps"])
    scene = model._generate(noise)
    checked["gen_tanh_image"] = deviation(model.decode(scene).image, arrays["gen_tanh_image"])
    worst = max(checked, key=lambda key: checked[key])
    assert checked[worst] <= TOLERANCE[dtype], f"{worst}: {checked[worst]:.2e}"
    assert len(checked) >= (22 if name == "genesis" else 17)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_fixture(name: OfficialModel, dtype: torch.dtype) -> None:
    stored = fixture()[name]
    model, x = build(name, dtype), images(dtype)
    got = outputs(model, x, None)
    for key, reference in stored["arrays"].items():
        assert deviation(got[key], np.array(reference)) <= TOLERANCE[dtype], key


@pytest.mark.parametrize("name", MODELS)
def test_training_pass(name: OfficialModel, dtype: torch.dtype) -> None:
    """Loss terms, gradients and batch statistics in training mode.

    The reference decodes the K-th mask too, whose activations are part of the batch statistics.
    """
    stored = fixture()[name]["training"]
    model = build(name, dtype, decode_last_mask=True).train()
    terms = model._score(images(dtype), None, None)
    loss = terms.nll.mean() + terms.kl_m.mean(0).sum() + terms.kl_c.mean(0).sum()
    loss.backward()
    relative = 1e-9 if dtype == torch.float64 else 1e-5
    assert float(loss.detach()) == pytest.approx(stored["loss"], rel=relative)
    np.testing.assert_allclose(terms.nll.detach(), stored["err"], rtol=relative)

    # A stored value per official parameter; ours that keep their form are compared one to one.
    largest = max(norm for norm, _ in stored["grads"].values())
    tolerance = 1e-8 if dtype == torch.float64 else 3e-4
    parameters = dict(model.named_parameters())
    compared = 0
    for official, mine in stored["same_form"].items():
        norm, probe = stored["grads"][official]
        gradient = parameters[mine].grad
        assert gradient is not None
        direction = np.random.RandomState(zlib.crc32(f"{official}/probe".encode()))
        along = float((gradient.numpy() * direction.standard_normal(gradient.shape)).sum())
        scale = norm + 1e-3 * largest
        assert abs(float(gradient.norm()) - norm) / scale <= tolerance, official
        assert abs(along - probe) / (scale * np.sqrt(gradient.numel())) <= tolerance, official
        compared += 1
    assert compared >= 25

    statistics = dict(model.named_buffers())
    for i in range(5):
        for ours, theirs in (("encoder", f"q_z_nn.{i}"), ("mask_decoder", f"p_x_nn.{i + 1}")):
            layer = f"att_process.core.{theirs}"
            value = statistics[f"{ours}.convs.{i}.norm.running_var"]
            norms = [stored["running"][f"{layer}.{h}.running_var"][0] for h in ("h_norm", "g_norm")]
            assert float(value.norm()) == pytest.approx(np.hypot(*norms), rel=1e-5)
