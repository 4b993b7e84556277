"""Gymnasium environments and wrappers, and the registration of the environment ids."""

import gymnasium

_ENTRY_POINTS: dict[str, str] = {}


def register_envs() -> None:
    """Register the environment ids with Gymnasium; calling it again changes nothing."""
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)
