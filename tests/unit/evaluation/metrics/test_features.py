"""Feature networks: targets, training, caching and ranking; Inception's errors and features."""

import json
import shutil
import subprocess
import sys
import types
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data import Pack, PackWriter, open_dataset
from genesis_rl.evaluation.metrics.factor_network import (
    FactorConfig,
    cell_targets,
    count_objects,
    object_shapes,
)
from genesis_rl.evaluation.metrics.features import (
    FILE,
    SOURCE,
    FactorFeatures,
    InceptionFeatures,
    digest,
)
from genesis_rl.evaluation.metrics.frechet import SampleScorer, pack_images

H, W = 16, 24
# What torchmetrics takes from torch-fidelity, with a network of the same parts that is one layer.
STAND_IN = """
import torch
from torch import nn
class FeatureExtractorInceptionV3(nn.Module):
    INPUT_IMAGE_SIZE = 299
    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        self.features_list = features_list
        for part in ("Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_1 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_2"
                     " Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e"
                     " Mixed_7a Mixed_7b Mixed_7c").split():
            setattr(self, part, nn.Identity())
        self.Conv2d_1a_3x3 = nn.Conv2d(3, 2048, 1, stride=100)
        self.AvgPool = nn.AdaptiveAvgPool2d(1)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))
"""
USE = """
import sys
import torch
from genesis_rl.evaluation.metrics.features import InceptionFeatures
folder = sys.argv[1]
try:
    InceptionFeatures(f"{folder}/other.pth", device="cpu")
except ValueError as error:
    print(error)
features = InceptionFeatures(f"{folder}/weights.pth", device="cpu")
state = torch.load(f"{folder}/weights.pth")
levels = torch.arange(256).float() / 255
images = torch.stack([levels, levels.flip(0), torch.ones(256)], 1)[:, :, None, None]
images = images.expand(-1, -1, 4, 6)[::7]
found = features(images)
colours = ((images[:, :, 0, 0] * 255).round() - 128) / 128
expected = colours @ state["Conv2d_1a_3x3.weight"].flatten(1).T + state["Conv2d_1a_3x3.bias"]
print(found.shape, torch.allclose(found, expected, atol=1e-5), features.width)
print(len(features.fingerprint), "torchvision" in sys.modules)
for bad in (images[0], torch.full((1, 3, 4, 4), torch.nan)):
    try:
        features(bad)
    except ValueError as error:
        print(error)
"""


def boxes(n: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return images (n, H, W, 3) of one to three boxes on a uniform background, and their masks."""
    rng = np.random.default_rng(seed)
    images = np.empty((n, H, W, 3), np.uint8)
    masks = np.zeros((n, H, W), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        image[:] = rng.integers(256, size=3)
        for label in range(1, rng.integers(2, 5)):
            row, column = rng.integers(H - 6), rng.integers(W - 6)
            place = np.s_[row : row + 6, column : column + 6]
            image[place], mask[place] = rng.integers(256, size=3), label
    return images, masks


def write(folder: Path, n: int = 120, seed: int = 0, *, masks: bool = True) -> Pack:
    images, labels = boxes(n, seed)
    with PackWriter(folder, n, (H, W), masks=masks, meta={"dataset": "boxes"}) as writer:
        writer.write(images, labels if masks else None)
    return Pack.open(folder)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write(tmp_path_factory.mktemp("features") / "pack")


@pytest.fixture(scope="module")
def network(pack: Pack) -> FactorFeatures:
    return FactorFeatures.train(pack, steps=3, device="cpu")


@pytest.fixture(scope="module")
def dsprites(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Pack]:
    root = tmp_path_factory.mktemp("dsprites")
    return lambda split, n: open_dataset(
        "multi_dsprites", split, image_size=32, num_images=n, root=root
    )


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 3, H, W, generator=torch.Generator().manual_seed(0))


def test_cells_hold_areas_by_shape_and_mean_colours() -> None:
    # Cells have 2 x 3 pixels. Label 1 has shape 2, label 2 has shape 1.
    masks = torch.zeros(1, 8, 12, dtype=torch.uint8)
    masks[0, 0, 0:2], masks[0, 1, 0:3], masks[0, 6:, 9:] = 1, 2, 2
    x = torch.zeros(1, 3, 8, 12)
    x[0, 0] = 0.25  # background
    x[0, :, 0, 0:2] = torch.tensor([1.0, 0, 0])[:, None]
    x[0, :, 1, 0:3] = torch.tensor([0, 0.5, 0])[:, None]
    x[0, :, 6:, 9:] = torch.tensor([0, 0, 1.0])[:, None, None]
    cells = cell_targets(x, masks, torch.tensor([[0, 2, 1, 1]], dtype=torch.uint8), 2)
    area = torch.zeros(1, 16, 2)
    area[0, 0], area[0, 15] = torch.tensor([3 / 6, 2 / 6]), torch.tensor([1.0, 0])
    torch.testing.assert_close(cells.area, area)
    colour = torch.zeros(1, 16, 3)
    colour[0, 0], colour[0, 15] = torch.tensor([2 / 5, 1.5 / 5, 0]), torch.tensor([0, 0, 1.0])
    torch.testing.assert_close(cells.colour, colour)
    torch.testing.assert_close(cells.background, torch.tensor([[0.25, 0, 0]]))
    torch.testing.assert_close(cells.background_area, torch.tensor([85 / 96]))


def test_a_scene_without_background_has_finite_targets() -> None:
    ones = torch.ones(1, 8, 8, dtype=torch.uint8)
    cells = cell_targets(torch.rand(1, 3, 8, 8), ones, torch.tensor([[0, 1]]), 1)
    assert all(value.isfinite().all() for value in cells)
    assert cells.background_area == 0 and (cells.area == 1).all()


def test_only_visible_objects_are_counted(tmp_path: Path) -> None:
    masks = np.zeros((3, 4, 5), np.uint8)
    masks[1, 0, 0], masks[1, 0, 1], masks[2] = 255, 3, 7
    with PackWriter(tmp_path / "pack", 3, (4, 5)) as writer:
        writer.write(np.zeros((3, 4, 5, 3), np.uint8), masks)
    pack = Pack.open(tmp_path / "pack")
    assert count_objects(pack).tolist() == [0, 2, 1]
    names, shapes = object_shapes(pack)
    assert (
        names == ("object",) and shapes[:, 0].tolist() == [0, 0, 0] and (shapes[:, 1:] == 1).all()
    )


def test_shape_factors_match_mask_labels(
    tmp_path: Path, dsprites: Callable[[str, int], Pack]
) -> None:
    pack = dsprites("train", 120)
    names, shapes = object_shapes(pack)
    assert names == ("square", "ellipse", "heart")
    count, shape = pack.factors["count"], pack.factors["shape"]
    for row in range(20):
        assert shapes[row, 1 : 1 + count[row]].tolist() == [*(shape[row, : count[row]] + 1)]
    options: dict[str, Any] = {"image_size": 32, "num_images": 4, "root": tmp_path}
    scene_options: dict[str, Any] = {"shapes": ("circle", "star_4"), "num_objects": 2}
    scenes = open_dataset("sprite_scenes", "test", **options, **scene_options)
    names, shapes = object_shapes(scenes)
    state = scenes.factors["state"]
    circles = state[..., 7 + names.index("circle")] == 1
    assert 0 < circles.sum() < 8
    np.testing.assert_array_equal(shapes[:, 1:3] == 1 + names.index("circle"), circles)


def test_a_network_is_a_function_of_pack_steps_and_seed(
    pack: Pack, network: FactorFeatures
) -> None:
    state = torch.get_rng_state()
    same = FactorFeatures.train(pack, steps=3, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert same.fingerprint == network.fingerprint and same.held_out == network.held_out
    for change in ({"steps": 2}, {"seed": 1, "steps": 3}):
        other = FactorFeatures.train(pack, device="cpu", **change)
        assert other.fingerprint != network.fingerprint
        assert not torch.equal(other(images()), network(images()))


def test_features_are_independent_of_the_batch(network: FactorFeatures) -> None:
    x = images(5)
    features = network(x)
    assert features.shape == (5, network.width) == (5, 64) and features.dtype == torch.float32
    torch.testing.assert_close(network(x[2:3]), features[2:3], rtol=1e-4, atol=1e-5)
    assert network.config.image_size == (H, W) and network.config.most_objects == 3


@pytest.mark.parametrize("shape", [(2, 3, W, H), (2, 1, H, W), (3, H, W)])
def test_images_of_another_size_raise(network: FactorFeatures, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^images "):
        network(torch.zeros(shape))


def test_a_network_is_saved_and_loaded(tmp_path: Path, network: FactorFeatures) -> None:
    network.save(tmp_path / "deep" / "features")
    loaded = FactorFeatures.load(tmp_path / "deep" / "features", device="cpu")
    assert loaded.fingerprint == network.fingerprint
    assert loaded.config == network.config and loaded.held_out == network.held_out
    assert torch.equal(loaded(images()), network(images()))


def _edit(change: dict[str, Any]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for key, value in change.items():
            target = config["config"] if key in config["config"] else config
            target[key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"config.json .*JSON"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config.json .*JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config.json .*kind"),
        (_edit({"kind": "model"}), r"config.json .*kind"),
        (_edit({"format": 2}), r"config.json .*format"),
        (_edit({"steps": 0}), r"config.json .*steps "),
        (_edit({"seed": "x"}), "config.json "),
        (_edit({"held_out": None}), "config.json "),
        (_edit({"most_objects": 4}), r"answers.weight .*shape"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model.safetensors .*missing"),
        (
            lambda folder: (folder / "model.safetensors").write_text(""),
            r"model.safetensors .*damaged",
        ),
    ],
)
def test_damaged_folders_raise(
    tmp_path: Path, network: FactorFeatures, damage: Callable[[Path], object], message: str
) -> None:
    network.save(tmp_path / "features")
    damage(tmp_path / "features")
    with pytest.raises(ValueError, match=message):
        FactorFeatures.load(tmp_path / "features")


def test_a_cached_network_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = write(tmp_path / "pack", 100)
    first = FactorFeatures.cached(pack, steps=1, device="cpu")
    monkeypatch.setattr(FactorFeatures, "train", None)
    second = FactorFeatures.cached(Pack.open(pack.folder), steps=1, device="cpu")
    assert second.fingerprint == first.fingerprint
    with pytest.raises(TypeError):  # different arguments require training
        FactorFeatures.cached(pack, steps=2, device="cpu")
    Pack.open(pack.folder)  # still complete


def test_an_unwritable_cache_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = write(tmp_path / "pack", 100)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.warns(UserWarning, match="Errno 13"):
        network = FactorFeatures.cached(pack, steps=1, device="cpu")
    assert network(images()).shape == (2, 64)
    assert not list(pack.folder.glob("*features-*"))


def test_other_packs_have_other_digests(tmp_path: Path, pack: Pack) -> None:
    copy, other = write(tmp_path / "copy"), write(tmp_path / "other", seed=1)
    assert digest(pack) == digest(copy) != digest(other)


def test_insufficient_packs_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^pack .*masks"):
        FactorFeatures.train(write(tmp_path / "bare", masks=False))
    with pytest.raises(ValueError, match=r"^pack .*99"):
        FactorFeatures.train(write(tmp_path / "small", 99))
    with PackWriter(tmp_path / "empty", 100, (H, W)) as writer:
        writer.write(np.zeros((100, H, W, 3), np.uint8), np.zeros((100, H, W), np.uint8))
    with pytest.raises(ValueError, match=r"^masks "):
        FactorFeatures.train(Pack.open(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (15, 32)}, r"^image_size "),
        ({"steps": 0}, r"^steps "),
        ({"seed": -1}, r"^seed "),
        ({"most_objects": 0}, r"^masks "),
    ],
)
def test_invalid_options_raise(change: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {
        "image_size": (16, 16),
        "shapes": ("object",),
        "most_objects": 1,
        "data": "",
    }
    with pytest.raises(ValueError, match=message):
        FactorConfig(**valid | change)


def test_trained_features_predict_factors_and_rank_images(tmp_path: Path) -> None:
    network = FactorFeatures.train(write(tmp_path / "train", 2500), steps=150, device="cpu")
    # The pack has no shape factor, so there is no shape_accuracy.
    assert network.held_out.keys() == {"objects_accuracy", "area_r2", "colour_r2", "background_r2"}
    assert network.held_out["background_r2"] > 0.9 and network.held_out["colour_r2"] > 0.5
    assert network.held_out["area_r2"] > 0.4 and network.held_out["objects_accuracy"] > 0.4
    test = write(tmp_path / "test", 600, seed=1)
    scorer = SampleScorer(network, test)
    generator = torch.Generator().manual_seed(0)

    def held_out_images() -> Iterator[Tensor]:
        return pack_images(test, 300, 300)

    points = scorer.references()
    blurred = scorer.distance(F.avg_pool2d(x, 7, 1, 3) for x in held_out_images())
    noise = scorer.distance(torch.rand(x.shape, generator=generator) for x in held_out_images())
    assert 3 * points["real"] < blurred < noise
    assert 3 * points["real"] < points["shuffled_pixels"] < points["mean_image"]
    scale = torch.cat([network(x) for x in held_out_images()]).var(0)  # about 1 each
    assert points["mean_image"] > 0.8 * float(scale.sum()) > 0.5 * network.width


def test_packs_with_shapes_have_a_shape_accuracy(dsprites: Callable[[str, int], Pack]) -> None:
    network = FactorFeatures.train(dsprites("train", 120), steps=1, device="cpu")
    assert 0 <= network.held_out["shape_accuracy"] <= 1
    assert network.config.shapes == ("square", "ellipse", "heart")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch-fidelity importable."""
    pytest.importorskip("torchmetrics.image.fid")  # it looks for torch-fidelity when imported
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


def test_without_torch_fidelity_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"torch-fidelity.*'genesis_rl\[fid\]'") as info:
        InceptionFeatures(device="cpu")
    assert "FactorFeatures" in str(info.value) and "\n" not in str(info.value)


def test_a_torchvision_that_does_not_fit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_fidelity").mkdir()
    problem = "raise RuntimeError('operator torchvision::nms does not exist\\nmore')"
    (tmp_path / "torch_fidelity" / "__init__.py").write_text(problem)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"torch-fidelity.*nms.*pip") as info:
        InceptionFeatures(device="cpu")
    assert "\n" not in str(info.value)


@pytest.mark.usefixtures("installed")
def test_offline_the_file_to_get_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, path: str, prefix: str) -> None:
        asked.append((url, path, prefix))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ValueError, match=r"Inception .*no route to host") as info:
        InceptionFeatures(device="cpu")
    assert SOURCE in str(info.value) and "\n" not in str(info.value)
    assert asked == [(SOURCE, str(tmp_path / "checkpoints" / FILE), "6726825d")]


@pytest.mark.usefixtures("installed")
def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.pth "):
        InceptionFeatures(tmp_path / "none.pth", device="cpu")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"^weights .*text\.pth"):
        InceptionFeatures(tmp_path / "text.pth", device="cpu")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "object.pth")  # more than tensors: not unpickled
    with pytest.raises(ValueError, match=r"^weights .*object\.pth"):
        InceptionFeatures(tmp_path / "object.pth", device="cpu")


def test_torchmetrics_runs_the_network_that_torch_fidelity_defines(tmp_path: Path) -> None:
    package = tmp_path / "torch_fidelity"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "feature_extractor_inceptionv3.py").write_text(STAND_IN)
    (package / "helpers.py").write_text("def vassert(truth, message):\n    assert truth\n")
    (package / "interpolate_compat_tensorflow.py").write_text(
        "from torch.nn.functional import interpolate\n"
        "def interpolate_bilinear_2d_like_tensorflow1x(x, size, align_corners):\n"
        "    return interpolate(x, size)\n"
    )
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 2048, 1)
    state = {f"Conv2d_1a_3x3.{name}": value for name, value in layer.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}){USE}", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    refused, shapes, rest, *bad = result.stdout.splitlines()
    assert "other.pth" in refused
    assert shapes == "torch.Size([37, 2048]) True 2048"
    assert rest == "64 False"
    assert bad == [
        "images must have shape (any, 3, any, any), got (3, 4, 6).",
        "images must be finite.",
    ]
