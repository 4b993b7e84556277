"""Validity of sampled scenes, distances between images, and their scores."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from genesis_rl.data import Pack, open_dataset
from genesis_rl.evaluation.metrics.imagined import (
    SceneCriteria,
    SceneScorer,
    evaluate_scenes,
    nearest,
    spread,
)
from genesis_rl.slots import Decoded, Slots

SIDE = 32
GREY, RED, GREEN = (0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
Part = tuple[tuple[slice, slice], tuple[float, float, float]]
BOX = (slice(8, 16), slice(8, 16))
OTHER = (slice(20, 26), slice(18, 28))


def scene(*parts: Part) -> tuple[Tensor, Tensor]:
    """Return a grey frame (1, 3, H, W) with coloured parts, and one segment per part."""
    image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    labels = np.zeros((SIDE, SIDE), np.int64)
    for number, (place, colour) in enumerate(parts, 1):
        image[place], labels[place] = colour, number
    return torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(labels)[None]


def verdict(image: Tensor, labels: Tensor) -> tuple[int, bool, bool, bool]:
    found = evaluate_scenes(image, labels)
    colour, whole, inside = (bool(column[0]) for column in found[1:])
    return int(found.objects[0]), colour, whole, inside


def test_valid_objects_are_counted() -> None:
    assert verdict(*scene()) == (0, True, True, True)
    assert verdict(*scene((BOX, RED))) == (1, True, True, True)
    image, labels = scene((BOX, RED), (OTHER, GREEN))
    assert verdict(image, labels) == (2, True, True, True)
    # Which slot the background is in does not count, nor what the segments are called.
    assert verdict(image, (labels + 2) % 3) == (2, True, True, True)


def test_backgrounds_of_two_slots_and_specks_are_no_objects() -> None:
    half = (slice(0, SIDE), slice(0, 10))
    assert verdict(*scene((half, GREY), (OTHER, RED))) == (1, True, True, True)
    speck = (slice(3, 5), slice(3, 5))  # 4 of 1,024 pixels
    assert verdict(*scene((speck, GREEN), (OTHER, RED)))[0] == 1


def test_two_colours_in_one_slot() -> None:
    image, labels = scene((BOX, RED))
    image[:, :, 8:12, 8:16] = torch.tensor(GREEN)[:, None, None]
    assert verdict(image, labels) == (1, False, True, True)
    # A blurred outline is no second colour.
    image, labels = scene((BOX, RED))
    image[:, :, 8, 8:16] = image[:, :, 15, 8:16] = 0.5
    assert verdict(image, labels) == (1, True, True, True)


def test_pieces_and_ragged_shapes() -> None:
    image, labels = scene((BOX, RED), (OTHER, RED))
    assert verdict(image, labels.clamp_max(1)) == (1, True, False, True)  # two in one slot
    ring, labels = scene(((slice(6, 22), slice(6, 22)), RED))
    inner = (slice(None), slice(8, 20), slice(8, 20))
    labels[inner] = 0
    ring.permute(0, 2, 3, 1)[inner] = 0.5
    assert verdict(ring, labels) == (1, True, False, True)


def test_objects_cut_by_the_border() -> None:
    assert verdict(*scene(((slice(0, 2), slice(8, 16)), RED))) == (1, True, True, False)
    assert verdict(*scene(((slice(0, 8), slice(8, 16)), RED))) == (1, True, True, True)


def test_a_batch_is_its_scenes_and_numbers_have_a_range() -> None:
    cases = [scene(), scene((BOX, RED)), scene((BOX, RED), (OTHER, GREEN))]
    images, labels = (torch.cat(column) for column in zip(*cases, strict=True))
    found = evaluate_scenes(images, labels)
    assert found.objects.tolist() == [0, 1, 2]
    assert found.valid((1, 2)).tolist() == [False, True, True]
    assert found.valid((0, 1)).tolist() == [True, True, False]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"^solidity "):
        SceneCriteria(solidity=2)
    image, labels = scene()
    with pytest.raises(ValueError, match=r"^labels "):
        evaluate_scenes(image, labels[:, :5])


def test_nearest_and_spread() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    others = [torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 3.0], [9.0, 9.0]])]
    assert nearest(points, others).tolist() == [2.0, 1.0]
    assert spread(points).tolist() == [5.0, 5.0]


# ---- the scorer ----------------------------------------------------------------------------------


class Copies(nn.Module):
    """A scene model that samples and infers a pack's images and masks, in order."""

    def __init__(self, pack: Pack, num_slots: int = 6) -> None:
        super().__init__()
        self.images: npt.NDArray[Any] = np.array(pack.images)
        assert pack.masks is not None
        self.masks: npt.NDArray[Any] = np.array(pack.masks)
        self.config: Any = type("Config", (), {"num_slots": num_slots})
        self.weight = nn.Parameter(torch.zeros(()))
        self.drawn = 0

    def sample(self, n: int, **_: Any) -> Slots:
        rows = torch.arange(self.drawn, self.drawn + n) % len(self.images)
        self.drawn += n
        return self._slots(rows)

    def infer(self, x: Tensor) -> Slots:
        return self._slots(torch.arange(len(x)) % len(self.images))

    def _slots(self, rows: Tensor) -> Slots:
        z = rows[:, None, None].float().expand(-1, self.config.num_slots, 1)
        masks = torch.from_numpy(self.masks[rows].astype(np.int64))
        one_hot = torch.nn.functional.one_hot(masks, self.config.num_slots)
        return Slots(z, z, one_hot.permute(0, 3, 1, 2)[:, :, None].float().log())

    def decode(self, slots: Slots) -> Decoded:
        rows = slots.z_m[:, 0, 0].long()
        x = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float() / 255
        return Decoded(x[:, None].expand(-1, self.config.num_slots, -1, -1, -1), slots.log_pi)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack]:
    root = tmp_path_factory.mktemp("data")
    options = {"image_size": 32, "num_objects": 3}
    train, test = (
        open_dataset("object_comparison", split, root=root, num_images=n, **options)
        for split, n in (("train", 80), ("test", 70))
    )
    return train, test


def test_copies_of_training_images_are_valid_but_not_new(packs: tuple[Pack, Pack]) -> None:
    train, test = packs
    scorer = SceneScorer(train, test, 66, features=Means())
    assert scorer.counts == (4, 4)  # the agent is an object, too
    real = scorer.reference()
    assert real["valid"] > 0.9 and real["objects"] == real["scenes_with_4"] * 4 == 4
    assert real["valid"] <= min(real[f"valid_{name}"] for name in ("colour", "shape", "inside"))
    copied = scorer(Copies(train))  # type: ignore[arg-type]
    assert copied["nearest_pixels"] < 1e-3 < 0.1 * real["nearest_pixels"]
    assert copied["nearest_features"] < 1e-3 < 0.1 * real["nearest_features"]
    assert copied["spread_pixels"] == pytest.approx(real["spread_pixels"], rel=0.2)
    # A sampler of one held-out image only: as far from training, without any variety.
    one = Copies(test)
    one.images, one.masks = one.images[:1], one.masks[:1]
    same = scorer(one)  # type: ignore[arg-type]
    assert same["spread_pixels"] == pytest.approx(0, abs=1e-3)
    assert same["nearest_pixels"] > 0.5 * real["nearest_pixels"]
    # The held-out images themselves are what the reference is of.
    again = scorer(Copies(test))  # type: ignore[arg-type]
    for name, value in real.items():
        assert again[name] == pytest.approx(value, abs=1e-6), name
    assert again["valid_reconstructed"] > 0.9


def test_models_of_one_slot_show_no_objects(packs: tuple[Pack, Pack]) -> None:
    model = Copies(packs[0], num_slots=1)
    model.masks = np.zeros_like(model.masks)
    scores = SceneScorer(*packs, 10)(model)  # type: ignore[arg-type]
    assert np.isnan(scores["valid"]) and np.isnan(scores["objects"])
    assert scores["nearest_pixels"] == pytest.approx(0, abs=1e-3)


def test_packs_must_fit(packs: tuple[Pack, Pack], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^num_images "):
        SceneScorer(*packs, 1)
    small = open_dataset("object_goal", "test", root=tmp_path, num_images=4, image_size=16)
    with pytest.raises(ValueError, match=r"^held_out "):
        SceneScorer(packs[0], small, 4)


class Means:
    """Features: mean colours of a 4 x 4 grid."""

    width, fingerprint = 48, "means"

    def __call__(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
