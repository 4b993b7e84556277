"""Binding scores on hand-made images, one failure at a time."""

import math

import pytest
import torch
from torch import Tensor

from genesis_rl.evaluation import metrics
from genesis_rl.slots import ElboTerms

# Background, then four objects of three pixels: two are red, one is nearly red, one is blue.
TRUE = torch.tensor([[[0, 0, 0, 1, 1, 1, 0], [2, 2, 2, 3, 3, 3, 0], [4, 4, 4, 0, 0, 0, 0]]])
COLOURS = torch.tensor([[0, 0, 0], [200, 0, 0], [200, 0, 0], [200, 20, 0], [0, 0, 200]])
NAN = math.nan


def paint(true: Tensor) -> Tensor:
    return COLOURS[true.clamp(min=0)].permute(0, 3, 1, 2).to(torch.uint8)


def relabel(slots: list[int]) -> Tensor:
    """Assign the background and each object to a slot."""
    return torch.tensor(slots)[TRUE]


def scores(true: Tensor, pred: Tensor, **options: float) -> tuple[float, float, float]:
    got = metrics.binding_scores(true, pred, paint(true), **options)
    assert list(got) == ["objects_lost", "same_colour_shared", "other_colour_shared"]
    assert all(values.dtype == torch.float64 for values in got.values())
    lost, same, other = (float(values) for values in got.values())
    return lost, same, other


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ([0, 1, 2, 3, 4], (0.0, 0.0, 0.0)),
        ([4, 4, 2, 3, 0], (0.25, 0.0, 0.0)),  # one object is in the background's slot
        ([0, 1, 1, 3, 4], (0.0, 1.0, 0.0)),  # the red ones share
        ([0, 1, 2, 3, 3], (0.0, 0.0, 0.2)),  # two of the five other pairs
        ([0, 1, 1, 1, 1], (0.0, 1.0, 1.0)),
        ([7, 7, 7, 7, 7], (1.0, 1.0, 1.0)),
    ],
)
def test_by_hand(slots: list[int], expected: tuple[float, float, float]) -> None:
    assert scores(TRUE, relabel(slots)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ([0, 1, 2, 3, 4], 0.0),
        ([0, 1, 1, 3, 4], 0.0),  # these two do not touch
        ([0, 1, 2, 1, 4], 0.5),  # one of the two touching pairs of one hue
        ([0, 1, 2, 3, 2], 0.0),  # red and blue
        ([0, 1, 1, 1, 1], 1.0),
    ],
)
def test_twins_by_hand(slots: list[int], expected: float) -> None:
    pred = relabel(slots)
    assert metrics.twins_shared(TRUE, pred, paint(TRUE)).tolist() == [expected]
    dark = (paint(TRUE) * torch.tensor([[1.0] * 7, [0.4] * 7, [1.0] * 7])).to(torch.uint8)
    assert metrics.twins_shared(TRUE, pred, dark).tolist() == [expected]


def test_objects_apart_are_no_twins() -> None:
    true = TRUE.clone()
    true[true == 3] = 0
    assert metrics.twins_shared(true, true, paint(true)).isnan().all()


def test_the_tolerance_decides_what_is_the_same_colour() -> None:
    pred = relabel([0, 1, 2, 1, 4])  # red with nearly red
    assert scores(TRUE, pred) == (0.0, 0.0, 0.2)
    assert scores(TRUE, pred, tolerance=0.08) == pytest.approx((0.0, 1 / 3, 0.0))


def test_a_slot_is_the_objects_that_takes_most_of_its_pixels() -> None:
    pred = relabel([0, 1, 2, 3, 4])
    pred[0, 0, 3] = 0  # one of three pixels goes to the background's slot
    assert scores(TRUE, pred)[0] == 0.0
    pred[0, 0, 4] = 0
    assert scores(TRUE, pred)[0] == 0.25
    # The background's slot is the one that has most of it, whatever its label.
    assert scores(TRUE, relabel([9, 9, 2, 3, 4]))[0] == 0.25


def test_colours_are_those_of_most_of_an_object() -> None:
    true, pred = TRUE, relabel([0, 1, 1, 3, 4])
    images = paint(true)
    images[0, :, 0, 3] = 120  # one of three pixels is blended with what lies around
    for kind in (images, images / 255, (images / 255).double()):
        got = metrics.binding_scores(true, pred, kind)
        assert got["same_colour_shared"].tolist() == [1.0]
        assert got["other_colour_shared"].tolist() == [0.0]


def test_images_without_the_thing_have_no_score() -> None:
    true = torch.stack([torch.zeros_like(TRUE[0]), TRUE[0], (TRUE[0] == 4) * 4, TRUE[0], TRUE[0]])
    true[3, true[3] == 0] = -1  # no background counts
    true[4, true[4] == 2] = -1  # one of the red ones does not count
    pred = torch.zeros_like(true)
    got = metrics.binding_scores(true, pred, paint(true))
    expected = {
        "objects_lost": [NAN, 1.0, 1.0, NAN, 1.0],
        "same_colour_shared": [NAN, 1.0, NAN, 1.0, NAN],
        "other_colour_shared": [NAN, 1.0, NAN, 1.0, 1.0],
    }
    for name, values in expected.items():
        torch.testing.assert_close(
            got[name], torch.tensor(values, dtype=torch.float64), equal_nan=True
        )
    averages = metrics.average(got)
    assert averages["objects_lost_images"] == 3 and averages["same_colour_shared_images"] == 2


def test_batches_and_label_names_do_not_matter() -> None:
    slots = ([0, 1, 2, 3, 4], [0, 0, 2, 3, 4], [0, 1, 1, 3, 4])
    pred = torch.cat([relabel(each) for each in slots]).repeat(50, 1, 1)  # more than one chunk
    true = TRUE.expand_as(pred)
    got = metrics.binding_scores(true, pred, paint(true))
    far = metrics.binding_scores(true * 3000, pred * 500 + 1, paint(true))
    for name, values in got.items():
        assert values.shape == (150,)
        assert torch.equal(values[:3].repeat(50), values)
        assert torch.equal(far[name], values)
    assert got["objects_lost"][:3].tolist() == [0.0, 0.25, 0.0]
    assert got["same_colour_shared"][:3].tolist() == [0.0, 0.0, 1.0]


def test_active_slots() -> None:
    pred = torch.zeros(2, 10, 20, dtype=torch.int64)
    pred[0, 0, :2] = 1  # 1 %
    pred[0, 1, :1] = 2  # 0.5 %
    pred[1, 5:] = 6
    assert metrics.active_slots(pred).tolist() == [2.0, 2.0]
    assert metrics.active_slots(pred, min_share=0.005).tolist() == [3.0, 2.0]
    assert metrics.active_slots(pred, min_share=0.6).tolist() == [1.0, 0.0]
    many = metrics.active_slots(pred.repeat(50, 1, 1))
    assert many.shape == (100,) and many.dtype == torch.float64


def test_active_latents() -> None:
    kl_m, kl_c = torch.tensor([[0.6, 0.0, -0.5], [0.0] * 3]), torch.tensor([[0.6, 1.0, 1.2]] * 2)
    terms = ElboTerms(torch.zeros(2), kl_m, kl_c)
    assert metrics.active_latents(terms).tolist() == [2.0, 2.0]
    assert metrics.active_latents(terms, min_kl=0.5).tolist() == [3.0, 3.0]
    assert metrics.active_latents(terms, min_kl=1.1).tolist() == [1.0, 1.0]


def test_bad_input_is_named() -> None:
    images = paint(TRUE)
    with pytest.raises(ValueError, match=r"^images "):
        metrics.binding_scores(TRUE, TRUE, images[..., :6])
    with pytest.raises(TypeError, match=r"^true "):
        metrics.binding_scores(TRUE.float(), TRUE, images)
    with pytest.raises(ValueError, match=r"^true and pred .*\(1, 3, 7\) and \(1, 3, 6\)"):
        metrics.binding_scores(TRUE, TRUE[..., :6], images)
    with pytest.raises(ValueError, match=r"^pred "):
        metrics.active_slots(TRUE - 1)
    with pytest.raises(ValueError, match=r"^true and pred .*\(B, H, W\)"):
        metrics.active_slots(TRUE[0])
