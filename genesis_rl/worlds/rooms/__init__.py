"""Rooms with a few objects as in GQN's `rooms_ring_camera`, sampled and rendered with MuJoCo."""

from genesis_rl.worlds.rooms.rendering import RoomRenderer
from genesis_rl.worlds.rooms.rules import (
    HALF_WIDTH,
    MAX_OBJECTS,
    SHAPES,
    STATE_COLUMNS,
    CameraPose,
    Room,
    RoomObject,
    ShapeName,
    in_camera_frame,
    room_state,
    sample_colour,
    sample_places,
    sample_ring_pose,
    sample_room,
)
from genesis_rl.worlds.rooms.textures import TEXTURES, TextureSet, room_texture

__all__ = [
    "HALF_WIDTH",
    "MAX_OBJECTS",
    "SHAPES",
    "STATE_COLUMNS",
    "TEXTURES",
    "CameraPose",
    "Room",
    "RoomObject",
    "RoomRenderer",
    "ShapeName",
    "TextureSet",
    "in_camera_frame",
    "room_state",
    "room_texture",
    "sample_colour",
    "sample_places",
    "sample_ring_pose",
    "sample_room",
]
