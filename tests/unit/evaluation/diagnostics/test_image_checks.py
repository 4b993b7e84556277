"""Checks of models, on a fake model with prescribed masks and components."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genesis_rl.data import Pack
from genesis_rl.evaluation.diagnostics import (
    CHECKS,
    CheckInputs,
    Finding,
    ModelStatistics,
    Thresholds,
    compute_statistics,
    run_checks,
)
from genesis_rl.evaluation.diagnostics.model_statistics import background_drawn
from genesis_rl.evaluation.metrics import fixed_grid
from genesis_rl.models import GenesisConfig
from genesis_rl.models.base import BaseModel
from genesis_rl.models.geco import GecoConfig
from genesis_rl.slots import Decoded, ElboTerms, Slots
from genesis_rl.training import PretrainConfig

N, H, W, K = 6, 12, 18, 5
GREY, RED, BLUE = (128, 128, 128), (250, 10, 10), (10, 10, 250)
CONFIG = PretrainConfig(model=GenesisConfig(image_size=32), geco=GecoConfig(beta_init=1e-3))


def scenes(masks: bool = True) -> Pack:
    """Return images of a red square (1) and two blue ones (2, 3) on grey, at varying positions."""
    labels = np.zeros((N, H, W), np.uint8)
    for i in range(N):
        labels[i, i : i + 4, 1:5] = 1
        labels[i, 5 - i : 9 - i, 7:11] = 2
        labels[i, i : i + 4, 13:17] = 3
    images = np.array([GREY, RED, BLUE, BLUE], np.uint8)[labels]
    return Pack(Path("scenes"), images, labels if masks else None, {})


IMAGES = torch.from_numpy(scenes().images).permute(0, 3, 1, 2) / 255
LABELS = torch.from_numpy(scenes().masks.astype(np.int64))  # type: ignore[union-attr]
FLAT = torch.tensor(GREY)[:, None, None].expand(3, H, W) / 255


class Fake(BaseModel):
    """A scene model with given slots of pixels, components, latents and KLs."""

    config: Any = None

    def __init__(
        self,
        slots: Tensor,
        components: Tensor | None = None,
        *,
        num_slots: int = K,
        soft: float = 1e-6,
        kl: tuple[float, float] = (20.0, 10.0),
        spread: tuple[float, float] = (1.0, 1.0),
        latent_sizes: tuple[int, int] = (7, 3),
        weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        hot = nn.functional.one_hot(slots, num_slots).movedim(3, 1).unsqueeze(2).float()
        self.log_pi = (hot * (1 - num_slots * soft) + soft).log()
        self.components = painting(slots, num_slots) if components is None else components
        self.kl, self.spread, self._latent_sizes = kl, spread, latent_sizes

    @property
    def latent_sizes(self) -> tuple[int, int]:
        return self._latent_sizes

    def infer(self, x: Tensor, **_: Any) -> Slots:
        number = torch.arange(len(x)).view(-1, 1, 1).expand(-1, self.log_pi.shape[1], -1)
        z = [
            s * number.repeat(1, 1, d) for s, d in zip(self.spread, self.latent_sizes, strict=True)
        ]
        return Slots(z[0], z[1], self.log_pi[: len(x)])

    def decode(self, slots: Slots) -> Decoded:
        unused = 0 * slots.features.sum()  # a path from the latents, for refinement
        return Decoded(self.components[: len(slots.z_m)] + unused, slots.log_pi)

    def nll(self, x: Tensor, decoded: Decoded, *, pixel_weight: Tensor | None = None) -> Tensor:
        return (decoded.image - x).square().sum((1, 2, 3))

    def elbo(self, x: Tensor, **_: Any) -> ElboTerms:
        share = torch.ones(len(x), self.log_pi.shape[1]) / self.log_pi.shape[1]
        return ElboTerms(torch.zeros(len(x)), share * self.kl[0], share * self.kl[1])


def painting(slots: Tensor, num_slots: int = K) -> Tensor:
    """Return components equal to the image inside their slot and grey elsewhere."""
    shown = nn.functional.one_hot(slots, num_slots).movedim(3, 1).unsqueeze(2) > 0
    return torch.where(shown, IMAGES.unsqueeze(1), FLAT)


def stats_of(model: Fake, masks: bool = True, **options: Any) -> ModelStatistics:
    return compute_statistics(model, scenes(masks), N, **options)


def found(name: str, stats: ModelStatistics, config: PretrainConfig = CONFIG, **limits: Any) -> Any:
    finding = CHECKS[name](CheckInputs(config, [], [], stats), Thresholds(**limits))
    assert finding is None or (isinstance(finding, Finding) and finding.name == name)
    return finding


def moved(pairs: dict[int, int]) -> Tensor:
    """Return the true labels as slots, with some labels moved to another slot."""
    slots = LABELS.clone()
    for label, slot in pairs.items():
        slots[LABELS == label] = slot
    return slots


IMAGE_CHECKS = [
    *("reconstruction_not_learnt", "mask_posterior_collapse", "component_posterior_collapse"),
    *("one_slot", "background_split", "soft_masks", "dead_slots", "objects_lost"),
    *("drawn_by_background", "objects_merged", "no_better_than_grid", "no_better_than_palette"),
]


def test_a_correct_model_passes() -> None:
    diagnosis = run_checks(CheckInputs(CONFIG, [], [], stats_of(Fake(moved({}), num_slots=4))))
    assert diagnosis.findings == [] and diagnosis.healthy
    assert set(diagnosis.passed) >= {"non_finite", *IMAGE_CHECKS}


def test_statistics() -> None:
    stats = stats_of(Fake(moved({}), kl=(20.0, 10.0), spread=(0.5, 0.0)))
    objects = 48 / (H * W)
    flat = float((IMAGES - FLAT).square().mean())
    expected = {
        "num_images": N,
        "finite": True,
        "latent_sizes": (7, 3),
        "num_slots": K,
        "mse": 0.0,
        "mse_flat": flat,
        "mse_mean_image": float((IMAGES - IMAGES.mean(0)).square().mean()),
        "active_slots": 4.0,
        "dead_slots": 1,
        "mask_entropy": 0.0,
        "background_share": 1.0,
        "background_masks": True,
        "num_segments": 4.0,
        "lost": 0.0,
        "lost_drawn": 0.0,
        "taken_drawn": 0.0,
        "same_colour_shared": 0.0,
        "other_colour_shared": 0.0,
        "kl_m": 20.0,
        "kl_c": 10.0,
        "variance_m": 0.25 * float(np.var(np.arange(N), ddof=1)),
        "variance_c": 0.0,
        "msc": 1.0,
    }
    for name, value in expected.items():
        got = getattr(stats, name)
        assert got == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value), name
    assert stats.msc_baselines["one_slot"] == pytest.approx(objects / 3)
    assert stats.msc_baselines["colour_palette"] == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_statistics_without_masks() -> None:
    stats = stats_of(Fake(moved({}), num_slots=4), masks=False)
    assert not stats.background_masks and stats.background_share == pytest.approx(1, abs=1e-4)
    for name in ("num_segments", "lost", "lost_drawn", "taken_drawn", "msc", "same_colour_shared"):
        assert math.isnan(getattr(stats, name)), name
    assert stats.msc_baselines == {}
    diagnosis = run_checks(CheckInputs(CONFIG, [], [], stats))
    assert diagnosis.findings == []
    skipped = {name for name, why in diagnosis.skipped.items() if "no true masks" in why}
    assert skipped == {
        *("objects_lost", "drawn_by_background", "objects_merged"),
        *("no_better_than_grid", "no_better_than_palette"),
    }


# ---- one finding after the other -----------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_one_slot_for_everything(masks: bool) -> None:
    stats = stats_of(Fake(torch.full_like(LABELS, 2)), masks)
    finding = found("one_slot", stats)
    assert finding.severity == "error" and finding.value == 1.0
    assert found("dead_slots", stats) is None  # reported by one_slot
    assert found("one_slot", stats, min_active_slots=1.0) is None
    assert found("background_split", stats) is None
    if masks:
        assert found("no_better_than_grid", stats).severity == "error"


@pytest.mark.parametrize("masks", [True, False])
def test_slots_that_split_the_background(masks: bool) -> None:
    slots = moved({})
    slots[:, 9:][LABELS[:, 9:] == 0] = 4  # the lowest quarter of the image
    finding = found("background_split", stats_of(Fake(slots), masks))
    assert finding.severity == "warning"
    assert finding.value == pytest.approx(1 - 3 * 18 / (H * W - 48) + _objects_below(), abs=1e-3)
    assert ("median colour" in finding.message) != masks
    slots = moved({})
    slots[:, 11:][LABELS[:, 11:] == 0] = 4
    assert found("background_split", stats_of(Fake(slots), masks)) is None


def _objects_below() -> float:
    """Return the share of the background in the lowest quarter that objects occlude."""
    return float((LABELS[:, 9:] > 0).double().sum((1, 2)).mean()) / (H * W - 48)


def test_backgrounds_of_many_colours_need_masks() -> None:
    pack = scenes(masks=False)
    noise = np.random.default_rng(0).integers(0, 256, pack.images.shape).astype(np.uint8)
    noisy = Pack(Path("noise"), noise, None, {})
    stats = compute_statistics(Fake(moved({})), noisy, N)
    assert math.isnan(stats.background_share)
    skipped = run_checks(CheckInputs(CONFIG, [], [], stats)).skipped
    assert "common background colour" in skipped["background_split"]


def test_masks_that_share_pixels() -> None:
    finding = found("soft_masks", stats_of(Fake(moved({}), soft=1 / K)))
    assert finding.value == pytest.approx(1) and "5.0 of 5 slots" in finding.message
    assert found("soft_masks", stats_of(Fake(moved({}), soft=0.01))) is None


def test_lost_objects() -> None:
    slots = moved({1: 0})
    finding = found("objects_lost", stats_of(Fake(slots, painting(LABELS).clone())))
    assert finding.value == pytest.approx(1 / 3)
    assert found("drawn_by_background", stats_of(Fake(slots, painting(LABELS)))) is None


@pytest.mark.parametrize("taken", [False, True])
def test_objects_drawn_by_the_background(taken: bool) -> None:
    """With and without a slot of their own, their appearance is encoded in the background's."""
    components = painting(moved({1: 0}))
    stats = stats_of(Fake(moved({} if taken else {1: 0}), components))
    assert (stats.taken_drawn, stats.lost_drawn) == pytest.approx(
        (1 / 3, 0.0) if taken else (0.0, 1 / 3)
    )
    finding = found("drawn_by_background", stats)
    assert finding.value == pytest.approx(1 / 3) and finding.severity == "warning"
    assert found("objects_lost", stats) is None
    assert found("drawn_by_background", stats, max_background_drawn_objects=0.34) is None


def test_half_of_the_contrast_counts_as_drawn() -> None:
    slots = moved({1: 0})
    for share, lost in ((0.28, 1 / 3), (0.31, 0.0)):  # of the way: (1 - .3)^2 is about a half
        components = torch.lerp(painting(LABELS), painting(slots), share)
        stats = stats_of(Fake(slots, components))
        assert (stats.lost, stats.lost_drawn) == pytest.approx((lost, 1 / 3 - lost))
    assert stats_of(Fake(slots, components), min_drawn_contrast=0.6).lost == pytest.approx(1 / 3)


def test_objects_without_contrast_or_background_do_not_count() -> None:
    images = IMAGES.clone()
    images[(LABELS == 1).unsqueeze(1).expand_as(images)] = GREY[0] / 255 + 0.05
    shares = background_drawn(images, LABELS, moved({}), painting(LABELS), 0.5)
    for values in shares.values():
        assert values.tolist() == [0] * N
    none = background_drawn(images, LABELS.clamp_min(1), moved({}), painting(LABELS), 0.5)
    assert all(values.isnan().all() for values in none.values())
    uncounted = LABELS.where(LABELS != 3, -1)
    lost = background_drawn(IMAGES, uncounted, moved({1: 0, 3: 0}), painting(LABELS), 0.5)["lost"]
    assert lost.tolist() == [0.5] * N


def test_objects_that_share_a_slot() -> None:
    by_colour = found("objects_merged", stats_of(Fake(moved({3: 2}))))
    assert by_colour.value == 1 and "by colour" in by_colour.message
    assert "100% of the pairs of one colour and 0%" in by_colour.message
    other = found("objects_merged", stats_of(Fake(moved({2: 1}))))
    assert other.value == 0.5 and "by colour" not in other.message
    pack = scenes()
    single = Pack(Path("one"), pack.images, (LABELS == 1).numpy().astype(np.uint8), {})
    stats = compute_statistics(Fake(moved({})), single, N)
    skipped = run_checks(CheckInputs(CONFIG, [], [], stats)).skipped
    assert skipped["objects_merged"] == "no image has two objects"


def test_reconstructions_without_objects() -> None:
    assert (
        found("reconstruction_not_learnt", stats_of(Fake(moved({}), painting(moved({}))))) is None
    )
    tinted = IMAGES.mean(0).expand(N, K, 3, H, W)
    mean = found("reconstruction_not_learnt", stats_of(Fake(moved({}), tinted)))
    assert mean.severity == "error" and mean.value == pytest.approx(1)
    assert "the mean of all images" in mean.message


def test_reconstructions_of_the_background_only() -> None:
    pack = scenes()
    images = np.array(pack.images)
    images[::2][LABELS[::2].numpy() == 0] = (0, 0, 0)
    images[1::2][LABELS[1::2].numpy() == 0] = (250, 250, 250)
    two = Pack(Path("two"), images, pack.masks, {})
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    medians = tensor.flatten(2).median(2).values[:, None, :, None, None]
    stats = compute_statistics(Fake(moved({}), medians.expand(N, K, 3, H, W)), two, N)
    finding = found("reconstruction_not_learnt", stats)
    assert finding.severity == "warning" and "median colour" in finding.message
    assert finding.value == pytest.approx(1)


def test_segmentations_equal_to_a_grid() -> None:
    grid = fixed_grid(K, H, W).expand(N, H, W)
    stats = stats_of(Fake(grid, IMAGES.unsqueeze(1).expand(N, K, 3, H, W)))
    finding = found("no_better_than_grid", stats)
    assert finding.value == pytest.approx(stats.msc_baselines["fixed_grid"])
    assert finding.severity == "error" and "fixed grid" in finding.message
    better = dataclasses.replace(stats, msc=stats.msc + 0.021)
    assert found("no_better_than_grid", better) is None
    assert found("no_better_than_palette", better).severity == "note"
    empty = dataclasses.replace(stats, msc=math.nan)
    skipped = run_checks(CheckInputs(CONFIG, [], [], empty)).skipped
    assert skipped["no_better_than_grid"] == "no image has an object"


@pytest.mark.parametrize("broken", ["weight", "output"])
def test_models_that_are_not_finite(broken: str) -> None:
    kl = (math.nan, 1.0) if broken == "output" else (2.0, 2.0)
    model = Fake(moved({}), kl=kl, weight=math.inf if broken == "weight" else 0.0)
    stats = stats_of(model)
    assert not stats.finite
    assert found("non_finite", stats).severity == "error"
    diagnosis = run_checks(CheckInputs(CONFIG, [], [], stats))
    assert [finding.name for finding in diagnosis.findings] == ["non_finite"]
    for name in IMAGE_CHECKS:
        assert diagnosis.skipped[name] == "the model is not finite"


def test_checks_of_slots_skip_models_of_one_slot() -> None:
    whole = Fake(torch.zeros_like(LABELS), num_slots=1, latent_sizes=(0, 4), soft=0.0)
    diagnosis = run_checks(CheckInputs(CONFIG, [], [], stats_of(whole)))
    assert diagnosis.findings == []
    assert diagnosis.skipped["one_slot"] == diagnosis.skipped["objects_lost"]
    assert diagnosis.skipped["one_slot"] == "the model has one slot"
    assert {"reconstruction_not_learnt", "component_posterior_collapse"} <= {*diagnosis.passed}


def test_at_least_two_images() -> None:
    assert compute_statistics(Fake(moved({})), scenes(), 2).num_images == 2
    with pytest.raises(ValueError, match=r"^num_images "):
        compute_statistics(Fake(moved({})), scenes(), 1)


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stats_of(Fake(torch.zeros_like(LABELS), painting(LABELS)))
    # The fake returns its first images, so each batch must start with the same ones.
    pack = scenes()
    masks = pack.masks
    assert masks is not None
    twice = Pack(Path(), np.tile(pack.images, (2, 1, 1, 1)), np.tile(masks, (2, 1, 1)), {})
    monkeypatch.setattr("genesis_rl.training.validate._BATCH", N)
    stats = compute_statistics(Fake(torch.zeros_like(LABELS), painting(LABELS)), twice, 2 * N)
    for name in ("mse", "active_slots", "lost", "msc", "mse_mean_image", "background_share"):
        assert getattr(stats, name) == pytest.approx(getattr(whole, name)), name
