"""Towers of blocks as in ShapeStacks, sampled, rendered and simulated with MuJoCo."""

from genesis_rl.worlds.towers.rendering import TowerRenderer
from genesis_rl.worlds.towers.rules import (
    COLOURS,
    FAMILIES,
    HEIGHTS,
    KINDS,
    RULES,
    Shape,
    Tower,
    sample_shape,
    sample_tower,
    shuffled_colours,
)
from genesis_rl.worlds.towers.simulation import (
    Agreement,
    Pile,
    Pose,
    SimulationResult,
    count_agreement,
    simulate,
)
from genesis_rl.worlds.towers.textures import texture, texture_files
from genesis_rl.worlds.towers.world import (
    CAMERAS,
    LIGHTS,
    TEXTURE_NUMBERS,
    RoomAppearance,
    assets_xml,
    env_xml,
    read_world,
    sample_appearance,
    world_xml,
)

__all__ = [
    "CAMERAS",
    "COLOURS",
    "FAMILIES",
    "HEIGHTS",
    "KINDS",
    "LIGHTS",
    "RULES",
    "TEXTURE_NUMBERS",
    "Agreement",
    "Pile",
    "Pose",
    "RoomAppearance",
    "Shape",
    "SimulationResult",
    "Tower",
    "TowerRenderer",
    "assets_xml",
    "count_agreement",
    "env_xml",
    "read_world",
    "sample_appearance",
    "sample_shape",
    "sample_tower",
    "shuffled_colours",
    "simulate",
    "texture",
    "texture_files",
    "world_xml",
]
