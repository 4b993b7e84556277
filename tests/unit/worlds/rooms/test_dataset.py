"""Rooms as a generated dataset: content, shards, resuming, options."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.generated import generated_dataset, join_shards, write_shard, write_split
from genesis_rl.worlds.rooms import SHAPES, TEXTURES
from genesis_rl.worlds.rooms.dataset import RoomScenes, RoomViewRenderer, RoomViews

OPTIONS: dict[str, Any] = {"image_size": 32, "workers": 1}


def assert_same(pack: Pack, other: Pack, rows: slice = slice(None)) -> None:
    assert pack.masks is not None and other.masks is not None
    np.testing.assert_array_equal(pack.images[rows], other.images)
    np.testing.assert_array_equal(pack.masks[rows], other.masks)
    factors = other.factors
    for name, values in pack.factors.items():
        np.testing.assert_array_equal(values[rows], factors[name])


@pytest.fixture(scope="module")
def whole(opengl: None, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("rooms")
    return open_dataset("rooms", "test", root=root, num_images=75, **OPTIONS)


def test_factors_describe_the_images(whole: Pack) -> None:
    factors = whole.factors
    assert whole.masks is not None
    assert set(np.unique(factors["num_objects"])) == {1, 2, 3}
    present = np.arange(3) < factors["num_objects"][:, None]
    for name in ("scale", "x", "y", "z"):
        np.testing.assert_array_equal(factors[name] != 0, present)
    np.testing.assert_array_equal(factors["state"].any(2), present)
    for number in (1, 2, 3):
        in_view = (whole.masks == number).any((1, 2))
        np.testing.assert_array_equal(factors["in_view"][:, number - 1], in_view)
    one_hot = factors["state"][..., 6 : 6 + len(SHAPES)]
    np.testing.assert_array_equal(one_hot.argmax(2), factors["shape"])
    np.testing.assert_array_equal(factors["colour"], factors["state"][..., -3:])
    assert factors["camera_pose"].shape == (75, 5)
    assert factors["wall"].max() < len(TEXTURES["train"]["wall"])
    # Objects with a pixel lie in front of the camera, and their side is that of their pixels.
    for image, number in np.argwhere(factors["in_view"]):
        columns = np.nonzero(whole.masks[image] == number + 1)[1]
        assert factors["x"][image, number] > 0
        slope = factors["y"][image, number] / factors["x"][image, number]
        assert (columns.min() - 16) / 16 - 0.2 < -slope / 0.466 < (columns.max() - 15) / 16 + 0.3


def test_images_depend_on_seed_split_and_index_only(whole: Pack, tmp_path: Path) -> None:
    fewer = open_dataset("rooms", "test", root=tmp_path, num_images=40, **OPTIONS)
    assert_same(whole, fewer, slice(40))
    for split, seed in (("train", 0), ("test", 1)):
        other = open_dataset("rooms", split, root=tmp_path, num_images=40, seed=seed, **OPTIONS)
        assert (other.images != fewer.images).any((1, 2, 3)).all()


def test_joined_shards_equal_the_whole(whole: Pack, tmp_path: Path) -> None:
    data = generated_dataset("rooms", **OPTIONS)
    for shard in range(3):
        write_shard(data, tmp_path, "test", 70, shard, 3)
    joined = Pack.open(join_shards(tmp_path, "test"))
    assert_same(whole, joined, slice(70))
    assert joined.meta["num_objects"] == [1, 3]


@pytest.mark.slow
def test_several_processes_render_the_same(whole: Pack, tmp_path: Path) -> None:
    options = {**OPTIONS, "workers": 2}
    assert_same(whole, open_dataset("rooms", "test", root=tmp_path, num_images=75, **options))


def test_an_interrupted_call_is_resumed(
    whole: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[range] = []
    original = RoomViewRenderer.render

    def stop_in_the_second_batch(self: RoomViewRenderer, indices: range) -> RoomViews:
        if len(rendered) == 1:
            raise KeyboardInterrupt
        rendered.append(indices)
        return original(self, indices)

    data = generated_dataset("rooms", **OPTIONS)
    monkeypatch.setattr("genesis_rl.data.pack._CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RoomViewRenderer, "render", stop_in_the_second_batch)
        write_split(data, tmp_path, "test", 75)
    again: list[range] = []

    def count(self: RoomViewRenderer, indices: range) -> RoomViews:
        again.append(indices)
        return original(self, indices)

    monkeypatch.setattr(RoomViewRenderer, "render", count)
    assert_same(whole, Pack.open(write_split(data, tmp_path, "test", 75)))
    assert sum(map(len, again)) == 75 - len(rendered[0])


def test_views_of_a_room_are_consecutive(opengl: None) -> None:
    views = RoomViewRenderer(RoomScenes(image_size=16, views=3), "train").render(range(6))
    state, poses = views.factors["state"], views.factors["camera_pose"]
    np.testing.assert_array_equal(state, np.repeat(state[::3], 3, 0))
    assert (state[0] != state[3]).any()
    assert len(np.unique(poses, axis=0)) == 6


def test_a_camera_is_independent_of_its_room() -> None:
    """Seeds that differ by a trailing zero are the same for NumPy."""
    scenes = RoomScenes()
    angles = [scenes.pose("train", i).yaw for i in range(200)]
    lights = [np.arctan2(*scenes.room("train", i).light[1::-1]) for i in range(200)]
    assert abs(np.corrcoef(np.sin(angles), np.sin(lights))[0, 1]) < 0.2
    assert abs(np.corrcoef(np.cos(angles), np.cos(lights))[0, 1]) < 0.2


def render(**options: Any) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[Any]]]:
    views = RoomViewRenderer(RoomScenes(image_size=16, **options), "train").render(range(12))
    return views.masks, views.factors


def test_options(opengl: None) -> None:
    masks, factors = render(empty=True)
    assert not masks.any() and not factors["state"].any() and not factors["num_objects"].any()
    _, factors = render(num_objects=(2, 2))
    assert (factors["num_objects"] == 2).all()
    _, factors = render(textures="test")
    assert factors["wall"].min() >= len(TEXTURES["train"]["wall"])
    _, factors = render(camera_radius=2.5)
    np.testing.assert_allclose(np.hypot(*factors["camera_pose"][:, :2].T), 2.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 4}, "image_size must be from 8 to 1,024, got 4"),
        ({"num_objects": (0, 2)}, "num_objects must be from 1 to 3, got 0"),
        ({"num_objects": (3, 2)}, r"num_objects must be \(smallest, largest\), got \(3, 2\)"),
        ({"num_objects": (1, 2, 3)}, "num_objects must have 2 values"),
        ({"textures": "new"}, "textures must be one of train, test, all, got 'new'"),
        ({"views": 0}, "views must be at least 1, got 0"),
        ({"camera_radius": 3.4}, "camera_radius must be from 2.5 to 3.2, got 3.4"),
        ({"yaw_jitter": -1}, "yaw_jitter must be from 0 to 90, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset("rooms", "train", root=tmp_path, **options)
    assert not any(tmp_path.iterdir())


def test_unknown_options(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"RoomScenes must be among image_size, .*'walls'"):
        open_dataset("rooms", "train", root=tmp_path, walls=3)
