"""Multi-object Fetch: a robot at a table with coloured objects, its tasks and its renderer.

The tasks and the scene follow SOLD (Mosbach et al., ICML 2025, arXiv:2410.08822).
"""

from genesis_rl.worlds.tabletop.rendering import TableRenderer
from genesis_rl.worlds.tabletop.rules import (
    CUBE,
    MAX_DISTRACTORS,
    MIN_DISTRACTORS,
    PALETTE,
    RED,
    RELATIONS,
    SKILLS,
    SPHERE,
    TABLE_TOP,
    TOLERANCE,
    Layout,
    Relation,
    Skill,
    ciede2000,
    dense_reward,
    is_success,
    rgb_to_lab,
    sample_colours,
    sample_layout,
)
from genesis_rl.worlds.tabletop.simulation import (
    ACTION_TIME,
    CAMERAS,
    STATE_COLUMNS,
    STRIDE,
    FetchSimulation,
    find_assets,
    scene_xml,
)

__all__ = [
    "ACTION_TIME",
    "CAMERAS",
    "CUBE",
    "MAX_DISTRACTORS",
    "MIN_DISTRACTORS",
    "PALETTE",
    "RED",
    "RELATIONS",
    "SKILLS",
    "SPHERE",
    "STATE_COLUMNS",
    "STRIDE",
    "TABLE_TOP",
    "TOLERANCE",
    "FetchSimulation",
    "Layout",
    "Relation",
    "Skill",
    "TableRenderer",
    "ciede2000",
    "dense_reward",
    "find_assets",
    "is_success",
    "rgb_to_lab",
    "sample_colours",
    "sample_layout",
    "scene_xml",
]
