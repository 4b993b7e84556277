"""Inputs of probes: cached latents, scene labels, objects matched to slots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl.data import Pack, PackWriter, open_dataset
from genesis_rl.evaluation.probes import latents as latents_module
from genesis_rl.evaluation.probes.inputs import (
    ObjectInputs,
    Objects,
    SceneInputs,
    mask_moments,
    match,
)
from genesis_rl.evaluation.probes.latents import EncodedSample, Sample, encode_sample
from genesis_rl.slots import SceneModel
from genesis_rl.worlds.sprites import STATE_COLUMNS

SIDE = 32


def pack(folder: Path, n: int = 10, *, masks: bool = True, **factors: Any) -> Pack:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (n, SIDE, SIDE), dtype=np.uint8) if masks else None
    with PackWriter(folder, n, SIDE, masks=masks) as writer:
        writer.write(images, labels, **factors)
    return Pack.open(folder)


def masks_of(sample: Sample) -> npt.NDArray[np.uint8]:
    assert sample.pack.masks is not None
    return sample.pack.masks[sample.rows]


@pytest.fixture
def model(small_model: Callable[..., SceneModel]) -> SceneModel:
    return small_model()


# ---- latents -------------------------------------------------------------------------------------


def test_samples_are_drawn_from_the_whole_pack(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a", 50)
    sample = Sample.draw(whole, 10)
    assert (np.diff(sample.rows) > 0).all() and len(sample.rows) == 10
    assert sample.rows[-1] > 25
    assert (Sample.draw(whole, 10).rows == sample.rows).all()
    assert Sample.draw(whole, 99).rows.tolist() == list(range(50))


def test_latents_are_the_models_and_the_overlaps_those_of_its_masks(
    tmp_path: Path, model: SceneModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents_module, "_BATCH", 4)  # the last batch is smaller
    sample = Sample.draw(pack(tmp_path / "a"), 7)
    found = encode_sample(model, sample, tmp_path / "cache")
    x = torch.from_numpy(sample.pack.images[sample.rows]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        slots = model.infer(x)
    assert found.slots.shape == (7, 3, 9) and found.iou.shape == (7, 3, 3)
    np.testing.assert_allclose(found.slots, slots.features.numpy(), atol=1e-5)
    taken = slots.log_pi[:, :, 0].argmax(1).numpy()
    true = masks_of(sample)
    for slot in range(3):
        for label in (1, 2, 3):
            here, there = taken == slot, true == label
            expected = (here & there).sum((1, 2)) / (here | there).sum((1, 2))
            np.testing.assert_allclose(found.iou[:, slot, label - 1], expected, atol=1e-6)


def test_latents_are_inferred_once_for_each_model_and_sample(
    tmp_path: Path, model: SceneModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, calls = tmp_path / "cache", []
    infer: Callable[..., EncodedSample] = latents_module._infer

    def count(*args: Any) -> EncodedSample:
        calls.append(args)
        return infer(*args)

    monkeypatch.setattr(latents_module, "_infer", count)
    one, two = pack(tmp_path / "a"), pack(tmp_path / "b", 9)
    first = encode_sample(model, Sample.draw(one, 8), cache)
    assert np.array_equal(encode_sample(model, Sample.draw(one, 8), cache).slots, first.slots)
    assert len(calls) == 1
    encode_sample(model, Sample.draw(one, 7), cache)
    encode_sample(model, Sample.draw(two, 8), cache)
    assert len(calls) == 3
    next(model.parameters()).data += 1  # type: ignore[attr-defined]
    encode_sample(model, Sample.draw(one, 8), cache)
    assert len(calls) == 4


def test_interrupted_inference_leaves_nothing_and_damage_raises(
    tmp_path: Path, model: SceneModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, sample = tmp_path / "cache", Sample.draw(pack(tmp_path / "a"), 8)
    save = np.save

    def fail(path: Path, array: Any) -> None:
        if Path(path).name == "iou.npy":
            raise KeyboardInterrupt
        save(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            encode_sample(model, sample, cache)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    encode_sample(model, sample, cache)
    (file,) = cache.glob("*/slots.npy")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        encode_sample(model, sample, cache)


def test_latents_that_are_not_finite_are_refused(tmp_path: Path, model: SceneModel) -> None:
    next(model.parameters()).data.fill_(torch.nan)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="NaN"):
        encode_sample(model, Sample.draw(pack(tmp_path / "a"), 8), tmp_path / "cache")


def test_packs_without_masks_have_latents(tmp_path: Path, model: SceneModel) -> None:
    found = encode_sample(
        model, Sample.draw(pack(tmp_path / "a", masks=False), 8), tmp_path / "cache"
    )
    assert found.iou.shape == (8, 3, 0)


# ---- scenes --------------------------------------------------------------------------------------


def towers(folder: Path, height: list[int], **factors: Any) -> Sample:
    return Sample.draw(pack(folder, len(height), height=np.array(height), **factors), 99)


def test_classes_are_those_of_the_training_split(tmp_path: Path) -> None:
    samples = {
        "train": towers(tmp_path / "a", [2, 6, 4, 2], stable=np.array([1, 0, 0, 1])),
        "test": towers(tmp_path / "b", [6, 6, 2], stable=np.array([1, 1, 0])),
    }
    inputs = SceneInputs(samples, ())
    assert [(q.name, q.classes) for q in inputs.targets] == [
        ("stability", (0, 1)),
        ("height", (2, 4, 6)),
    ]
    assert inputs.targets[1].values["test"].tolist() == [2, 2, 0]
    assert inputs.targets[1].baseline_score() == pytest.approx(1 / 3)
    assert [q.name for q in SceneInputs(samples, ("height",)).targets] == ["height"]
    assert inputs.state() is None


def test_bad_labels_are_refused(tmp_path: Path) -> None:
    train = towers(tmp_path / "a", [2, 3, 3])
    more = towers(tmp_path / "b", [2, 3, 5])
    same = towers(tmp_path / "c", [2, 2, 2])
    bare = Sample.draw(pack(tmp_path / "d", 3, vcom=np.zeros(3)), 3)
    cases: list[tuple[Sample, Sample, tuple[str, ...], str]] = [
        (train, more, (), r"^height .*test"),
        (same, same, (), r"^height "),
        (train, train, ("view",), r"/a .*camera.*height"),
        (train, bare, (), r"/d .*height.*vcom"),
        (bare, bare, (), r"/d .*stable .*simulated_stable"),
    ]
    for first, second, tasks, message in cases:
        with pytest.raises(ValueError, match=message):
            SceneInputs({"train": first, "test": second}, tasks)


def test_moments_of_true_masks(tmp_path: Path) -> None:
    sample = towers(tmp_path / "a", [2, 3])
    labels = np.zeros(sample.pack.images.shape[:3], np.uint8)
    labels[0, 20:26, 10:13], labels[0, 4:8, 4:8], labels[1, 2, 3] = 1, 2, 5
    sample = sample._replace(pack=mock.Mock(masks=labels))
    upper, lower, *others = mask_moments(sample)[0]
    line = np.linspace(-1, 1, SIDE)
    rows, cols = np.meshgrid(line[20:26], line[10:13], indexing="ij")
    expected = [1, rows.mean(), cols.mean(), rows.std(), cols.std(), 0, np.sqrt(4 * 18) / SIDE]
    torch.testing.assert_close(lower, torch.tensor(expected).float(), atol=1e-5, rtol=0)
    assert upper[1] < lower[1]
    assert not torch.stack(others).any()
    assert mask_moments(sample)[1, 0, 0] == 1 and not mask_moments(sample)[1, 1:].any()


def test_scenes_without_masks_have_no_moments(tmp_path: Path) -> None:
    samples = {s: towers(tmp_path / s, [2, 3, 3, 2]) for s in ("train", "test")}
    found = SceneInputs(samples, ()).masks()
    assert found is not None and found["test"].shape[0] == 4
    bare = {
        s: v._replace(pack=mock.Mock(masks=None, factors=v.pack.factors, meta=v.pack.meta))
        for s, v in samples.items()
    }
    assert SceneInputs(bare, ()).masks() is None


def test_pixels_are_averaged_and_the_state_is_standardised(tmp_path: Path) -> None:
    state = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    samples = {s: towers(tmp_path / s, [2, 3, 3, 2], state=state) for s in ("train", "test")}
    inputs = SceneInputs(samples, ())
    images = torch.from_numpy(np.array(samples["test"].pack.images)).float() / 255
    small = inputs.pixels(4)["test"].unflatten(1, (3, 4, 4))
    torch.testing.assert_close(small[1, 2, 3, 0], images[1, 24:32, :8, 2].mean())
    assert torch.equal(inputs.pixels(SIDE)["train"], images.permute(0, 3, 1, 2).flatten(1))
    found = inputs.state()
    assert found is not None and found["test"].shape == (4, 6)
    torch.testing.assert_close(found["train"].mean(0), torch.zeros(6))


# ---- objects -------------------------------------------------------------------------------------


def test_every_object_gets_a_slot_of_its_own_while_there_are_enough() -> None:
    objects = Objects(np.array([0, 0, 2, 2, 2]), np.array([1, 2, 1, 2, 3]))
    iou = np.zeros((3, 2, 3), np.float32)
    iou[0] = [[0.9, 0.8, 0], [0.7, 0.1, 0]]  # both want slot 0; the sum is larger crosswise
    iou[2] = [[0.6, 0.0, 0.5], [0.0, 0.9, 0.1]]  # three objects for two slots
    assert match(iou, objects).tolist() == [1, 0, 0, 1, 0]


def perfect(sample: Sample, order: list[int]) -> EncodedSample:
    """Slots with the true masks; object i lies in slot order[i], and its latent is its label."""
    masks, k = masks_of(sample), len(order)
    iou = np.zeros((len(masks), k, int(masks.max())), np.float32)
    slots = np.zeros((len(masks), k, 1), np.float32)
    for label in range(1, iou.shape[2] + 1):
        iou[:, order[label - 1], label - 1] = (masks == label).any((1, 2))
        slots[:, order[label - 1]] = label
    return EncodedSample(slots, iou)


@pytest.mark.parametrize(
    ("name", "options", "targets"),
    [
        (
            "object_goal",
            {"num_objects": 2},
            {"position": 2, "colour": 3, "shape": ("circle", "square")},
        ),
        (
            "multi_dsprites",
            {"max_objects": 3},
            {"position": 2, "size": 1, "colour": 3, "shape": ("square", "ellipse", "heart")},
        ),
    ],
)
def test_objects_are_known(
    name: str, options: dict[str, Any], targets: dict[str, Any], tmp_path: Path
) -> None:
    packs = {
        split: open_dataset(name, split, root=tmp_path, num_images=20, image_size=SIDE, **options)
        for split in ("train", "test")
    }
    samples = {split: Sample.draw(found, 15) for split, found in packs.items()}
    inputs = ObjectInputs(samples)
    asked = {q.name: q.classes or q.outputs for q in inputs.targets}
    assert set(asked) == set(targets)
    assert {k: v for k, v in asked.items() if k != "shape"} == {
        k: v for k, v in targets.items() if k != "shape"
    }
    assert set(asked["shape"]) >= set(targets["shape"])  # type: ignore[arg-type]
    features, further = inputs.model_features(
        {s: perfect(v, [2, 0, 3, 1]) for s, v in samples.items()}
    )
    assert further == {"match_iou": 1.0}
    labels = features["test"][:, 0].long()
    masks = packs["test"].masks
    assert masks is not None
    rows = samples["test"].rows
    seen = [sorted(set(masks[row].ravel().tolist()) - {0}) for row in rows]
    assert labels.tolist() == [label for image in seen for label in image]
    # Where the colour says it is, the image has it.
    state, pixels = inputs.state()["test"], inputs.pixels(SIDE)["test"]
    assert len(state) == len(pixels) == len(labels)
    cut = pixels.unflatten(1, (4, SIDE, SIDE))
    colour = next(q for q in inputs.targets if q.name == "colour").values["test"]
    seen_colour = cut[:, :3].flatten(2).amax(2)
    for channel in range(3):
        if colour[:, channel].std() > 0:
            both = torch.stack([colour[:, channel], seen_colour[:, channel]])
            assert float(torch.corrcoef(both)[0, 1]) > 0.99
    area = cut[0, 3].sum()
    assert area == (masks[rows[0]] == seen[0][0]).sum()


def test_factors_with_a_row_per_object_are_read_by_their_names(tmp_path: Path) -> None:
    """As the Multi-Object Datasets have them: codes are classes, rows may be (N, M, 1)."""
    n, m = 6, 3
    rng = np.random.default_rng(0)
    factors: dict[str, Any] = {
        "x": rng.random((n, m, 1)),
        "y": rng.random((n, m, 1)),
        "z": rng.random((n, m, 1)),
        "material": np.array([[1, 2, 1]] * n, np.uint8),
        "shape": np.full((n, m), 2.0, np.float32),
        "colour": rng.integers(1, 3, (n, m)),
        "count": np.full(n, m),
    }
    sample = Sample.draw(pack(tmp_path / "a", n, **factors), n)
    inputs = ObjectInputs({"train": sample, "test": sample})
    asked = {q.name: q.classes or q.outputs for q in inputs.targets}
    assert asked == {"position": 3, "material": (1, 2), "colour": (1, 2)}  # of one shape
    assert inputs.targets[1].values["test"].tolist() == [0, 1, 0] * n


def test_centres_are_where_the_masks_are(tmp_path: Path) -> None:
    """The objects' rows are those of their labels."""
    found = open_dataset("object_goal", "test", root=tmp_path, num_images=20, image_size=SIDE)
    inputs = ObjectInputs({"train": Sample.draw(found, 20), "test": Sample.draw(found, 20)})
    mask = inputs.pixels(SIDE)["test"].unflatten(1, (4, SIDE, SIDE))[:, 3]
    columns = (mask.sum(1) * torch.arange(SIDE)).sum(1) / mask.sum((1, 2))
    position: Tensor = inputs.targets[0].values["test"]
    assert inputs.targets[0].name == "position"
    assert float(torch.corrcoef(torch.stack([columns, position[:, 0]]))[0, 1]) > 0.98


def test_packs_without_object_factors_are_refused(tmp_path: Path) -> None:
    bare = Sample.draw(pack(tmp_path / "a", 3, height=np.arange(3)), 3)
    with pytest.raises(ValueError, match=r"/a .*state.*height"):
        ObjectInputs({"train": bare, "test": bare})
    odd = Sample.draw(pack(tmp_path / "b", 3, state=np.zeros((3, 4))), 3)
    with pytest.raises(ValueError, match=r"^factor 'state' .*\(3, 4\)"):
        ObjectInputs({"train": odd, "test": odd})
    state = np.zeros((3, 4, len(STATE_COLUMNS)))
    flat = Sample.draw(pack(tmp_path / "c", 3, masks=False, state=state), 3)
    with pytest.raises(ValueError, match=r"^pack .*masks"):
        ObjectInputs({"train": flat, "test": flat})
    alike = Sample.draw(pack(tmp_path / "d", 3, state=state), 3)
    with pytest.raises(ValueError, match=r"^objects "):
        ObjectInputs({"train": alike, "test": alike})
