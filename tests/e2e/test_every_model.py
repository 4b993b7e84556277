"""Every model by the same commands: trained by its preset, loaded, seen through and sampled."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genesis_rl import SlotEncoder, load
from genesis_rl.models import MODELS
from genesis_rl.presets import PRESETS

SMALL = [name for name in PRESETS if name.endswith("-small")]
DATA = json.dumps({"image_size": 32, "num_images": 64, "num_objects": 2})
FLAGS = ("--data", "object_goal", "--data-options", DATA, "--steps", "2", "--batch-size", "2")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_every_model_has_a_preset() -> None:
    presets = {type(PRESETS[name].config.model) for name in SMALL}
    assert presets == {config_class for config_class, _ in MODELS.values()}


@pytest.mark.parametrize("preset", SMALL)
def test_train_load_see_and_sample(
    preset: str,
    data_root: Path,
    tmp_path: Path,
    run_program: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    out = tmp_path / "run"
    flags = ("--preset", preset, "--out", str(out), "--device", "cpu", "--threads", "1")
    status, printed, errors = run_program(
        "pretrain/train.py", *flags, *FLAGS, "--eval-images", "4", "--no-tensorboard"
    )
    assert status == 0, errors
    assert "step 2" in printed and "msc" in printed
    model = load(out, device="cpu")
    assert model.config == PRESETS[preset].config.model
    encoder = SlotEncoder(out, device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    features = encoder.features(frames, mask_geometry=True)
    assert features.shape == (2, model.config.num_slots, sum(model.latent_sizes) + 3)
    scenes = model.sample(2, generator=torch.Generator().manual_seed(0))
    assert model.decode(scenes).image.shape == (2, 3, 32, 32)
