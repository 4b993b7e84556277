"""The standard Inception network: errors if unavailable, and its features."""

import subprocess
import sys
import types
import urllib.error
from pathlib import Path

import pytest
import torch

from genesis_rl.evaluation.metrics.inception import FILE, SOURCE, InceptionFeatures

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
from genesis_rl.evaluation.metrics.inception import InceptionFeatures
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


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch-fidelity importable."""
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
