"""Rules, colours and files of multi-object Fetch; the simulation needs gymnasium-robotics."""

from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.worlds.tabletop import (
    CAMERAS,
    CUBE,
    PALETTE,
    RED,
    SPHERE,
    TABLE_TOP,
    FetchSimulation,
    Skill,
    TableRenderer,
    ciede2000,
    dense_reward,
    find_assets,
    is_success,
    rgb_to_lab,
    sample_colours,
    sample_layout,
    simulation,
)
from genesis_rl.worlds.tabletop.rendering import OUTSIDE

START = np.array([1.342, 0.749, 0.535])


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [  # of the test data by Sharma, Wu and Dalal (2005)
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((50, 2.5, 0), (56, -27, -3), 31.9030),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_colour_differences(first: Any, second: Any, difference: float) -> None:
    assert ciede2000(first, second) == pytest.approx(difference, abs=5e-5)
    assert ciede2000(second, first) == pytest.approx(difference, abs=5e-5)


def test_colours_are_converted() -> None:
    np.testing.assert_allclose(rgb_to_lab((255, 0, 0)), (53.24, 80.09, 67.20), atol=0.02)
    np.testing.assert_allclose(rgb_to_lab((255, 255, 255)), (100, 0, 0), atol=1e-9)
    np.testing.assert_allclose(rgb_to_lab((0, 0, 0)), 0, atol=1e-9)
    assert rgb_to_lab(PALETTE).shape == (16, 3)


def test_the_relations_decide_the_colours() -> None:
    rng = np.random.default_rng(0)
    red = ciede2000(rgb_to_lab(PALETTE[RED]), rgb_to_lab(PALETTE))
    targets = set()
    for _ in range(200):
        colours, target = sample_colours("Red", 4, rng)
        assert (colours == RED).tolist() == [i == target for i in range(5)]
        targets.add(target)
        colours, target = sample_colours("Reddest", 4, rng)
        assert len(set(colours)) == 5
        assert red[colours[target]] == red[colours].min()
        colours, target = sample_colours("Odd", 3, rng)
        assert len(set(np.delete(colours, target))) == 1
        assert colours[target] not in np.delete(colours, target)
        colours, target = sample_colours("OddGroups", 4, rng)
        groups = np.delete(colours, target)
        assert groups[0] == groups[2] != groups[1] == groups[3]
        assert colours[target] not in groups
    assert targets == {0, 1, 2, 3, 4}
    assert PALETTE[RED] == (255, 0, 0)
    assert sample_colours("Red", 0, rng) == (np.array([RED]), 0)


@pytest.mark.parametrize("skill", ["Reach", "Push", "Pick"])
def test_positions_keep_their_distances(skill: Skill) -> None:
    rng = np.random.default_rng(0)
    lifts = []
    for _ in range(100):
        layout = sample_layout(skill, "Red", 4, START, rng)
        places = layout.positions
        assert (np.abs(places - START)[:, :2] <= 0.15).all()
        gaps = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(5, 1)]
        if skill == "Reach":
            assert layout.goal is None
            assert gaps.min() >= 2 * SPHERE
            assert (places[:, 2] >= TABLE_TOP + SPHERE).all()
            continue
        assert layout.goal is not None
        assert gaps.min() >= 2 * 2**0.5 * CUBE
        np.testing.assert_allclose(places[:, 2], TABLE_TOP + CUBE)
        assert np.linalg.norm(places - layout.goal, axis=1).min() >= SPHERE + 2**0.5 * CUBE
        lifts.append(layout.goal[2] - TABLE_TOP - CUBE)
    if skill == "Push":
        assert max(lifts) == pytest.approx(0)
    if skill == "Pick":
        assert 30 < sum(lift > 1e-9 for lift in lifts) < 70
        assert 0.2 < max(lifts) <= 0.3


def test_rewards() -> None:
    target, gripper, goal = np.zeros(3), np.array([0.03, 0, 0.04]), np.array([0, 0.1, 0])
    assert dense_reward(target, gripper, None) == pytest.approx(np.exp(-1))
    assert dense_reward(target, gripper, goal) == pytest.approx(
        0.9 * np.exp(-2) + 0.1 * np.exp(-0.5)
    )
    assert not is_success(target, gripper * 1.001, None)
    assert is_success(target, gripper * 0.999, None)
    assert not is_success(target, target, goal)
    assert is_success(target, gripper, goal * 0.49)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simulation, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"not installed.*genesis_rl\[fetch\]"):
        find_assets()
    spec = ModuleSpec("gymnasium_robotics", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(simulation, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match="contains no Fetch robot"):
        find_assets()


def test_a_robot_that_mujoco_cannot_load_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"shared.xml": b"<mujoco/>", "robot.xml": b"<mujoco><unknown/></mujoco>"}
    monkeypatch.setattr(simulation, "robot_files", lambda: files)
    with pytest.raises(ImportError, match=r"must contain a Fetch robot.*got MuJoCo \d.*1\.4\.2"):
        FetchSimulation("Reach", 1)
    files["robot.xml"] = b"<mujoco/>"
    with pytest.raises(ImportError, match="must contain a Fetch robot"):
        FetchSimulation("Reach", 1)


def test_actions_move_the_gripper(robot: None) -> None:
    fetch = FetchSimulation("Pick", 2)
    np.testing.assert_allclose(fetch.start, START, atol=1e-3)
    layout = sample_layout("Pick", "Red", 1, fetch.start, np.random.default_rng(0))
    for axis in range(3):
        fetch.reset(layout)
        np.testing.assert_allclose(fetch.gripper, fetch.start, atol=1e-4)
        moves = np.zeros(4)
        moves[axis] = 1
        fetch.step(moves)
        moved = fetch.gripper - fetch.start
        assert 0.01 < moved[axis] < 0.06
        assert np.abs(np.delete(moved, axis)).max() < 0.01
        assert fetch.proprioception[5 + axis] > 0.1
    for _ in range(20):
        fetch.step(np.array([0.0, 0, 0, 1]))
    assert fetch.fingers.min() > 0.04
    np.testing.assert_allclose(fetch.positions, layout.positions, atol=2e-3)  # cubes rest


def test_absent_objects_stay_out_of_sight(robot: None, opengl: None) -> None:
    fetch = FetchSimulation("Push", 5)
    rng = np.random.default_rng(0)
    fetch.reset(sample_layout("Push", "Red", 1, fetch.start, rng))
    assert fetch.positions.shape == (2, 3)
    heights = []
    for _ in range(10):
        fetch.step(np.zeros(4))
        heights.append(fetch.data.body("object4").xpos[2])
    np.testing.assert_allclose(heights, heights[0], atol=1e-6)
    with TableRenderer(fetch) as renderer:
        assert not {3, 4, 5} & set(np.unique(renderer.instances()))
    with pytest.raises(RuntimeError, match="closed"):
        renderer.image()


@pytest.mark.parametrize("camera", list(CAMERAS))
def test_links_that_are_not_drawn_are_outside_of_the_frame(
    camera: str, robot: None, opengl: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = FetchSimulation("Reach", 1)
    rng = np.random.default_rng(0)
    hidden = OUTSIDE[camera]
    pictures = []
    for links in (hidden, ()):
        monkeypatch.setitem(OUTSIDE, camera, links)
        rng = np.random.default_rng(0)
        with TableRenderer(fetch, camera=camera) as renderer:
            images = []
            for _ in range(6):
                fetch.reset(sample_layout("Reach", "Red", 0, fetch.start, rng))
                direction = rng.uniform(-1, 1, 4)
                for _ in range(15):
                    fetch.step(direction)
                images.append(renderer.image())
            pictures.append(np.array(images))
    assert hidden
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_unknown_cameras_are_refused(robot: None) -> None:
    with pytest.raises(ValueError, match="camera must be one of frontview, topview, got 'side'"):
        TableRenderer(FetchSimulation("Reach", 1), camera="side")
