"""Validation: scores and image grids of held-out images."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genesis_rl.data.pack import Pack
from genesis_rl.models import Genesis
from genesis_rl.training.validate import baseline_scores, labelled_images, pictures, validate

CPU = torch.device("cpu")
N, SIDE = 9, 32  # images of a pack, and their side
RECONSTRUCTION = {"mse", "nll", "kl_m", "kl_c"}
SEGMENTATION = {"ari", "ari_fg", "ari_fg_2plus", "sc", "msc"}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_validation_scores(
    tiny: Genesis, write_pack: Callable[..., Pack], tmp_path: Path, masks: bool, training: bool
) -> None:
    pack = write_pack(tmp_path / "pack", masks)
    tiny.train(training)
    state = {name: value.clone() for name, value in tiny.state_dict().items()}
    scores = validate(tiny, pack, 5, seed=1)
    assert scores.keys() == RECONSTRUCTION | (SEGMENTATION if masks else set())
    assert all(type(value) is float and math.isfinite(value) for value in scores.values())
    assert tiny.training == training and tiny.encoder.training == training
    for name, value in tiny.state_dict().items():  # batch statistics, too
        assert torch.equal(value, state[name]), name
    assert validate(tiny, pack, 5, seed=1) == scores
    other = validate(tiny, pack, 5, seed=2)
    assert other["mse"] == scores["mse"] and other["nll"] != scores["nll"]


def test_validation_uses_at_most_the_images_of_the_pack(tiny: Genesis, pack: Pack) -> None:
    assert validate(tiny, pack, 1000) == validate(tiny, pack, N)
    assert validate(tiny, pack, 1)["mse"] != validate(tiny, pack, N)["mse"]


def test_the_mse_is_of_posterior_means(tiny: Genesis, pack: Pack) -> None:
    images, masks = next(labelled_images(pack, 4, CPU))
    assert images.shape == (4, 3, SIDE, SIDE) and images.max() <= 1
    assert masks is not None and masks.shape == (4, SIDE, SIDE) and masks.dtype == torch.int64
    tiny.eval()
    with torch.no_grad():
        image = tiny.decode(tiny.infer(images)).image
    assert validate(tiny, pack, 4)["mse"] == pytest.approx(float((image - images).square().mean()))


def test_validation_restores_the_mode_after_an_error(
    tiny: Genesis, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    tiny.train()
    monkeypatch.setattr(tiny, "infer", broken)
    with pytest.raises(RuntimeError, match="broken"):
        validate(tiny, pack, 2)
    assert tiny.training


def test_batches_of_images_are_consecutive(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis_rl.training.validate._BATCH", 4)
    batches = [images for images, _ in labelled_images(pack, N, CPU)]
    assert [len(images) for images in batches] == [4, 4, 1]
    want = torch.from_numpy(np.array(pack.images)).permute(0, 3, 1, 2) / 255
    assert torch.equal(torch.cat(batches), want)


def test_baselines_are_scored_where_there_are_masks(
    pack: Pack, write_pack: Callable[..., Pack], tmp_path: Path
) -> None:
    scores = baseline_scores(pack, 5, num_slots=3)
    assert len(scores) >= 3
    for figures in scores.values():
        assert figures.keys() >= SEGMENTATION
    assert baseline_scores(write_pack(tmp_path / "bare", masks=False), 5, 3) == {}


def test_pictures_are_grids_of_held_out_images_and_samples(tiny: Genesis, pack: Pack) -> None:
    tiny.train()
    grids = pictures(tiny, pack)
    assert grids.keys() == {"decomposition", "samples"} and tiny.training
    for grid in grids.values():
        assert grid.ndim == 3 and grid.shape[2] == 3 and grid.dtype == np.uint8
    np.testing.assert_array_equal(pictures(tiny, pack)["samples"], grids["samples"])
    assert (pictures(tiny, pack, seed=1)["samples"] != grids["samples"]).any()
