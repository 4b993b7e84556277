"""Environments and observation wrappers (Gymnasium)."""

import gymnasium as gym


def register_envs() -> None:
    """Register the environment ids; importing `genesis_rl` calls it.

    The entry points are strings, so nothing is imported before an environment is made.
    """
    if "genesis_rl/ObjectGoal-v0" not in gym.registry:
        gym.register(
            id="genesis_rl/ObjectGoal-v0",
            entry_point="genesis_rl.envs.sprites:ObjectGoalEnv",
            max_episode_steps=100,
        )
