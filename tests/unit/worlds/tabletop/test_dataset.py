"""Scenes of multi-object Fetch as packs; rendering needs gymnasium-robotics and OpenGL."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.data import open_dataset
from genesis_rl.worlds.tabletop import PALETTE, STATE_COLUMNS

OBJECT, GOAL, GRIPPER = map(STATE_COLUMNS.index, ("object", "goal", "gripper"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, "image_size must be an integer in 16..1024, got 8"),
        ({"camera": "side"}, "camera must be one of frontview, topview, got 'side'"),
        ({"skills": ["Throw"]}, r"skills must be among Reach, Push, Pick, got \['Throw'\]"),
        ({"relations": []}, r"relations must be among Red, .*, got \[\]"),
        ({"relations": "Odd"}, "relations must be among .*, got 'Odd'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset("fetch", "train", root=tmp_path, **options)
    assert not any(tmp_path.iterdir())


def test_unknown_options(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"FetchScenes must be among image_size, .*'cubes'"):
        open_dataset("fetch", "train", root=tmp_path, cubes=3)


def test_scenes_of_all_tasks(robot: None, opengl: None, tmp_path: Path) -> None:
    pack = open_dataset("fetch", "train", root=tmp_path, num_images=125)
    assert pack.masks is not None
    state, masks = pack.factors["state"], np.asarray(pack.masks)
    assert pack.images.shape == (125, 64, 64, 3)
    assert state.shape == (125, 7, len(STATE_COLUMNS))
    present = state[:, :5, OBJECT]
    assert set(present.sum(1)) <= {1, 2, 3, 4, 5}
    assert len(set(present.sum(1))) > 2
    with_goal = state[:, 5, GOAL] == 1
    assert 0 < with_goal.sum() < 125  # Reach has none
    assert (state[~with_goal, 5] == 0).all()
    assert (state[:, 6, GRIPPER] == 1).all()
    factors = pack.factors
    np.testing.assert_array_equal(factors["z"], state[..., 2])
    np.testing.assert_array_equal(factors["colour"], state[..., 7:10])
    np.testing.assert_array_equal(factors["shape"][:, :5], present * with_goal[:, None])
    assert not factors["shape"][:, 5:].any()  # the goal is a sphere
    # Absent objects have no pixels, and the arm is background.
    rows = np.concatenate([present, with_goal[:, None], np.zeros((125, 1))], 1)
    for row, labels in zip(rows, masks, strict=True):
        assert set(np.unique(labels)) - {0} <= {i + 1 for i in np.flatnonzero(row)}
    # Episodes have ten frames each, in which the gripper moves and colours stay.
    colours = state[:120, :5, 7:10].reshape(12, 10, 5, 3)
    np.testing.assert_array_equal(colours, np.repeat(colours[:, :1], 10, 1))
    gripper = state[:120, 6, :3].reshape(12, 10, 3)
    assert (np.ptp(gripper, axis=1).max(1) > 0.01).all()
    # An object's pixels have its hue.
    image, label = np.argwhere(masks > 0)[0][0], masks[masks > 0][0]
    shown = pack.images[image][masks[image] == label].mean(0)
    hues = np.array(PALETTE) @ shown / np.linalg.norm(PALETTE, axis=1)
    expected = np.round(state[image, label - 1, 7:10] * 255)
    assert hues[[tuple(expected) == c for c in PALETTE]].max() > 0.95 * np.linalg.norm(shown)


def test_scenes_depend_on_seed_split_and_number_only(
    robot: None, opengl: None, tmp_path: Path
) -> None:
    def images(split: str, count: int, **options: Any) -> Any:
        return open_dataset("fetch", split, root=tmp_path, num_images=count, **options).images

    first = images("train", 30)
    np.testing.assert_array_equal(first[:20], images("train", 20))
    assert (first[:20] != images("validation", 20)).any((1, 2, 3)).all()
    assert (first[:20] != images("train", 20, seed=1)).any((1, 2, 3)).all()


def test_an_empty_table_shows_the_moving_arm(robot: None, opengl: None, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "root": tmp_path,
        "num_images": 20,
        "empty_table": True,
        "skills": ["Push"],
    }
    pack = open_dataset("fetch", "train", **options)
    assert pack.masks is not None
    assert not pack.masks.any()
    assert not pack.factors["state"][:, :6].any()
    with_arm = open_dataset("fetch", "train", **options, arm_mask=True)
    assert with_arm.masks is not None
    assert set(np.unique(with_arm.masks)) == {0, 7}
    np.testing.assert_array_equal(with_arm.images, pack.images)
    settings = json.loads((with_arm.folder / "meta.json").read_text(encoding="utf-8"))
    assert settings["skills"] == ["Push"]
