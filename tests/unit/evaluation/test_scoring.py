"""Scores of a model and of what is no model, on a pack of two squares an image."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from genesis_rl.data import Pack, PackWriter
from genesis_rl.evaluation import metrics
from genesis_rl.evaluation.metrics.frechet import SampleScorer
from genesis_rl.evaluation.scoring import ScoreConfig, baselines, score
from genesis_rl.models.refinement import refine
from genesis_rl.training.validate import validate

N, SIDE = 7, 32
IMAGES = {"mse", "nll", "kl_m", "kl_c", "elbo", "iwae", "elbo_bpd", "iwae_bpd"} | {
    "active_slots",
    "active_latents",
}
SEGMENTATION = {"ari", "ari_fg", "ari_fg_2plus", "sc", "msc"}
POSTERIOR = {f"posterior_{name}" for name in SEGMENTATION}
OBJECTS = SEGMENTATION | {
    "objects_lost",
    "same_colour_shared",
    "other_colour_shared",
    "twins_shared",
}


class Samples:
    """Stands for the scorer of samples."""

    def __call__(self, model: Any, *, seed: int) -> dict[str, Any]:
        return {"distance": 10.0 + seed}

    def references(self) -> dict[str, float]:
        return {"real": 0.5, "mean_image": 80.0}


@pytest.fixture
def make_pack(tmp_path: Path) -> Callable[..., Pack]:
    def make(name: str = "pack", *, masks: bool = True, alike: bool = False) -> Pack:
        rng = np.random.default_rng(0)
        images = np.full((N, SIDE, SIDE, 3), 128, np.uint8)
        labels = np.zeros((N, SIDE, SIDE), np.uint8)
        for image, label in zip(images, labels, strict=True):
            for k, column in ((1, 2), (2, 18)):
                row = rng.integers(0, SIDE - 8)
                image[row : row + 8, column : column + 8] = 250 if alike else 100 * k
                label[row : row + 8, column : column + 8] = k
        with PackWriter(tmp_path / name, N, SIDE, masks=masks) as writer:
            writer.write(images, labels if masks else None)
        return Pack.open(tmp_path / name)

    return make


@pytest.fixture(params=["genesis_s", "bd_vae"])
def model(request: pytest.FixtureRequest, small_model: Callable[..., Any]) -> Any:
    return small_model(request.param)


CONFIG = ScoreConfig(num_images=5, seed=1, iw_samples=3)


def test_scores_are_of_the_first_images(model: Any, make_pack: Callable[..., Pack]) -> None:
    pack = make_pack()
    scores = score(model, pack, CONFIG)
    names = OBJECTS | POSTERIOR
    assert scores.keys() == IMAGES | names | {f"{name}_images" for name in names}
    images = torch.from_numpy(pack.images[:5].copy()).permute(0, 3, 1, 2) / 255
    masks = torch.from_numpy(pack.masks[:5].astype(np.int64))  # type: ignore[index]
    with torch.no_grad():
        slots = model.infer(images)
        mse = (model.decode(slots).image - images).square().mean()
    assert scores["mse"] == pytest.approx(float(mse), rel=1e-5)
    labels = metrics.segment(slots.log_pi)
    expected = metrics.average(metrics.scene_scores(masks, labels, images))
    with torch.no_grad():
        after = metrics.segment(model.log_responsibilities(images, model.decode(slots)))
    for name, value in metrics.average(metrics.image_scores(masks, after)).items():
        expected[f"posterior_{name}"] = value
    for name, value in expected.items():
        assert scores[name] == (pytest.approx(value) if math.isfinite(value) else None), name
    assert scores["ari_images"] == 5
    assert scores["same_colour_shared"] is None and scores["same_colour_shared_images"] == 0
    assert scores["active_slots"] == float(metrics.active_slots(labels).mean())


def test_slots_are_refined_before_they_are_scored(
    model: Any, make_pack: Callable[..., Pack]
) -> None:
    pack = make_pack()
    plain, refined = (score(model, pack, replace(CONFIG, refine_steps=steps)) for steps in (0, 9))
    images = torch.from_numpy(pack.images[:5].copy()).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        slots = refine(model, images, model.infer(images), 9)
        mse = (model.decode(slots).image - images).square().mean()
    assert refined["mse"] == pytest.approx(float(mse), rel=1e-5)
    assert refined["mse"] != plain["mse"]
    assert refined["elbo"] == plain["elbo"]  # the encoder's own


def test_bounds_agree_with_each_other_and_the_terms(
    model: Any, make_pack: Callable[..., Pack]
) -> None:
    pack = make_pack()
    scores = cast("dict[str, float]", score(model, pack, CONFIG))
    assert scores["elbo"] < scores["iwae"]
    negative = scores["nll"] + scores["kl_m"] + scores["kl_c"]
    assert scores["elbo"] == pytest.approx(-negative, abs=5)  # of other noise
    for name in ("elbo", "iwae"):
        bits = metrics.bits_per_dim(scores[name], 3 * SIDE * SIDE, levels=256)
        assert scores[f"{name}_bpd"] == pytest.approx(bits)
    one = score(model, pack, replace(CONFIG, iw_samples=1))
    assert one["elbo"] == one["iwae"]


def test_the_seed_decides_the_noise(model: Any, make_pack: Callable[..., Pack]) -> None:
    pack = make_pack()
    scores, other = score(model, pack, CONFIG), score(model, pack, replace(CONFIG, seed=2))
    assert score(model, pack, CONFIG) == scores
    assert other["iwae"] != scores["iwae"] and other["mse"] == scores["mse"]
    # The same scores as validation's, of the same noise but for the order of the draws.
    same = validate(model, pack, 5)
    assert same["mse"] == scores["mse"] and same["msc"] == scores["msc"]


def test_all_images_where_there_are_fewer(model: Any, make_pack: Callable[..., Pack]) -> None:
    pack = make_pack()
    assert score(model, pack)["ari_images"] == N
    assert score(model, pack, ScoreConfig(num_images=2))["ari_images"] == 2


def test_without_masks_images_are_scored(model: Any, make_pack: Callable[..., Pack]) -> None:
    pack = make_pack(masks=False)
    model.train()
    assert score(model, pack, CONFIG).keys() == IMAGES
    assert model.training
    assert baselines(pack, 5, 3) == {}


def test_samples_are_scored_by_what_is_given(model: Any, make_pack: Callable[..., Pack]) -> None:
    pack, samples = make_pack(), cast("SampleScorer", Samples())
    assert score(model, pack, CONFIG, samples=samples)["frechet"] == 11.0
    scores = baselines(pack, 5, 3, samples=samples)
    assert list(scores) == ["one_slot", "fixed_grid", "colour_palette", "real", "mean_image"]
    assert scores["mean_image"] == {"frechet": 80.0}


def test_baselines_have_the_scores_of_objects(make_pack: Callable[..., Pack]) -> None:
    scores = baselines(make_pack(alike=True), 5, 4)
    for figures in scores.values():
        assert figures.keys() == OBJECTS | {f"{name}_images" for name in OBJECTS}
        assert figures["other_colour_shared"] is None
    palette = scores["colour_palette"]
    assert palette["same_colour_shared"] == 1 and palette["objects_lost"] == 0
    assert scores["one_slot"]["objects_lost"] == 1
    assert scores["fixed_grid"]["same_colour_shared"] == 0  # the squares stand left and right
    apart = baselines(make_pack("apart"), 5, 4)
    assert apart["colour_palette"]["other_colour_shared"] == 0


@pytest.mark.parametrize("masks", [True, False])
def test_weights_with_nan_have_no_scores(
    masks: bool, model: Any, make_pack: Callable[..., Pack]
) -> None:
    pack = make_pack(masks=masks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ValueError, match=r"^latents and masks "):
        score(model, pack, CONFIG)
    with pytest.raises(ValueError, match=r"^latents and masks "):
        validate(model, pack, 5)


def test_bad_settings_are_named() -> None:
    for change, message in (
        ({"num_images": 0}, r"^num_images "),
        ({"iw_samples": 0}, r"^iw_samples "),
        ({"refine_steps": -1}, r"^refine_steps "),
        ({"seed": -1}, r"^seed "),
    ):
        with pytest.raises(ValueError, match=message):
            ScoreConfig(**change)
