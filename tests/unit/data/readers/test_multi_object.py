"""Multi-Object Datasets: layouts, labels, factors and splits of small files in the real format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.readers import DamagedRecord
from genesis_rl.data.readers.multi_object import ClevrWithMasks, ObjectsRoom

U8 = npt.NDArray[np.uint8]
FILES = {
    "multi_dsprites_dm": "multi_dsprites/multi_dsprites_colored_on_colored.tfrecords",
    "objects_room": "objects_room/objects_room_train.tfrecords",
    "clevr_with_masks": "clevr_with_masks/clevr_with_masks_train.tfrecords",
    "tetrominoes": "tetrominoes/tetrominoes_train.tfrecords",
}


class Scene(NamedTuple):
    image: U8  # (H, W, C)
    masks: U8  # (E, H, W), 0 or 255
    floats: dict[str, npt.NDArray[np.float32]]  # (E, n)
    codes: dict[str, U8]  # (E,)


def scene(number: int, size: tuple[int, int, int], entities: int, floats: dict[str, int]) -> Scene:
    rng = np.random.default_rng(number)
    height, width, _ = size
    owner = rng.integers(entities, size=(height, width))
    masks = ((owner == np.arange(entities)[:, None, None]) * 255).astype(np.uint8)
    masks[entities - 1, :2] = 255  # the last entity occludes others
    image = rng.integers(256, size=size, dtype=np.uint8)
    image[..., 0] = number
    values = {
        name: rng.random((entities, n), dtype=np.float32).round(2) for name, n in floats.items()
    }
    if "visibility" in values:
        values["visibility"] = (np.arange(entities) < entities - 1)[:, None].astype(np.float32)
    return Scene(image, masks, values, {})


@pytest.fixture
def write(
    tmp_path: Path,
    write_records: Callable[..., Path],
    example: Callable[..., bytes],
    single_bytes: Callable[[U8], list[bytes]],
) -> Callable[..., Path]:
    """Write scenes in DeepMind's format: gzip, one string per byte or one string for all bytes."""

    def make(
        file: str, scenes: list[Scene], third: bool = False, single: bool = True, gz: bool = True
    ) -> Path:
        listed = single_bytes if single else lambda array: [array.tobytes()]
        payloads = [
            example(
                image=listed(s.image),
                mask=listed(s.masks.transpose(1, 2, 0) if third else s.masks),
                **{name: values.ravel().tolist() for name, values in s.floats.items()},
                **{name: listed(codes) for name, codes in s.codes.items()},
            )
            for s in scenes
        ]
        return write_records(tmp_path / file, payloads, gz)

    return make


def labels(masks: U8, backgrounds: int) -> U8:
    """Compute the label map of one image, pixel by pixel."""
    found = np.zeros(masks.shape[1:], np.uint8)
    for index in np.ndindex(found.shape):
        owners = [e for e in range(backgrounds, len(masks)) if masks[(e, *index)]]
        found[index] = owners[-1] - backgrounds + 1 if owners else 0
    return found


def opened(path: Path, name: str, split: str = "test", **options: Any) -> Pack:
    return open_dataset(name, split, root=path / "root", source=path, **options)


DSPRITES = {"x": 1, "y": 1, "shape": 1, "visibility": 1, "orientation": 1, "scale": 1, "color": 3}


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("gz", [True, False])
def test_multi_dsprites(tmp_path: Path, write: Any, single: bool, gz: bool) -> None:
    scenes = [scene(n, (64, 64, 3), 5, DSPRITES) for n in range(3)]
    write(FILES["multi_dsprites_dm"], scenes, third=True, single=single, gz=gz)
    pack = opened(tmp_path, "multi_dsprites_dm")
    assert pack.masks is not None
    names = {"x", "y", "shape", "visibility", "angle", "scale", "colour", "count"}
    assert pack.factors.keys() == names
    for n, want in enumerate(scenes):
        np.testing.assert_array_equal(pack.images[n], want.image)
        np.testing.assert_array_equal(pack.masks[n], labels(want.masks, 1))
        # Row i belongs to label i + 1: the background's row is gone.
        np.testing.assert_array_equal(pack.factors["colour"][n], want.floats["color"][1:])
        np.testing.assert_array_equal(pack.factors["angle"][n], want.floats["orientation"][1:, 0])
    assert pack.factors["x"].shape == (3, 4)
    assert pack.factors["count"].tolist() == [3, 3, 3]  # the last one of four is not visible


@pytest.mark.parametrize(("variant", "entities"), [("binarized", 4), ("colored_on_grayscale", 6)])
def test_variants_of_multi_dsprites(
    tmp_path: Path, write: Any, variant: str, entities: int
) -> None:
    channels = 1 if variant == "binarized" else 3
    want = scene(0, (64, 64, channels), entities, {**DSPRITES, "color": channels})
    write(f"multi_dsprites/multi_dsprites_{variant}.tfrecords", [want], third=True)
    pack = opened(tmp_path, "multi_dsprites_dm", variant=variant)
    assert pack.masks is not None
    np.testing.assert_array_equal(pack.masks[0], labels(want.masks, 1))
    np.testing.assert_array_equal(pack.images[0, ..., 2], want.image[..., channels - 1])


@pytest.mark.parametrize(
    ("variant", "file", "entities"),
    [
        ("train", "objects_room_train", 7),
        ("six_objects", "objects_room_test_six_objects", 10),
        ("empty_room", "objects_room_test_empty_room", 4),
        ("identical_color", "objects_room_test_identical_color", 10),
    ],
)
def test_objects_room(tmp_path: Path, write: Any, variant: str, file: str, entities: int) -> None:
    want = scene(0, (64, 64, 3), entities, {})
    write(f"objects_room/{file}.tfrecords", [want])
    pack = opened(tmp_path, "objects_room", variant=variant)
    assert pack.masks is not None and pack.factors == {}
    np.testing.assert_array_equal(pack.images[0], want.image)
    np.testing.assert_array_equal(pack.masks[0], labels(want.masks, 4))
    assert pack.masks.max() == entities - 4


def test_clevr_is_cropped(tmp_path: Path, write: Any) -> None:
    floats = {"x": 1, "y": 1, "z": 1, "rotation": 1, "visibility": 1, "pixel_coords": 3}
    want = scene(0, (240, 320, 3), 11, floats)
    codes = {
        name: np.arange(n, n + 11, dtype=np.uint8)
        for n, name in enumerate(("size", "material", "shape", "color"))
    }
    write(FILES["clevr_with_masks"], [want._replace(codes=codes)], single=False)
    pack = opened(tmp_path, "clevr_with_masks", image_size=192)
    assert pack.masks is not None
    np.testing.assert_array_equal(pack.images[0], want.image[24:216, 64:256])
    np.testing.assert_array_equal(pack.masks[0], labels(want.masks[:, 24:216, 64:256], 1))
    assert pack.factors["colour"].tolist() == [list(range(4, 14))]
    assert pack.factors["pixel_coords"].shape == (1, 10, 3)
    small = opened(tmp_path, "clevr_with_masks")
    assert small.images.shape == (1, 128, 128, 3)


def test_tetrominoes_are_resized(tmp_path: Path, write: Any) -> None:
    want = scene(0, (35, 35, 3), 4, {"x": 1, "y": 1, "shape": 1, "visibility": 1, "color": 3})
    write(FILES["tetrominoes"], [want])
    assert opened(tmp_path, "tetrominoes").images.shape == (1, 32, 32, 3)
    pack = opened(tmp_path, "tetrominoes", image_size=35)
    np.testing.assert_array_equal(pack.images[0], want.image)


def test_splits_are_cut_from_one_file(tmp_path: Path, write: Any) -> None:
    write(FILES["objects_room"], [scene(n, (64, 64, 3), 7, {}) for n in range(11)], single=False)
    found = {
        split: opened(tmp_path, "objects_room", split, held_out=3).images[:, 0, 0, 0].tolist()
        for split in ("test", "validation", "train")
    }
    assert found == {"test": [0, 1, 2], "validation": [3, 4, 5], "train": [6, 7, 8, 9, 10]}
    first = opened(tmp_path, "objects_room", "train", held_out=3, num_images=2)
    assert first.images[:, 0, 0, 0].tolist() == [6, 7]
    source = ObjectsRoom(tmp_path, "validation", held_out=3)
    for start, count in ((0, 3), (2, 1), (3, 0), (5, 0)):
        assert len(list(source.records(start))) == count
    sizes = {s: len(ClevrWithMasks(tmp_path, s)) for s in ("test", "validation", "train")}
    assert sizes == {"test": 10_000, "validation": 10_000, "train": 80_000}


def test_damage_is_named_and_counted(tmp_path: Path, write: Any) -> None:
    scenes = [scene(n, (64, 64, 3), 7, {}) for n in range(4)]
    scenes[1] = scene(1, (64, 64, 3), 6, {})  # one mask is missing
    path = write(FILES["objects_room"], scenes, single=False, gz=False)
    with pytest.raises(DamagedRecord, match=r"room_train.tfrecords, record 1 .*'mask'"):
        opened(tmp_path, "objects_room")
    path.write_bytes(path.read_bytes()[:-30_000])
    pack = opened(tmp_path, "objects_room", on_damage="skip")
    assert pack.images[:, 0, 0, 0].tolist() == [0, 2] and pack.meta["damaged"] == 2


def test_bad_options_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_dataset("tetrominoes", root=tmp_path)
    for words in (
        f"{tmp_path}/tetrominoes/original/tetrominoes_train.tfrecords",
        "gs://multi-object-datasets/tetrominoes/tetrominoes_train.tfrecords",
        "set source",
    ):
        assert words in str(caught.value)
    for options, message in (
        ({"variant": "cats"}, r"^variant "),
        ({"variant": "empty_room"}, r"^split "),
        ({"held_out": 0}, r"^held_out "),
    ):
        with pytest.raises(ValueError, match=message):
            opened(tmp_path, "objects_room", "train", **options)
