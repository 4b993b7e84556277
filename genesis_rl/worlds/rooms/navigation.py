"""Navigation in rooms: the agent's motion, tasks and their success.

The agent is a disc with a camera at its centre. Lengths are in metres, angles in radians.
"""

from dataclasses import dataclass
from math import atan2, cos, hypot, pi, sin, sqrt
from typing import Literal, NamedTuple

import numpy as np

from genesis_rl.utils.checks import Checked
from genesis_rl.worlds.rooms.rules import (
    CAMERA_HEIGHT,
    CAMERA_PITCH,
    HALF_WIDTH,
    MAX_OBJECTS,
    SHAPES,
    CameraPose,
    Colour,
    NumObjects,
    Room,
    RoomObject,
    ShapeName,
    sample_colour,
    sample_room,
)
from genesis_rl.worlds.rooms.textures import TextureSet

Target = Literal["red", "sphere", "odd"]
AGENT_RADIUS = 0.25
STEP = 0.25  # metres per move
TURN = pi / 12  # per turn
#: Actions: metres along the heading, and radians to the left.
ACTIONS = ((STEP, 0.0), (-STEP, 0.0), (0.0, TURN), (0.0, -TURN))
REACH = 0.5  # largest distance of success, between the outlines of agent and target
FACING = pi / 9  # largest angle of success, between the heading and the direction to the target
_SPREAD = 2.3  # of the objects; leaves room for the agent along the walls
_GAP = 0.6  # between objects: the agent fits
_LIMIT = HALF_WIDTH - AGENT_RADIUS  # of the agent's x and y
_RED_HUES, _OTHER_HUES = (-0.03, 0.03), (0.12, 0.88)
_ODD_HUES = (0.25, 0.75)  # difference between the odd hue and that of the others
#: Smallest number of objects of each task.
MIN_OBJECTS: dict[Target, int] = {"red": 1, "sphere": 1, "odd": 3}


class Agent(NamedTuple):
    """Pose of the agent."""

    x: float
    y: float
    yaw: float

    @property
    def camera(self) -> CameraPose:
        """Pose of its camera, with the height and pitch of the cameras on the ring."""
        return CameraPose(self.x, self.y, CAMERA_HEIGHT, self.yaw, CAMERA_PITCH)

    def distance(self, item: RoomObject) -> float:
        """Return the distance between the outlines of agent and object from above."""
        return hypot(item.x - self.x, item.y - self.y) - item.radius - AGENT_RADIUS

    def bearing(self, item: RoomObject) -> float:
        """Return the angle from the heading to the direction of an object, in [-pi, pi)."""
        direction = atan2(item.y - self.y, item.x - self.x)
        return (direction - self.yaw + pi) % (2 * pi) - pi

    def act(self, action: int, room: Room) -> "Agent":
        """Return the agent after an action, an index into `ACTIONS`."""
        distance, angle = ACTIONS[action]
        return self.turn(angle) if angle else self.move(distance, room)

    def turn(self, angle: float) -> "Agent":
        """Return the agent after a turn to the left."""
        return self._replace(yaw=(self.yaw + angle + pi) % (2 * pi) - pi)

    def move(self, distance: float, room: Room) -> "Agent":
        """Return the agent after a move along its heading, or up to the first contact.

        Args:
            distance: in metres; backwards if negative.
            room: the room, whose walls and objects block the agent.
        """
        sign = 1 if distance > 0 else -1
        dx, dy = sign * cos(self.yaw), sign * sin(self.yaw)
        free = abs(distance)
        for position, direction in ((self.x, dx), (self.y, dy)):
            if direction:
                # Negative by rounding errors only.
                wall = (_LIMIT - position * np.sign(direction)) / abs(direction)
                free = min(free, max(0.0, wall))
        for item in room.objects:
            free = min(free, _distance_to_contact(item.x - self.x, item.y - self.y, dx, dy, item))
        return self._replace(x=self.x + free * dx, y=self.y + free * dy)


def _distance_to_contact(x: float, y: float, dx: float, dy: float, item: RoomObject) -> float:
    """Return the length of a move in direction (dx, dy) to the contact with an object at (x, y)."""
    along, reach = x * dx + y * dy, item.radius + AGENT_RADIUS
    inside = reach**2 - (x * x + y * y - along**2)
    if along <= 0 or inside <= 0:  # it is behind or beside the path
        return float("inf")
    return max(0.0, along - sqrt(inside))


def is_success(agent: Agent, target: RoomObject) -> bool:
    """Return whether the agent is near the target and faces it."""
    return agent.distance(target) <= REACH and abs(agent.bearing(target)) <= FACING


def remaining(agent: Agent, target: RoomObject) -> float:
    """Return the remaining distance (m) and bearing (half turns), added; at least 0."""
    return max(0.0, agent.distance(target) - REACH) + abs(agent.bearing(target)) / pi


class Episode(NamedTuple):
    """Start of an episode."""

    room: Room
    target: int | None
    """index of the target among the objects; None in an empty room"""
    agent: Agent

    @property
    def target_object(self) -> RoomObject | None:
        """The target."""
        return None if self.target is None else self.room.objects[self.target]


@dataclass(frozen=True)
class Navigation(Checked):
    """A task: find the target among the objects of a room."""

    target: Target = "red"
    """red: the one red object; sphere: the one sphere; odd: the one of another colour than the
    others, which have the same colour"""
    num_objects: NumObjects = (MAX_OBJECTS, MAX_OBJECTS)
    """smallest and largest number of objects in a room, 1 to 3; 3 for odd"""
    textures: TextureSet = "train"
    """set of textures of walls and floors: train, test or all"""
    empty: bool = False
    """rooms without objects and target, to record the background of a scene model"""

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        least = MIN_OBJECTS[self.target]
        if self.num_objects[0] < least:
            raise ValueError(
                f"num_objects must be at least {least} for target {self.target!r}, got "
                f"{self.num_objects}."
            )

    def sample(self, rng: np.random.Generator) -> Episode:
        """Sample a room and the start of the agent, which is not near the target."""
        if self.empty:
            return _start(rng, sample_room(rng, 0, self.textures), None)
        least, most = self.num_objects
        count = int(rng.integers(least, most + 1))
        target = int(rng.integers(count))
        shapes: list[ShapeName] | None = None
        colours: list[Colour] | None = None
        if self.target == "sphere":
            others = [shape for shape in SHAPES if shape != "sphere"]
            shapes = [others[i] for i in rng.integers(len(others), size=count)]
            shapes[target] = "sphere"
        elif self.target == "red":
            colours = [sample_colour(rng, rng.uniform(*_OTHER_HUES)) for _ in range(count)]
            colours[target] = sample_colour(rng, rng.uniform(*_RED_HUES))
        else:
            hue = rng.uniform()
            colours = [sample_colour(rng, hue)] * count
            colours[target] = sample_colour(rng, hue + rng.uniform(*_ODD_HUES))
        room = sample_room(
            rng, count, self.textures, shapes=shapes, colours=colours, spread=_SPREAD, gap=_GAP
        )
        return _start(rng, room, target)


def _start(rng: np.random.Generator, room: Room, target: int | None) -> Episode:
    least = [REACH if number == target else 0.0 for number in range(len(room.objects))]
    while True:
        x, y = rng.uniform(-_LIMIT, _LIMIT, 2).tolist()
        agent = Agent(x, y, float(rng.uniform(-pi, pi)))
        if all(agent.distance(o) > d for o, d in zip(room.objects, least, strict=True)):
            return Episode(room, target, agent)
