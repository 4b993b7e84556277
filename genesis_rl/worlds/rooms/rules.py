"""Rooms as in GQN's `rooms_ring_camera`: objects, cameras, and their distributions.

Lengths are in metres, angles in radians. The floor is z = 0, its centre the origin; yaw 0 is the
x axis, a positive yaw turns towards the y axis, and a positive pitch upwards.

Of the original (Eslami et al., Science 2018, and the description of its published files) come: a
square room of 7 x 7 units, one to three objects, five textures of walls and three of floors, and a
camera on a ring that faces the centre of the room. Not published, and chosen here: the heights of
walls and camera, the radius of the ring, the field of view, colours, sizes and positions of the
objects, and the light. The original's seventh shape, "triangle", is not included.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, cos, pi, sin
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from genesis_rl.utils.checks import Must, within
from genesis_rl.worlds.rooms.textures import TEXTURES

ShapeName = Literal["box", "sphere", "cylinder", "capsule", "cone", "icosahedron"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)
#: Radius of each shape's outline from above, in units of its scale (half of its height).
FOOTPRINTS: dict[ShapeName, float] = {
    "box": 0.8 * 2**0.5,
    "sphere": 1.0,
    "cylinder": 0.75,
    "capsule": 0.55,
    "cone": 0.9,
    "icosahedron": 1.236,
}
HALF_WIDTH = 3.5  # of the room
WALL_HEIGHT = 2.0
FIELD_OF_VIEW = 50.0  # vertical, in degrees
RING_RADIUS = 3.0
CAMERA_HEIGHT = 1.0
FOCUS_HEIGHT = 0.5  # of the point above the room's centre that the camera faces
CAMERA_PITCH = atan2(FOCUS_HEIGHT - CAMERA_HEIGHT, RING_RADIUS)
SCALES = (0.28, 0.48)  # smallest and largest scale of an object
MAX_OBJECTS = 3
_SPREAD = 1.5  # largest distance of an object's centre from the room's
_GAP = 0.05  # smallest distance between the outlines of two objects
_ATTEMPTS = 100  # positions of one object, before all are sampled anew
_ELEVATION = (0.9, 1.3)  # of the light, in radians

#: Columns of a room's state, with a row per object.
STATE_COLUMNS = (
    *("x", "y", "z"),  # centre in metres, in the room
    *("cos_yaw", "sin_yaw"),
    "scale",  # half of the height in metres
    *SHAPES,  # one of them is 1
    *("red", "green", "blue"),  # 0 to 1
)

#: Smallest and largest number of objects.
NumObjects = Annotated[
    tuple[Annotated[int, within(1, MAX_OBJECTS)], Annotated[int, within(1, MAX_OBJECTS)]],
    Must("(smallest, largest)", lambda pair: pair[0] <= pair[1]),
]
Colour = tuple[float, float, float]
Point = tuple[float, float, float]


class RoomObject(NamedTuple):
    """An object on the floor."""

    shape: ShapeName
    """name of `SHAPES`"""
    colour: Colour
    """RGB in 0..1"""
    x: float
    """position of the centre"""
    y: float
    """position of the centre"""
    scale: float
    """half of the height, which is also the height of the centre"""
    yaw: float
    """rotation about the vertical axis"""

    @property
    def radius(self) -> float:
        """Radius of the outline from above."""
        return FOOTPRINTS[self.shape] * self.scale


class CameraPose(NamedTuple):
    """Pose of a camera, as in GQN's files."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float


@dataclass(frozen=True)
class Room:
    """Content and appearance of a room."""

    objects: tuple[RoomObject, ...] = ()
    """the objects"""
    wall: str = "red"
    """name of the walls' texture"""
    floor: str = "yellow"
    """name of the floor's texture"""
    light: Point = (0.4, 0.2, 0.9)
    """direction, of length 1, to a light without shadows; another one, above the centre of the
    room, casts the shadows"""


def sample_room(
    rng: np.random.Generator,
    num_objects: int,
    textures: str = "train",
    *,
    shapes: Sequence[ShapeName] | None = None,
    colours: Sequence[Colour] | None = None,
    spread: float = _SPREAD,
    gap: float = _GAP,
) -> Room:
    """Sample a room.

    Shapes, colours, yaws, textures and the azimuth of the light are uniform, and objects uniform
    in a disc around the centre, without touching each other.

    Args:
        rng: random generator.
        num_objects: number of objects, 0 to 3.
        textures: set of textures, a key of `TEXTURES`.
        shapes: shapes of the objects; None: random.
        colours: colours of the objects; None: random.
        spread: largest distance of an object's centre from the room's.
        gap: smallest distance between the outlines of two objects from above.

    Returns:
        The room.
    """
    wall, floor = (str(rng.choice(TEXTURES[textures][place])) for place in ("wall", "floor"))
    azimuth, elevation = rng.uniform(-pi, pi), rng.uniform(*_ELEVATION)
    light = (cos(azimuth) * cos(elevation), sin(azimuth) * cos(elevation), sin(elevation))
    if shapes is None:
        shapes = [SHAPES[i] for i in rng.integers(len(SHAPES), size=num_objects)]
    scales = rng.uniform(*SCALES, num_objects).tolist()
    radii = [FOOTPRINTS[shape] * scale for shape, scale in zip(shapes, scales, strict=True)]
    places = sample_places(rng, radii, spread, gap)
    objects = []
    for number, (x, y) in enumerate(places):
        colour = sample_colour(rng) if colours is None else colours[number]
        yaw = float(rng.uniform(-pi, pi))
        objects.append(RoomObject(shapes[number], colour, x, y, scales[number], yaw))
    return Room(tuple(objects), wall, floor, light)


def sample_colour(rng: np.random.Generator, hue: float | None = None) -> Colour:
    """Sample a saturated colour.

    Args:
        rng: random generator.
        hue: in [0, 1); None: any.
    """
    chosen = rng.uniform() if hue is None else hue % 1
    return colorsys.hsv_to_rgb(chosen, rng.uniform(0.65, 1.0), rng.uniform(0.65, 1.0))


def sample_places(
    rng: np.random.Generator, radii: Sequence[float], spread: float, gap: float
) -> list[tuple[float, float]]:
    """Sample centres of objects by rejection, uniformly in a disc around the room's centre.

    Args:
        rng: random generator.
        radii: radii of the outlines from above.
        spread: radius of the disc.
        gap: smallest distance between two outlines.

    Returns:
        A pair (x, y) per radius.
    """
    while True:
        places: list[tuple[float, float]] = []
        for radius in radii:
            for _ in range(_ATTEMPTS):
                distance, angle = spread * rng.uniform() ** 0.5, rng.uniform(-pi, pi)
                x, y = float(distance * cos(angle)), float(distance * sin(angle))
                if all(
                    (x - a) ** 2 + (y - b) ** 2 >= (radius + other + gap) ** 2
                    for (a, b), other in zip(places, radii, strict=False)
                ):
                    places.append((x, y))
                    break
        if len(places) == len(radii):
            return places


def sample_ring_pose(
    rng: np.random.Generator, radius: float = RING_RADIUS, yaw_jitter: float = 0.0
) -> CameraPose:
    """Sample the pose of a camera on the ring, uniformly.

    Args:
        rng: random generator.
        radius: radius of the ring.
        yaw_jitter: largest deviation of the heading from the direction to the centre, in degrees;
            0 as in the original.
    """
    angle = rng.uniform(-pi, pi)
    yaw = angle + pi + np.radians(yaw_jitter) * rng.uniform(-1, 1)
    pitch = atan2(FOCUS_HEIGHT - CAMERA_HEIGHT, radius)
    yaw = (yaw + pi) % (2 * pi) - pi
    return CameraPose(radius * cos(angle), radius * sin(angle), CAMERA_HEIGHT, float(yaw), pitch)


def in_camera_frame(points: npt.NDArray[np.float64], pose: CameraPose) -> npt.NDArray[np.float64]:
    """Convert positions (..., 3) to a camera's horizontal frame: ahead, left of it and above it."""
    offset = points - np.array(pose[:3])
    ahead, left = (
        np.array((cos(pose.yaw), sin(pose.yaw))),
        np.array((-sin(pose.yaw), cos(pose.yaw))),
    )
    return np.stack([offset[..., :2] @ ahead, offset[..., :2] @ left, offset[..., 2]], -1)


def room_state(objects: Sequence[RoomObject], rows: int) -> npt.NDArray[np.float32]:
    """Return the state (rows, F) of objects: `STATE_COLUMNS`, padded with zeros."""
    state = np.zeros((rows, len(STATE_COLUMNS)), np.float32)
    for row, item in zip(state, objects, strict=False):
        row[:6] = item.x, item.y, item.scale, np.cos(item.yaw), np.sin(item.yaw), item.scale
        row[6 + SHAPES.index(item.shape)] = 1
        row[-3:] = item.colour
    return state
