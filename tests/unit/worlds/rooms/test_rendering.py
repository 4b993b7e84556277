"""Rendered rooms: geometry of the masks, colours, textures, shadows."""

from collections.abc import Iterator
from dataclasses import replace
from math import cos, pi, radians, sin, tan

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.worlds.rooms import (
    SHAPES,
    TEXTURES,
    CameraPose,
    Room,
    RoomObject,
    RoomRenderer,
    ShapeName,
    in_camera_frame,
    sample_ring_pose,
    sample_room,
)

# Smoke: MuJoCo's structures change between versions.
pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures("opengl")]
LEVEL = CameraPose(-3, 0, 0.4, 0, 0)
RED = (0.9, 0.1, 0.1)


@pytest.fixture(scope="module")
def renderer(opengl: None) -> Iterator[RoomRenderer]:
    with RoomRenderer(128) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def large(opengl: None) -> Iterator[RoomRenderer]:
    with RoomRenderer(512) as renderer:
        yield renderer


def extent(mask: npt.NDArray[np.bool_], axis: int) -> int:
    return int(mask.any(axis).sum())


@pytest.mark.parametrize("yaw", [0.0, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_their_size(renderer: RoomRenderer, shape: ShapeName, yaw: float) -> None:
    scale = 0.4
    item = RoomObject(shape, RED, 0, 0, scale, yaw)
    renderer.load(Room((item,)))
    _, masks = renderer.render(LEVEL)
    mask = masks == 1
    pixels_per_metre = 128 / 2 / tan(radians(25)) / 3
    # By perspective, near parts are larger.
    assert 0.97 < extent(mask, 1) / (2 * scale * pixels_per_metre) < 1.2
    assert extent(mask, 0) <= 2 * item.radius * pixels_per_metre * 1.15
    # On the floor, 0.4 m below the camera, and no higher than its scale.
    rows = np.flatnonzero(mask.any(1))
    assert abs(rows.mean() - 63.5) < 4


@pytest.mark.parametrize("shape", SHAPES)
def test_an_outline_from_above_has_the_radius(large: RoomRenderer, shape: ShapeName) -> None:
    item = RoomObject(shape, RED, 0.3, -0.2, 0.45, 0.7)
    large.load(Room((item,)))
    _, masks = large.render(CameraPose(0.3, -0.2, 20.0, 0, -pi / 2))  # nearly orthographic
    pixel = 2 * 20 * tan(radians(25)) / 512  # metres on the floor
    rows, columns = np.nonzero(masks == 1)
    radius = np.hypot(rows - 255.5, columns - 255.5).max() * pixel
    assert radius == pytest.approx(item.radius, rel=0.05, abs=pixel)


def test_masks_lie_where_the_objects_project(renderer: RoomRenderer) -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(30):
        room, pose = sample_room(rng, 3), sample_ring_pose(rng)
        renderer.load(room)
        _, masks = renderer.render(pose)
        centres = np.array([(item.x, item.y, item.scale) for item in room.objects])
        for number, (ahead, left, above) in enumerate(in_camera_frame(centres, pose), 1):
            depth = ahead * cos(pose.pitch) + above * sin(pose.pitch)
            height = above * cos(pose.pitch) - ahead * sin(pose.pitch)
            focal = 64 / tan(radians(25))
            column, row = 64 - focal * left / depth, 64 - focal * height / depth
            if 0 <= row < 128 and 0 <= column < 128:
                label = masks[int(row), int(column)]
                other = room.objects[label - 1] if label else None
                nearer = (
                    other is not None
                    and in_camera_frame(np.array((other.x, other.y, other.scale)), pose)[0] < ahead
                )
                assert label == number or nearer
                found += label == number
    assert found > 60


def test_an_object_has_its_colour_and_moves_alone(renderer: RoomRenderer) -> None:
    room = Room((RoomObject("sphere", RED, 0, 0, 0.4, 0), RoomObject("box", RED, 0, 1, 0.3, 0)))
    renderer.load(room)
    image, masks = renderer.render(LEVEL)
    mean = image[masks == 1].mean(0)
    assert mean[0] > 3 * mean[1]
    green = replace(room, objects=(room.objects[0]._replace(colour=(0.1, 0.9, 0.1)),))
    renderer.load(green)
    other, alone = renderer.render(LEVEL)
    np.testing.assert_array_equal(alone == 1, masks == 1)
    assert set(np.unique(alone)) == {0, 1}
    mean = other[masks == 1].mean(0)
    assert mean[1] > 3 * mean[0]
    renderer.load(room)
    np.testing.assert_array_equal(renderer.image(LEVEL), image)


def test_all_textures_are_rendered(renderer: RoomRenderer) -> None:
    images = []
    for wall in TEXTURES["all"]["wall"]:
        renderer.load(Room(wall=wall))
        images.append(renderer.image(LEVEL))
    for floor in TEXTURES["all"]["floor"]:
        renderer.load(Room(floor=floor))
        images.append(renderer.image(LEVEL))
    same = [(a == b).all() for i, a in enumerate(images) for b in images[:i]]
    assert sum(same) == 1  # the default room, twice
    for image in images:
        assert image[:20].mean() > 100  # the sky


def test_an_object_casts_a_shadow_below_it(renderer: RoomRenderer) -> None:
    pose = CameraPose(-2, 0, 1, 0, -0.4)
    renderer.load(Room(floor="white"))
    empty = renderer.image(pose).astype(int)
    renderer.load(Room((RoomObject("sphere", RED, 0, 0, 0.4, 0),), floor="white"))
    image, masks = renderer.render(pose)
    inner = cv2.dilate(masks, np.ones((3, 3), np.uint8)) == 0  # edges show both sides
    rows, columns = np.nonzero(((empty - image).sum(2) > 60) & inner)
    assert len(rows) > 20
    assert abs(columns.mean() - 63.5) < 3
    assert rows.mean() > np.nonzero(masks)[0].mean()


def test_the_light_shades_the_side_that_faces_it(renderer: RoomRenderer) -> None:
    sides = []
    for y in (0.8, -0.8):  # to the left and the right of the camera
        renderer.load(Room((RoomObject("cylinder", RED, 0, 0, 0.4, 0),), light=(0, y, 0.6)))
        image, masks = renderer.render(LEVEL)
        red = np.where(masks == 1, image[..., 0], 0).astype(int).sum(0)
        sides.append(red[:64].sum() / red[64:].sum())
    assert sides[0] > 1.1 and sides[1] < 0.9


def test_a_view_does_not_depend_on_the_ones_before(renderer: RoomRenderer) -> None:
    rng = np.random.default_rng(3)
    scenes = [(sample_room(rng, n), sample_ring_pose(rng)) for n in (3, 1, 2, 0)]
    first = []
    for room, pose in scenes:
        renderer.load(room)
        first.append(renderer.render(pose))
    for (room, pose), wanted in zip(scenes[::-1], first[::-1], strict=True):
        renderer.load(room)
        for found, expected in zip(renderer.render(pose), wanted, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_view_does_not_depend_on_uninitialised_memory(renderer: RoomRenderer) -> None:
    """MuJoCo leaves attributes of geoms unset; transparent ones would cast no shadow."""
    rng = np.random.default_rng(5)
    room, pose = sample_room(rng, 3), sample_ring_pose(rng)
    renderer.load(room)
    wanted = renderer.image(pose)
    for geom in list(renderer._scene.geoms)[5:]:  # after the floor and the walls
        geom.transparent = geom.category = geom.objid = 1
        geom.camdist = 1e9
    renderer.load(room)
    np.testing.assert_array_equal(renderer.image(pose), wanted)


def test_two_renderers_do_not_disturb_each_other(renderer: RoomRenderer) -> None:
    rng = np.random.default_rng(4)
    room, pose = sample_room(rng, 3), sample_ring_pose(rng)
    renderer.load(room)
    wanted = renderer.image(pose)
    with RoomRenderer(32) as small:
        small.load(Room())
        assert small.image(pose).shape == (32, 32, 3)
        np.testing.assert_array_equal(renderer.image(pose), wanted)
    np.testing.assert_array_equal(renderer.image(pose), wanted)


def test_bad_options_and_calls_are_named() -> None:
    with pytest.raises(ValueError, match="size must be an integer from 8 to 1024, got 4"):
        RoomRenderer(4)
    renderer = RoomRenderer(16)
    item = RoomObject("sphere", RED, 0, 0, 0.4, 0)
    with pytest.raises(ValueError, match="room must have at most 16 objects, got 17"):
        renderer.load(Room((item,) * 17))
    renderer.close()
    with pytest.raises(RuntimeError, match="the renderer is closed"):
        renderer.load(Room())
    with pytest.raises(RuntimeError, match="the renderer is closed"):
        renderer.image(LEVEL)
