"""Segmentation metrics, compared with reference values, closed forms and each other."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl.evaluation import metrics
from genesis_rl.evaluation.metrics.imagined import evaluate_scenes

# From the authors' released code; the kinds of its 20 images are in its array `kind`.
REFERENCE = Path(__file__).parents[3] / "fixtures" / "metrics_reference.npz"
NO_FOREGROUND = [3, 4]


@pytest.fixture(scope="module")
def reference() -> dict[str, npt.NDArray[np.generic]]:
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture
def labels(reference: dict[str, npt.NDArray[np.generic]]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(reference["gt"]), torch.from_numpy(reference["pred"])


def assert_equals_reference(
    scores: Tensor,
    reference_scores: npt.NDArray[np.generic],
    undefined: list[int],
    undefined_value: float,
    tol: float,
) -> None:
    """Compare scores with reference scores, which have a constant where ours are NaN."""
    assert scores.dtype == torch.float64
    assert scores.isnan().nonzero().flatten().tolist() == undefined
    assert (reference_scores[undefined] == undefined_value).all()
    filled = scores.nan_to_num(undefined_value).numpy()
    assert np.abs(filled - reference_scores).max() <= tol


@pytest.mark.smoke
def test_ari_equals_reference(
    reference: dict[str, npt.NDArray[np.generic]], labels: tuple[Tensor, Tensor]
) -> None:
    assert_equals_reference(metrics.ari(*labels), reference["ari"], [], 1.0, 1e-12)
    scores = metrics.ari(*labels, foreground_only=True)
    assert_equals_reference(scores, reference["ari_fg"], NO_FOREGROUND, 1.0, 1e-12)
    assert abs(float(scores.nan_to_num(1.0).mean()) - float(reference["ari_fg_mean"])) < 1e-12


@pytest.mark.parametrize(("kind", "undefined"), [("fg", NO_FOREGROUND), ("all", [])])
def test_covering_equals_reference(
    reference: dict[str, npt.NDArray[np.generic]],
    labels: tuple[Tensor, Tensor],
    kind: str,
    undefined: list[int],
) -> None:
    cover = metrics.segmentation_covering(*labels, foreground_only=kind == "fg")
    assert_equals_reference(cover.mean, reference[f"msc_{kind}"], undefined, 0.0, 1e-6)
    assert_equals_reference(cover.scaled, reference[f"ssc_{kind}"], undefined, 0.0, 1e-6)


def test_ignored_pixels_equal_reference(
    reference: dict[str, npt.NDArray[np.generic]], labels: tuple[Tensor, Tensor]
) -> None:
    true, pred = labels[0].long(), labels[1]
    columns = int(reference["ignore_columns"])
    true[:, :, :columns] = -1
    cover = metrics.segmentation_covering(true, pred)
    assert_equals_reference(cover.mean, reference["msc_fg_ignore"], NO_FOREGROUND, 0.0, 1e-6)
    assert_equals_reference(cover.scaled, reference["ssc_fg_ignore"], NO_FOREGROUND, 0.0, 1e-6)
    # Ignoring columns is equivalent to cropping them.
    cropped = metrics.image_scores(true[:, :, columns:], pred[:, :, columns:])
    for name, scores in metrics.image_scores(true, pred).items():
        torch.testing.assert_close(scores, cropped[name], rtol=0, atol=0, equal_nan=True)


def test_covering_by_hand() -> None:
    # A 1 x 8 frame: the object of 2 pixels has IoU 1, that of 4 pixels 1/2.
    true = torch.tensor([[[0, 0, 1, 1, 2, 2, 2, 2]]])
    pred = torch.tensor([[[3, 3, 0, 0, 1, 1, 2, 2]]])
    cover = metrics.segmentation_covering(true, pred)
    assert cover.mean.tolist() == [0.75]
    assert cover.scaled.tolist() == [(2 * 1 + 4 * 0.5) / 6]
    with_background = metrics.segmentation_covering(true, pred, foreground_only=False)
    assert with_background.mean.tolist() == [2.5 / 3]
    assert with_background.scaled.tolist() == [(2 + 2 + 2) / 8]


def test_ari_by_hand() -> None:
    # Pairs within the foreground 1 1 2 2 against 0 1 1 1: Rand 1/2, adjusted 0.
    true = torch.tensor([[[0, 1, 1, 2, 2]]])
    pred = torch.tensor([[[0, 0, 1, 1, 1]]])
    assert metrics.ari(true, pred, foreground_only=True).tolist() == [0.0]
    assert metrics.ari(true, true + 5).tolist() == [1.0]


def test_images_without_objects_or_background() -> None:
    true = torch.zeros(4, 3, 5, dtype=torch.int64)
    true[1] = -1  # all ignored
    true[2, 0, 0] = 1  # one foreground pixel
    true[3] = 1  # foreground only
    pred = torch.zeros_like(true)
    scores = metrics.image_scores(true, pred)
    expected = {
        "ari": [1.0, math.nan, 0.0, 1.0],
        "ari_fg": [math.nan, math.nan, 1.0, 1.0],
        "ari_fg_2plus": [math.nan] * 4,
        "sc": [math.nan, math.nan, 1 / 15, 1.0],
        "msc": [math.nan, math.nan, 1 / 15, 1.0],
    }
    for name, values in expected.items():
        torch.testing.assert_close(
            scores[name], torch.tensor(values, dtype=torch.float64), equal_nan=True
        )


def test_average_counts_images(labels: tuple[Tensor, Tensor]) -> None:
    scores = metrics.segmentation_scores(*labels)
    each = metrics.image_scores(*labels)
    assert scores["ari_images"] == 20
    assert scores["ari_fg_images"] == scores["sc_images"] == scores["msc_images"] == 18
    # Image 10 is covered by one object, image 13 contains one object.
    objects = [len(set(true.flatten().tolist()) - {0}) for true in labels[0]]
    several = [number >= 2 for number in objects]
    assert 0 < scores["ari_fg_2plus_images"] == sum(several) < 18
    assert scores["ari_fg_2plus"] == pytest.approx(float(each["ari_fg"][several].mean()), abs=1e-12)
    assert scores["msc"] == pytest.approx(float(each["msc"].nanmean()), abs=1e-12)
    undefined = metrics.average({"sc": torch.full((3,), math.nan)})
    assert math.isnan(undefined["sc"])
    assert undefined["sc_images"] == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_scores_do_not_depend_on_label_values(
    labels: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    true, pred = labels
    expected = metrics.image_scores(true, pred)
    factor = 7 if dtype == torch.uint8 else 3000
    renamed = metrics.image_scores(
        (true.long() * factor).to(dtype), (pred.long() * factor + 2).to(dtype)
    )
    for name in expected:
        torch.testing.assert_close(
            renamed[name], expected[name], rtol=0, atol=1e-12, equal_nan=True
        )


def test_chunks_and_single_images_agree(labels: tuple[Tensor, Tensor]) -> None:
    true, pred = (each.repeat(30, 1, 1)[:, :24, :32] for each in labels)  # 600 images
    whole = metrics.image_scores(true, pred)
    single = metrics.image_scores(true[7:8], pred[7:8])
    for name, values in whole.items():
        assert values.shape == (600,)
        torch.testing.assert_close(values[:20], values[-20:], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(values[7:8], single[name], rtol=0, atol=0, equal_nan=True)


def test_segment_returns_the_argmax_of_the_masks() -> None:
    pred = torch.randint(5, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    masks = torch.nn.functional.one_hot(pred, 5).permute(0, 3, 1, 2).unsqueeze(2)  # (B, K, 1, H, W)
    assert torch.equal(metrics.segment((0.9 * masks + 0.02).log()), pred)
    assert metrics.segment(torch.zeros(1, 5, 1, 4, 6)).tolist() == [[[0] * 6] * 4]


def test_fixed_grid() -> None:
    assert (
        metrics.fixed_grid(6, 4, 6).tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    )
    assert metrics.fixed_grid(5, 2, 6).tolist() == [[0, 0, 1, 1, 2, 2], [3, 3, 3, 4, 4, 4]]
    assert metrics.fixed_grid(1, 2, 3).tolist() == [[0] * 3] * 2
    for num_slots in range(1, 12):
        assert set(metrics.fixed_grid(num_slots, 16, 24).flatten().tolist()) == set(
            range(num_slots)
        )
    with pytest.raises(ValueError, match=r"^num_slots "):
        metrics.fixed_grid(0, 4, 4)
    with pytest.raises(ValueError, match=r"^num_slots "):
        metrics.fixed_grid(7, 2, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_colour_palette_labels_pixels_by_colour(dtype: torch.dtype) -> None:
    labels = torch.tensor([[[0, 1, 1], [2, 0, 3]], [[1, 1, 1], [0, 0, 1]]])
    colours = torch.tensor([[10, 0, 255], [10, 0, 254], [255, 3, 0], [255, 3, 1]])
    images = colours[labels].permute(0, 3, 1, 2)  # (B, 3, H, W)
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    palette = metrics.colour_palette(images)
    assert metrics.ari(labels, palette).tolist() == [1.0, 1.0]
    assert [len(each.unique()) for each in palette] == [4, 2]
    assert palette.amin(dim=(1, 2)).tolist() == [0, 0]


def test_scores_of_the_baselines() -> None:
    true = torch.zeros(2, 8, 12, dtype=torch.int64)
    true[:, :3, :3], true[:, 4:, 7:] = 1, 2
    colours = torch.tensor([[0, 0, 0], [9, 9, 9], [9, 9, 9]])  # both objects have one colour
    images = colours[true].permute(0, 3, 1, 2).to(torch.uint8)
    scores = {
        name: metrics.segmentation_scores(true, pred)
        for name, pred in metrics.baselines(images, num_slots=4).items()
    }
    assert list(scores) == ["one_slot", "fixed_grid", "colour_palette"]
    assert scores["one_slot"]["ari"] == scores["one_slot"]["ari_fg"] == 0
    assert scores["fixed_grid"]["ari_fg"] > 0.8
    assert scores["colour_palette"]["ari_fg"] == 0
    assert scores["colour_palette"]["msc"] == pytest.approx((9 / 29 + 20 / 29) / 2)


def test_errors_name_the_invalid_argument() -> None:
    true = torch.zeros(2, 4, 6, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"^pred .*float32"):
        metrics.ari(true, true.float())
    with pytest.raises(TypeError, match=r"^true .*bool"):
        metrics.segmentation_covering(true.bool(), true)
    with pytest.raises(ValueError, match=r"^true and pred .*\(2, 4, 6\) and \(2, 6, 4\)"):
        metrics.image_scores(true, true.mT)
    with pytest.raises(ValueError, match=r"^true and pred .*\(B, H, W\)"):
        metrics.ari(true[0], true[0])
    with pytest.raises(ValueError, match=r"^pred .*-1"):
        metrics.ari(true, true - 1)
    with pytest.raises(ValueError, match=r"^log_pi "):
        metrics.segment(true)
    with pytest.raises(ValueError, match=r"^images "):
        metrics.colour_palette(true)


INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")


def as_kind(kind: str, true: npt.NDArray[Any], pred: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Return both as arrays, as tensors, or one of each."""
    if kind == "arrays":
        return true, pred
    if kind == "mixed":
        return torch.from_numpy(true), pred
    return torch.from_numpy(true), torch.from_numpy(pred)


@pytest.mark.parametrize("kind", ["arrays", "tensors", "mixed"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_may_be_arrays_of_any_integer_type(
    labels: tuple[Tensor, Tensor], dtype: str, kind: str
) -> None:
    tensors = [part[:3, ::4, ::4].clamp(min=0) for part in labels]
    true, pred = as_kind(kind, *(part.numpy().astype(dtype) for part in tensors))
    expected = metrics.image_scores(*tensors)
    for name, values in metrics.image_scores(true, pred).items():
        torch.testing.assert_close(values, expected[name], equal_nan=True)
    torch.testing.assert_close(metrics.ari(true, pred), metrics.ari(*tensors), equal_nan=True)
    cover = metrics.segmentation_covering(true, pred).mean
    torch.testing.assert_close(cover, metrics.segmentation_covering(*tensors).mean, equal_nan=True)
    assert metrics.segmentation_scores(true, pred) == pytest.approx(
        metrics.segmentation_scores(*tensors), nan_ok=True
    )
    torch.testing.assert_close(metrics.active_slots(pred), metrics.active_slots(tensors[1]))
    images = torch.randint(0, 256, (len(true), 3, *true.shape[1:]), dtype=torch.uint8)
    scores = metrics.scene_scores(true, pred, images.numpy() if kind == "arrays" else images)
    for name, values in metrics.scene_scores(tensors[0], tensors[1], images).items():
        torch.testing.assert_close(scores[name], values, equal_nan=True)
    assert not metrics.one_slot(true).any() and metrics.one_slot(true).shape == true.shape


def test_arrays_may_have_any_memory_layout() -> None:
    labels = np.arange(24).reshape(2, 3, 4)
    for other in (labels[:, ::-1][:, ::-1], labels.astype(">i8"), np.asfortranarray(labels)):
        assert metrics.ari(labels, other).tolist() == [1, 1]
    labels.setflags(write=False)
    assert metrics.ari(labels, labels[:, ::-1].copy()[:, ::-1]).tolist() == [1, 1]


def test_images_masks_and_weights_may_be_arrays() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 4, 6), np.uint8)
    for name, values in metrics.baselines(images, 4).items():
        assert torch.equal(values, metrics.baselines(torch.from_numpy(images), 4)[name])
    masks = rng.random((2, 3, 1, 4, 6))
    np.testing.assert_array_equal(metrics.segment(masks), masks[:, :, 0].argmax(1))
    weights = rng.random((3, 2))
    torch.testing.assert_close(
        metrics.bounds(weights).iwae, metrics.bounds(torch.tensor(weights)).iwae
    )
    assert metrics.average({"a": np.array([1.0, np.nan])}) == {"a": 1.0, "a_images": 1}
    labels = rng.integers(0, 3, (2, 4, 6))
    assert evaluate_scenes(images / 255, labels).objects.shape == (2,)


def test_inputs_of_invalid_type_raise() -> None:
    true = np.zeros((2, 4, 6), np.int64)
    with pytest.raises(TypeError, match=r"^true .*list"):
        metrics.ari(true.tolist(), true)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^pred .*object"):
        metrics.ari(true, true.astype(object))
    with pytest.raises(TypeError, match=r"^pred .*float64"):
        metrics.image_scores(true, true.astype(float))
    with pytest.raises(ValueError, match=r"^true .*2\*\*63"):
        metrics.ari(true.astype(np.uint64) + np.uint64(2**63), true)
    with pytest.raises(ValueError, match=r"^pred .*-1"):
        metrics.active_slots(true - 1)
    with pytest.raises(TypeError, match=r"^images "):
        metrics.colour_palette("images")  # type: ignore[arg-type]


def test_segment_rejects_nan() -> None:
    log_pi = torch.zeros(2, 3, 1, 4, 4)
    log_pi[0, 1] = -math.inf
    assert metrics.segment(log_pi).shape == (2, 4, 4)
    log_pi[1, 2, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match=r"^log_pi "):
        metrics.segment(log_pi)
