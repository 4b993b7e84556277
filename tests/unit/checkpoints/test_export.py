"""ONNX export: equality with PyTorch, atomic writes, errors."""

import copy
import dataclasses
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from genesis_rl import SlotEncoder
from genesis_rl.checkpoints import export as encoder_module
from genesis_rl.checkpoints.export import (
    ExportConfig,
    ParityError,
    check_batches,
    compare,
    deviation,
    export_encoder,
)
from genesis_rl.checkpoints.loading import CLASSES
from genesis_rl.models import build_model
from genesis_rl.models.blocks import fold_batch_norm
from genesis_rl.models.distilled import Distilled, DistilledConfig
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.utils.extras import MissingExtraError

NAMES = [name for name in CLASSES if name != "iodine"]
CHANGES: dict[str, dict[str, Any]] = {
    "genesis": {"mask_logit_bound": 5.0},
    "genesis_s": {"num_slots": 2, "decode_last_mask": True},
}
Build = Callable[..., Any]


@pytest.fixture
def build(small_model: Build, small_config: Build) -> Build:
    """Build small models with batch norms that are not the identity."""

    def build(name: str = "dc_vae", **changes: Any) -> Any:
        if name != "distilled":
            return small_model(name, updates=1, **CHANGES.get(name, {}) | changes)
        teacher = dataclasses.asdict(small_config(mask_decoder="broadcast"))
        torch.manual_seed(0)
        student = Distilled(DistilledConfig("genesis", teacher, channels=(4, 4, 8)))
        student.infer(torch.rand(8, 3, 32, 32))
        return student.eval()

    return build


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.smoke] * (name == "genesis")) for name in NAMES]
)
def test_the_file_computes_what_the_encoder_computes(
    build: Build, name: str, tmp_path: Path
) -> None:
    model = build(name)
    before = copy.deepcopy(model.state_dict())
    preprocessing = Preprocessing("crop")
    done = export_encoder(model, tmp_path / "new" / "e.onnx", preprocessing=preprocessing)
    assert all(0 <= value <= 1e-4 for value in done.deviations.values())
    assert done.latency == {}
    assert [path.name for path in done.path.parent.iterdir()] == ["e.onnx"]
    # The model is left as it was: it can still be trained.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())

    onnx.checker.check_model(done.path, full_check=True)
    run = session(done.path)
    (frames,) = run.get_inputs()
    assert (frames.name, frames.shape) == ("frames", ["batch", 3, 32, 32])
    assert [output.name for output in run.get_outputs()] == ["z_m", "z_c", "log_pi"]
    assert {output.shape[0] for output in run.get_outputs()} == {"batch"}

    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    encoder = SlotEncoder(model, device="cpu")
    for n in (1, 2, 5):
        x = np.float32(images[:n].transpose(0, 3, 1, 2)) / np.float32(255)
        z_m, z_c, log_pi = run.run(None, {"frames": x})
        want = encoder(images[:n])
        np.testing.assert_allclose(z_m, want.z_m.numpy(), atol=1e-5)
        np.testing.assert_allclose(z_c, want.z_c.numpy(), atol=1e-5)
        np.testing.assert_allclose(log_pi, want.log_pi.numpy(), atol=1e-4)

    about = run.get_modelmeta().custom_metadata_map
    assert about["model"] == name
    values = json.loads(about["config"])
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    assert CLASSES[name][0](**config) == model.config
    assert tuple(json.loads(about["latent_sizes"])) == model.latent_sizes
    assert json.loads(about["preprocessing"]) == {
        "resize": "crop",
        "layout": "BCHW",
        "colours": "RGB",
        "range": [0, 1],
    }
    assert about["fingerprint"] == encoder.fingerprint
    assert int(about["opset"]) == onnx.load(done.path).opset_import[0].version


@pytest.mark.parametrize("order", ["top_down", "hue"])
def test_seeds_and_attention_are_exported(build: Build, tmp_path: Path, order: str) -> None:
    model = build("genesis", compact=True, background="predicted", slot_order=order)
    images = np.full((3, 32, 32, 3), 60, np.uint8)
    images[:, 4:12, 5:13], images[1:, 20:26, 16:24], images[2, 18:24, 2:8] = 255, (255, 0, 0), 200
    done = export_encoder(model, tmp_path / "e.onnx", images=images)
    assert all(0 <= value <= 1e-4 for value in done.deviations.values())
    x = np.float32(images.transpose(0, 3, 1, 2)) / np.float32(255)
    z_m, _, log_pi = session(done.path).run(None, {"frames": x})
    want = SlotEncoder(model, device="cpu")(images)
    np.testing.assert_allclose(z_m, want.z_m.numpy(), atol=1e-4)
    np.testing.assert_allclose(log_pi, want.log_pi.numpy(), atol=1e-3)


def test_masks_that_are_as_good_as_0_keep_their_logarithm(build: Build, tmp_path: Path) -> None:
    model = build("genesis", mask_logit_bound=None)
    with torch.no_grad():
        model.mask_decoder.head.bias.fill_(-150.0)  # sigmoid underflows in float32
    done = export_encoder(model, tmp_path / "e.onnx")
    x = np.zeros((1, 3, 32, 32), np.float32)
    log_pi = session(done.path).run(["log_pi"], {"frames": x})[0]
    assert np.isfinite(log_pi).all() and log_pi.min() < -140


def test_deviation_is_absolute_below_1_and_relative_above() -> None:
    def of(got: list[float], want: list[float]) -> float:
        return deviation(np.array(got, np.float32), np.array(want, np.float32))

    assert of([1, -2], [1.5, -2]) == pytest.approx(0.5 / 1.5)
    assert of([0.25, 7], [0, 7]) == 0.25
    assert of([], []) == 0
    assert np.isnan(of([np.nan], [0]))


# ---- what is refused -----------------------------------------------------------------------------


def test_iodine_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = build_model(CLASSES["iodine"][0](image_size=32, num_slots=2))
    with pytest.raises(ValueError, match=r"^model .*IODINE"):
        export_encoder(model, tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    stranger: Any = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^model "):
        export_encoder(stranger, tmp_path / "e.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra(
    build: Build, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def missing(name: str) -> ModuleType:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=rf"{package}, .*'genesis_rl\[onnx\]'"):
        export_encoder(build(), tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^out "):
        export_encoder(build(), tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="file"):
        export_encoder(build(), tmp_path / "file" / "e.onnx")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_that_deviates_is_not_put_in_place(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.onnx"
    path.write_text("an earlier one")

    def broken(model: Any) -> Any:
        with torch.no_grad():
            model.posterior_head.bias += 1e-3
        return fold_batch_norm(model)

    monkeypatch.setattr(encoder_module, "fold_batch_norm", broken)
    with pytest.raises(ParityError, match=r"z_c .*0\.001"):
        export_encoder(build(), path)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["an earlier one"]


@pytest.mark.parametrize(("fault", "words"), [(2e-4, r"z_c .*0\.0002"), (torch.nan, r"z_c .*nan")])
def test_parity_is_1e_4_and_finite(build: Build, fault: float, words: str) -> None:
    model = build()

    def session(frames: Any) -> list[Any]:
        with torch.no_grad():
            slots = model.infer(torch.from_numpy(frames))
        parts = [part.numpy().copy() for part in (slots.z_m, slots.z_c, slots.log_pi)]
        parts[1][-1, 0, 1] += fault
        return parts

    with pytest.raises(ParityError, match=words):
        compare(session, model, check_batches(32, None))
    fault = 5e-5
    worst = compare(session, model, check_batches(32, None))
    assert worst == {"z_m": 0, "z_c": pytest.approx(5e-5, rel=1e-2), "log_pi": 0}


def test_batches_hold_noise_and_the_given_images() -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    batches = list(check_batches(32, images))
    assert [len(batch) for batch in batches] == [1, 3, 16, 1, 3, 4]  # noise, then the images
    np.testing.assert_array_equal(np.rint(batches[-1] * 255).transpose(0, 2, 3, 1), images)
    rendered = list(check_batches(32, None))
    assert [len(batch) for batch in rendered] == [1, 3, 16, 1, 3, 16]
    for batch in batches + rendered:
        assert batch.dtype == np.float32 and 0 <= batch.min() < batch.max() <= 1


def test_config() -> None:
    with pytest.raises(ValueError, match=r"^repeats "):
        ExportConfig("run", repeats=-1)
