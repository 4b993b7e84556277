"""Rooms, cameras and textures: distributions, constraints, coordinates."""

import colorsys
from collections import Counter
from itertools import combinations
from math import atan2, cos, dist, hypot, pi, sin

import numpy as np
import pytest

from genesis_rl.worlds.rooms import (
    SHAPES,
    STATE_COLUMNS,
    TEXTURES,
    CameraPose,
    Room,
    in_camera_frame,
    room_state,
    room_texture,
    sample_places,
    sample_ring_pose,
    sample_room,
)
from genesis_rl.worlds.rooms.rules import SCALES
from genesis_rl.worlds.rooms.textures import Place


def rooms(count: int, num_objects: int = 3, textures: str = "train") -> list[Room]:
    rng = np.random.default_rng(0)
    return [sample_room(rng, num_objects, textures) for _ in range(count)]


def test_objects_do_not_touch_and_stay_within_the_ring() -> None:
    for room in rooms(300):
        for item in room.objects:
            assert hypot(item.x, item.y) <= 1.5
            assert SCALES[0] <= item.scale <= SCALES[1]
            assert hypot(item.x, item.y) + item.radius < 2.5 - 0.05  # the smallest ring
        for a, b in combinations(room.objects, 2):
            assert dist((a.x, a.y), (b.x, b.y)) >= a.radius + b.radius + 0.05 - 1e-9


def test_shapes_colours_and_textures_vary() -> None:
    sampled = rooms(600)
    shapes = Counter(item.shape for room in sampled for item in room.objects)
    assert set(shapes) == set(SHAPES)
    assert min(shapes.values()) > 0.7 * 1800 / len(SHAPES)
    hues = [colorsys.rgb_to_hsv(*item.colour)[0] for room in sampled for item in room.objects]
    assert np.histogram(hues, 6, (0, 1))[0].min() > 200
    for place in ("wall", "floor"):
        names = Counter(getattr(room, place) for room in sampled)
        assert set(names) == set(TEXTURES["train"][place])
        assert min(names.values()) > 0.7 * 600 / len(names)
    for room in sampled:
        assert hypot(*room.light) == pytest.approx(1)
        assert room.light[2] > 0.75


def test_given_shapes_and_colours_are_used() -> None:
    colours = [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    shapes = SHAPES[1:3]
    room = sample_room(np.random.default_rng(0), 2, shapes=shapes, colours=colours)
    assert [(item.shape, item.colour) for item in room.objects] == list(
        zip(shapes, colours, strict=True)
    )


def test_test_textures_are_set_aside() -> None:
    for place in ("wall", "floor"):
        assert not set(TEXTURES["train"][place]) & set(TEXTURES["test"][place])
        assert TEXTURES["all"][place] == TEXTURES["train"][place] + TEXTURES["test"][place]
    for room in rooms(50, 0, "test"):
        assert room.wall in TEXTURES["test"]["wall"]
        assert room.floor in TEXTURES["test"]["floor"]


@pytest.mark.parametrize("place", ["wall", "floor"])
def test_textures_differ_and_have_their_colours(place: Place) -> None:
    images = [room_texture(place, name, 64) for name in TEXTURES["all"][place]]
    assert all(image.shape == (64, 64, 3) and image.std() > 5 for image in images)
    means = [image.mean((0, 1)) for image in images]
    assert min(float(np.abs(a - b).max()) for a, b in combinations(means, 2)) > 10
    again = room_texture.__wrapped__(place, TEXTURES["all"][place][0], 64)
    np.testing.assert_array_equal(images[0], again)


def test_unknown_textures_are_named() -> None:
    with pytest.raises(ValueError, match=r"name must be one of red, .* got 'mauve' for 'wall'"):
        room_texture("wall", "mauve")
    with pytest.raises(ValueError, match="size must be from 16 to 4096, got 8"):
        room_texture("floor", "white", 8)


def test_cameras_are_on_the_ring_and_face_the_centre() -> None:
    rng = np.random.default_rng(0)
    poses = [sample_ring_pose(rng, 2.8) for _ in range(400)]
    for pose in poses:
        assert hypot(pose.x, pose.y) == pytest.approx(2.8)
        assert pose.x + 2.8 * cos(pose.yaw) == pytest.approx(0, abs=1e-9)
        assert pose.y + 2.8 * sin(pose.yaw) == pytest.approx(0, abs=1e-9)
        assert pose.z + 2.8 * np.tan(pose.pitch) == pytest.approx(0.5)
        assert -pi <= pose.yaw < pi
    angles = [atan2(pose.y, pose.x) for pose in poses]
    assert np.histogram(angles, 8, (-pi, pi))[0].min() > 25


def test_headings_may_deviate() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(300):
        pose = sample_ring_pose(rng, yaw_jitter=20)
        error = pose.yaw - atan2(-pose.y, -pose.x)
        errors.append(np.degrees((error + pi) % (2 * pi) - pi))
    assert 19 < np.abs(errors).max() <= 20
    assert abs(np.mean(errors)) < 2


def test_the_camera_frame() -> None:
    pose = CameraPose(1, 2, 1, pi / 2, -0.2)  # faces along y
    points = np.array([[1, 5, 0.5], [0, 2, 1]], float)
    wanted = np.array([[3, 0, -0.5], [0, 1, 0]])
    assert np.abs(in_camera_frame(points, pose) - wanted).max() < 1e-9


def test_the_state_has_a_row_per_object() -> None:
    (room,) = rooms(1, 2)
    state = room_state(room.objects, 3)
    assert state.shape == (3, len(STATE_COLUMNS)) and not state[2].any()
    for row, item in zip(state, room.objects, strict=False):
        values = dict(zip(STATE_COLUMNS, row.tolist(), strict=True))
        assert (values["x"], values["y"]) == pytest.approx((item.x, item.y))
        assert values["z"] == values["scale"] == pytest.approx(item.scale)
        assert atan2(values["sin_yaw"], values["cos_yaw"]) == pytest.approx(item.yaw)
        assert [name for name in SHAPES if values[name]] == [item.shape]
        assert (values["red"], values["green"], values["blue"]) == pytest.approx(item.colour)


def test_places_are_sampled_anew_where_objects_block_each_other() -> None:
    # Two discs that fit only at opposite ends: most first positions leave no place for the second.
    places = sample_places(np.random.default_rng(0), [0.9, 0.9], 1.0, 0.0)
    assert dist(*places) >= 1.8
