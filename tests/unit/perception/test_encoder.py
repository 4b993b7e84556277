"""SlotEncoder: frames to posterior means, with weights that stay as they are."""

import copy
import functools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from genesis_rl.checkpoints.loading import fingerprint, save_pretrained
from genesis_rl.evaluation.scoring import ScoreConfig
from genesis_rl.models import MODELS, build_model
from genesis_rl.models.base import BaseModel
from genesis_rl.models.refinement import refine
from genesis_rl.perception import encoder as encoder_module
from genesis_rl.perception.encoder import SlotEncoder, as_encoder
from genesis_rl.perception.preprocessing import Preprocessing, Resize
from genesis_rl.slots import Slots
from genesis_rl.training.distillation import DistillConfig

Build = Callable[..., Any]
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BandsConfig:
    image_size: int = 16
    num_slots: int = 5


class Bands(BaseModel):
    """K horizontal bands as slots: z_m is a band's mean colour, z_c its mean red, scaled."""

    model_name = "bands"

    def __init__(self, scale: Any = 2.0) -> None:
        super().__init__()
        self.config = BandsConfig()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.passes: list[tuple[int, ...]] = []

    @property
    def latent_sizes(self) -> Any:
        return 3, 1

    def infer(self, x: Any, *, sample: Any = False, generator: Any = None) -> Any:
        self.passes.append(tuple(x.shape))
        size, k = self.config.image_size, self.config.num_slots
        band = torch.arange(size) * k // size
        masks = (band == torch.arange(k)[:, None]).float()  # (K, H)
        colour = torch.einsum("bchw,kh->bkc", x, masks) / (masks.sum(1)[:, None] * size)
        log_pi = (masks + 1e-9).log()[None, :, None, :, None].expand(len(x), k, 1, size, size)
        return Slots(colour * self.scale, colour[..., :1] * self.scale, log_pi)


@pytest.fixture
def frames() -> Any:
    return np.random.default_rng(0).integers(0, 256, (6, 24, 40, 3), np.uint8)


@pytest.fixture
def model(small_model: Build) -> Any:
    return small_model(num_slots=4, updates=3)


@pytest.fixture
def encoder(model: Any) -> Any:
    return SlotEncoder(model, device="cpu")


# ---- what comes out ------------------------------------------------------------------------------


def test_slots_are_the_models_on_the_preprocessed_frame() -> None:
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    frames[1, ..., 0] = 255
    slots = SlotEncoder(Bands(), device="cpu")(frames)
    assert slots.z_m.shape == (2, 5, 3)
    assert slots.log_pi.shape == (2, 5, 1, 16, 16)
    torch.testing.assert_close(slots.z_m[1], torch.tensor([[2.0, 0, 0]]).expand(5, 3))
    assert slots.z_m[0].abs().max() == 0
    assert slots.z_m.is_inference()


def test_features_have_latents_then_geometry(frames: Frames) -> None:
    encoder = SlotEncoder(Bands(), device="cpu")
    features = encoder.features(frames)
    assert features.shape == (6, 5, 7)
    assert features.dtype == np.float32
    slots = encoder(frames)
    np.testing.assert_array_equal(features[..., :3], slots.z_m)
    np.testing.assert_array_equal(features[..., 3:4], slots.z_c)
    np.testing.assert_array_equal(features[..., 4:], slots.mask_geometry())
    np.testing.assert_allclose(features[0, :, 4].mean(), 0, atol=0.1)
    assert (np.diff(features[0, :, 4]) > 0).all()  # bands from top to bottom
    np.testing.assert_array_equal(features[..., :4], encoder.features(frames, mask_geometry=False))


def test_one_frame_is_a_batch_of_one(frames: Frames) -> None:
    encoder = SlotEncoder(Bands(), device="cpu")
    np.testing.assert_array_equal(encoder.features(frames[0]), encoder.features(frames[:1]))
    assert encoder(frames[0]).z_m.shape == (1, 5, 3)


def test_layout_and_white_reach_the_conversion(frames: Frames) -> None:
    encoder = SlotEncoder(Bands(), device="cpu")
    want = encoder.features(frames)
    wide_first = frames.transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(encoder.features(wide_first, layout="CWH"), want)
    dark = np.full((16, 16, 3), 1.0)
    np.testing.assert_allclose(encoder.features(dark, white=255)[0, 0, 0], 2 / 255, rtol=1e-5)


@pytest.mark.parametrize("how", ["stretch", "letterbox", "crop", "none"])
def test_preprocessing_is_applied(how: Resize) -> None:
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:, 8:24] = 255
    encoder = SlotEncoder(Bands(), device="cpu", preprocessing=Preprocessing(how))
    if how == "none":
        with pytest.raises(ValueError, match=r"16 x 16 .*16 x 32"):
            encoder.features(frame)
        return
    slots = encoder.features(frame)[0, :, 0]
    np.testing.assert_allclose(slots[2], {"crop": 2.0}.get(how, 1.0), atol=1e-5)
    assert (slots[0] == 0) == (how == "letterbox")


def test_batches_are_split(frames: Frames) -> None:
    encoder: Any = SlotEncoder(Bands(), device="cpu", batch_size=4)
    whole = SlotEncoder(Bands(), device="cpu").features(frames)
    encoder._model.passes.clear()
    np.testing.assert_array_equal(encoder.features(frames), whole)
    assert encoder._model.passes == [(4, 3, 16, 16), (2, 3, 16, 16)]


@pytest.mark.parametrize("name", ["genesis", "genesis_s"])
def test_a_frame_gives_the_same_slots_alone_and_in_a_batch(
    frames: Frames, small_model: Build, name: str
) -> None:
    encoder = SlotEncoder(small_model(name), device="cpu")
    batch = encoder.features(frames, mask_geometry=True)
    alone = np.concatenate([encoder.features(frame, mask_geometry=True) for frame in frames])
    np.testing.assert_allclose(alone, batch, atol=1e-5)
    assert not np.allclose(batch[0], batch[1], atol=1e-5)


def test_inference_form_equals_the_model(model: Any, frames: Frames) -> None:
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        want = model.infer(x)
    got = SlotEncoder(model, device="cpu")(x)
    torch.testing.assert_close(got.features, want.features, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.log_pi, want.log_pi, atol=1e-4, rtol=0)


def test_bfloat16_is_close(model: Any, frames: Frames) -> None:
    exact = SlotEncoder(model, device="cpu").features(frames)
    fast = SlotEncoder(model, device="cpu", dtype="bfloat16").features(frames)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, exact, atol=0.05)
    assert not np.array_equal(fast, exact)


def test_a_model_without_component_latents(frames: Frames, small_model: Build) -> None:
    encoder = SlotEncoder(small_model("genesis_s"), device="cpu")
    assert encoder.latent_sizes == (7, 0)
    assert encoder.features(frames, mask_geometry=True).shape == (6, 3, 10)


# ---- whose weights -------------------------------------------------------------------------------


def test_the_callers_model_is_not_touched(model: Any, frames: Frames) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    encoder = SlotEncoder(model, device="cpu")
    encoder(frames)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    want = encoder.features(frames)
    with torch.no_grad():
        model.encoder.convs[0].conv.weight.mul_(3)
    np.testing.assert_array_equal(encoder.features(frames), want)


def test_own_weights_have_no_gradients_and_stay(encoder: Any, frames: Frames) -> None:
    before = copy.deepcopy(encoder._model.state_dict())
    with torch.enable_grad():
        slots = encoder(frames)
    assert not slots.z_m.requires_grad
    assert not encoder._model.training
    assert not any(parameter.requires_grad for parameter in encoder._model.parameters())
    after = encoder._model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_fingerprint_is_the_models(model: Any, small_model: Build, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "a")
    loaded = SlotEncoder(tmp_path / "a", device="cpu")
    assert loaded.fingerprint == SlotEncoder(model, device="cpu").fingerprint
    assert loaded.fingerprint == fingerprint(model)
    assert loaded.fingerprint != fingerprint(small_model(seed=1, num_slots=4, updates=3))


# ---- where it comes from -------------------------------------------------------------------------


def test_from_a_folder(
    model: Any, tmp_path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(model, tmp_path / "enc", preprocessing=Preprocessing("crop"))
    encoder = SlotEncoder(tmp_path / "enc", device="cpu")
    assert encoder.preprocessing == Preprocessing("crop")
    assert (encoder.image_size, encoder.num_slots, encoder.latent_sizes) == (32, 4, (7, 2))
    crop = SlotEncoder(model, device="cpu", preprocessing=Preprocessing("crop"))
    np.testing.assert_allclose(encoder.features(frames), crop.features(frames), atol=1e-6)
    monkeypatch.chdir(tmp_path)
    assert SlotEncoder("enc", device="cpu").source == str(tmp_path / "enc")
    changed = SlotEncoder("enc", device="cpu", preprocessing=Preprocessing("letterbox"))
    assert changed.preprocessing == Preprocessing("letterbox")


def test_spec_rebuilds_the_encoder(model: Any, tmp_path: Path, frames: Frames) -> None:
    save_pretrained(model, tmp_path / "enc")
    encoder = SlotEncoder(
        tmp_path / "enc",
        device="cpu",
        preprocessing=Preprocessing("letterbox"),
        batch_size=3,
        dtype="bfloat16",
    )
    again = as_encoder(encoder.spec)
    assert again.spec == encoder.spec
    np.testing.assert_array_equal(again.features(frames), encoder.features(frames))


@pytest.mark.parametrize("from_path", [True, False])
def test_pickling(model: Any, tmp_path: Path, frames: Frames, from_path: bool) -> None:
    save_pretrained(model, tmp_path / "enc")
    encoder = SlotEncoder(tmp_path / "enc" if from_path else model, device="cpu")
    data = pickle.dumps(encoder)
    assert (len(data) < 1000) == from_path
    np.testing.assert_array_equal(pickle.loads(data).features(frames), encoder.features(frames))


def test_as_encoder_takes_each_kind(model: Any, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "enc")
    encoder = SlotEncoder(model, device="cpu")
    assert as_encoder(encoder) is encoder
    assert as_encoder(encoder, device="cpu") is encoder
    for kind in (str(tmp_path / "enc"), tmp_path / "enc", model):
        assert as_encoder(kind, device="cpu").fingerprint == encoder.fingerprint
    with pytest.raises(ValueError, match=r"^device "):
        as_encoder(encoder, device="meta")


@pytest.mark.parametrize("model", [None, 3, nn.Linear(2, 2), object()])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(TypeError, match=r"^model "):
        SlotEncoder(model, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"^batch_size "),
        ({"dtype": "float16"}, r"^dtype "),
        ({"refine_steps": -2}, r"^refine_steps "),
        ({"device": "gpu"}, r"^device "),
        ({"device": "mps"}, r"^device "),
        ({"device": torch.device("meta")}, r"^device "),
        ({"device": "cuda:99"}, r"^device "),
        ({"preprocessing": "zoom"}, r"^resize "),
        ({"preprocessing": {"resize": "zoom"}}, r"^resize "),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlotEncoder(Bands(), **{"device": "cpu", **options})


@pytest.mark.parametrize("value", ["8", 1.5, None, math.inf, True, np.float64(2)])
@pytest.mark.parametrize("name", ["batch_size", "refine_steps"])
def test_counts_are_integers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} .*integer"):
        SlotEncoder(Bands(), device="cpu", **{name: value})
    with pytest.raises(ValueError, match=rf"^{name} .*integer"):
        DistillConfig("teacher", **{name: value})
    with pytest.raises(ValueError, match=r"^\w+ .*integer"):
        ScoreConfig(**{{"batch_size": "num_images"}.get(name, name): value})


def test_integers_of_numpy_and_a_torch_device_are_taken(frames: Any) -> None:
    encoder = SlotEncoder(Bands(), device=torch.device("cpu"), batch_size=np.int64(4))  # type: ignore[arg-type]
    assert encoder.spec["device"] == "cpu"
    assert encoder.features(frames).shape == (6, 5, 7)


@pytest.mark.parametrize("device", [None, 0.5, ["cpu"]])
def test_what_is_no_device(device: Any) -> None:
    with pytest.raises(TypeError, match=r"^device "):
        SlotEncoder(Bands(), device=device)


# ---- values that are not finite ------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(small_model: Build) -> dict[str, SlotEncoder]:
    """Encoders with a NaN in the weights that infer, and in those that decode alone."""
    found = {}
    for part in ("encoder", "decoder"):
        model = small_model(updates=3)
        weights = model.component_decoder if part == "decoder" else model.encoder
        with torch.no_grad():
            next(weights.parameters()).fill_(math.nan)
        found[part] = SlotEncoder(model, device="cpu")
    return found


@pytest.mark.parametrize("entry", ["__call__", "features", "segment"])
def test_weights_with_nan_are_refused_by_every_entry(
    entry: str, broken: dict[str, SlotEncoder], frames: Any
) -> None:
    with pytest.raises(ValueError, match=r"^latents and masks "):
        getattr(broken["encoder"], entry)(frames)


def test_decoders_with_nan_are_refused(broken: dict[str, SlotEncoder], frames: Any) -> None:
    encoder = broken["decoder"]
    features = encoder.features(frames)  # needs no decoder
    with pytest.raises(ValueError, match=r"^latents and masks "):
        encoder.segment(frames)
    with pytest.raises(ValueError, match=r"^latents and masks "):
        encoder.decode(features)


@pytest.mark.parametrize("entry", ["__call__", "features", "segment"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_frames_with_nan_are_refused_by_every_entry(
    encoder: Any, entry: str, value: float, frames: Any
) -> None:
    spoilt = frames / np.float32(255)
    spoilt[1, 2, 3] = value
    with pytest.raises(ValueError, match=r"^frames "):
        getattr(encoder, entry)(spoilt)


@pytest.mark.parametrize("part", ["z_m", "z_c", "log_pi"])
def test_masks_of_broken_slots_are_refused(encoder: Any, part: str, frames: Any) -> None:
    slots = encoder(frames)
    assert np.isfinite(encoder.masks(slots)).all()
    with torch.inference_mode():
        getattr(slots, part)[0].fill_(math.nan)
    with pytest.raises(ValueError, match=r"^latents and masks "):
        encoder.masks(slots)


def test_a_mask_of_zero_is_no_fault(encoder: Any, frames: Any) -> None:
    slots = encoder(frames)
    with torch.inference_mode():
        slots.log_pi[:, 0].fill_(-math.inf)
    assert (encoder.masks(slots)[:, 0] == 0).all()


# ---- arrays and tensors --------------------------------------------------------------------------


def test_features_are_decoded_as_arrays_and_as_tensors(encoder: Any, frames: Any) -> None:
    features = encoder.features(frames)
    array, tensor = (encoder.decode(one) for one in (features, torch.from_numpy(features)))
    assert torch.equal(array.mu_x, tensor.mu_x) and torch.equal(array.log_pi, tensor.log_pi)
    features[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^latents and masks "):
        encoder.decode(features)


def test_arrays_where_tensors_are_wanted_are_named(encoder: Any, frames: Any) -> None:
    model = encoder.model
    images = np.zeros((1, 3, 32, 32), np.float32)
    calls: dict[str, Callable[[], Any]] = {
        r"^x ": lambda: model.infer(images),
        r"^z_m ": lambda: Slots(images, images, images),  # type: ignore[arg-type]
        r"^slots ": lambda: encoder.masks(encoder.features(frames)),
        r"^features ": lambda: encoder.decode([[1.0]]),
        r"^slots .*ndarray": lambda: model.decode(encoder.features(frames)),
    }
    for message, call in calls.items():
        with pytest.raises(TypeError, match=message):
            call()


def test_a_missing_or_truncated_checkpoint(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        SlotEncoder(tmp_path / "nowhere", device="cpu")
    save_pretrained(model, tmp_path / "enc")
    weights = tmp_path / "enc" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        SlotEncoder(tmp_path / "enc", device="cpu")


def test_broken_weights_are_named(frames: Frames) -> None:
    with pytest.raises(ValueError, match=r"^latents and masks "):
        SlotEncoder(Bands(scale=float("nan")), device="cpu").features(frames)


# ---- processes and devices -----------------------------------------------------------------------


def test_cuda_in_a_forked_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder_module._enter_process(torch.device("cuda"))
    monkeypatch.setattr(encoder_module, "_IMPORT_PID", -1)
    with pytest.raises(RuntimeError, match=r"parent.*VecGenesisObs.*GenesisVectorObs"):
        encoder_module._enter_process(torch.device("cuda"))


def test_tf32_is_off_only_while_encoding() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    with encoder_module._no_tf32(torch.device("cuda")):
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32 == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_the_cpu_and_itself_in_any_batch(model: Any, frames: Frames) -> None:
    encoder = SlotEncoder(model)
    assert encoder.device.type == "cuda"
    batch = encoder.features(frames)
    alone = np.concatenate([encoder.features(frame) for frame in frames])
    np.testing.assert_allclose(alone, batch, atol=1e-5)
    np.testing.assert_allclose(SlotEncoder(model, device="cpu").features(frames), batch, atol=1e-4)


def test_a_compiled_encoder_gives_the_same_slots(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the graph capture of torch.compile but without its code generation, for speed."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    plain, compiled = SlotEncoder(model), SlotEncoder(model, compile=True)
    np.testing.assert_allclose(
        compiled.features(frames), plain.features(frames), atol=1e-5, rtol=1e-4
    )
    assert compiled.spec["compile"] and not plain.spec["compile"]


@pytest.mark.parametrize("name", ["genesis", "genesis_s", "monet", "bd_vae"])
def test_decode_is_the_way_back(name: str) -> None:
    config_class, _ = MODELS[name]
    torch.manual_seed(0)
    model = build_model(config_class(image_size=32)).eval()
    encoder = SlotEncoder(model, device="cpu", batch_size=2)
    slots = encoder(torch.rand(3, 3, 32, 32))
    features = torch.cat([slots.features, slots.mask_geometry()], dim=-1)
    with torch.no_grad():
        copied = Slots(slots.z_m.clone(), slots.z_c.clone(), slots.log_pi.clone())
        if name == "monet":  # its own masks are the attention's
            copied = model.redraw_masks(copied)
        wanted = model.decode(copied)
    found = encoder.decode(features)
    assert torch.allclose(found.mu_x, wanted.mu_x, atol=1e-5)
    assert torch.allclose(found.log_pi, wanted.log_pi, atol=1e-4)
    with pytest.raises(ValueError, match=r"^features "):
        encoder.decode(features[:, :, None])
    with pytest.raises(ValueError, match=r"^features "):
        encoder.decode(features[:, :, :2])


def test_an_encoder_refines_what_it_infers(model: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    encoder = SlotEncoder(model, device="cpu", batch_size=2, refine_steps=2)
    with torch.no_grad():
        expected = refine(model, x, model.infer(x), 2)
    slots = encoder(frames)
    torch.testing.assert_close(slots.features, expected.features, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(slots.log_pi, expected.log_pi, rtol=1e-2, atol=1e-3)
    assert encoder.spec["refine_steps"] == 2
    plain = SlotEncoder(model, device="cpu")
    assert plain.fingerprint == encoder.fingerprint
    assert (plain(frames).features - slots.features).abs().max() > 0.01


def test_frames_are_segmented_by_what_their_pixels_show(model: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        log_p = model.log_responsibilities(x, model.decode(model.infer(x)))
    labels = SlotEncoder(model, device="cpu", batch_size=2).segment(frames)
    assert labels.dtype == np.uint8 and labels.shape == (3, 32, 32)
    assert (labels == log_p.argmax(1)[:, 0].numpy()).mean() > 0.999  # but for ties
