"""Sprite worlds: scene distributions, transition rules and success conditions of the tasks.

A world is a config dataclass with methods to sample a scene, move the agent and evaluate the task.
The environments and the pretraining data share it, so the encoder is trained on the distribution
of frames that the agent observes. The rules follow Yoon et al. (ICML 2023, arXiv:2302.04419).
"""

from genesis_rl.worlds.sprites.scenes import (
    STATE_COLUMNS,
    Appearance,
    BatchRenderer,
    Scene,
    check_scene_size,
    distance,
    from_options,
    get_agent,
    sample_positions,
    scene_state,
    touched_object,
)
from genesis_rl.worlds.sprites.tasks import (
    ObjectComparisonWorld,
    ObjectGoalWorld,
    ObjectInteractionWorld,
    PropertyComparisonWorld,
)
from genesis_rl.worlds.sprites.world import SpriteWorld, TaskStatus

__all__ = [
    "STATE_COLUMNS",
    "Appearance",
    "BatchRenderer",
    "ObjectComparisonWorld",
    "ObjectGoalWorld",
    "ObjectInteractionWorld",
    "PropertyComparisonWorld",
    "Scene",
    "SpriteWorld",
    "TaskStatus",
    "check_scene_size",
    "distance",
    "from_options",
    "get_agent",
    "sample_positions",
    "scene_state",
    "touched_object",
]
