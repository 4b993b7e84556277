"""Fixtures for tests of pretraining: a small pack, a tiny model, a config of a few steps."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.models import Genesis
from genesis_rl.training import PretrainConfig

N, SIDE = 9, 32


@pytest.fixture
def write_pack() -> Callable[..., Pack]:
    """Write a pack of grey images with two squares."""

    def write(folder: Path, masks: bool = True, side: int = SIDE) -> Pack:
        rng = np.random.default_rng(0)
        images = np.full((N, side, side, 3), 128, np.uint8)
        labels = np.zeros((N, side, side), np.uint8)
        for image, label in zip(images, labels, strict=True):
            for k in (1, 2):
                row, column = rng.integers(0, side - 8, 2)
                image[row : row + 8, column : column + 8] = rng.integers(0, 256, 3)
                label[row : row + 8, column : column + 8] = k
        with PackWriter(folder, N, side, masks=masks) as writer:
            writer.write(images, labels if masks else None)
        return Pack.open(folder)

    return write


@pytest.fixture(scope="session")
def train_program() -> Any:
    """The module of pretrain/train.py."""
    path = Path(__file__).parents[3] / "pretrain" / "train.py"
    spec = importlib.util.spec_from_file_location("train_program", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(write_pack: Callable[..., Pack], tmp_path: Path) -> Pack:
    return write_pack(tmp_path / "pack")


@pytest.fixture
def tiny(small_model: Callable[..., Genesis]) -> Genesis:
    return small_model().train()


@pytest.fixture
def config(pack: Pack, tmp_path: Path, small_config: Callable[..., Any]) -> PretrainConfig:
    return PretrainConfig(
        model=small_config(),
        data=str(pack.folder),
        steps=20,
        batch_size=4,
        precision="fp32",
        device="cpu",
        eval_images=5,
        tensorboard=False,
        out=tmp_path / "run",
    )
