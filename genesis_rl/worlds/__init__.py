"""Worlds of sprites: what may stand in a scene and where, and the rules of the tasks in it.

A world is plain data plus the rule that draws a scene from it, moves its agent and judges the
result. The environments and the scene sampler that feeds pretraining share it, so an encoder sees
in training what the agent sees later. The rules follow the relational tasks of Yoon et al. (ICML
2023, arXiv:2302.04419).
"""

from genesis_rl.worlds.batch import BatchRenderer
from genesis_rl.worlds.scenes import (
    STATE_COLUMNS,
    Look,
    Scene,
    agent_of,
    check_frame,
    from_options,
    gap,
    scatter,
    scene_state,
    touched,
)
from genesis_rl.worlds.tasks import (
    ObjectComparisonWorld,
    ObjectGoalWorld,
    ObjectInteractionWorld,
    PropertyComparisonWorld,
)
from genesis_rl.worlds.world import Outcome, SpriteWorld

__all__ = [
    "STATE_COLUMNS",
    "BatchRenderer",
    "Look",
    "ObjectComparisonWorld",
    "ObjectGoalWorld",
    "ObjectInteractionWorld",
    "Outcome",
    "PropertyComparisonWorld",
    "Scene",
    "SpriteWorld",
    "agent_of",
    "check_frame",
    "from_options",
    "gap",
    "scatter",
    "scene_state",
    "touched",
]
