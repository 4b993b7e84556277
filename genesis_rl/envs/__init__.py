"""Environments and observation wrappers (Gymnasium)."""

import gymnasium as gym

#: The relational tasks; the id of each is `genesis_rl/<name>-v0`.
TASKS = ("ObjectGoal", "ObjectInteraction", "ObjectComparison", "PropertyComparison")

#: Skill and relation of the tasks of multi-object Fetch; the id is `genesis_rl/<name>-v0`.
FETCH_TASKS = {
    f"Fetch{skill}{relation}": (skill, relation)
    for skill in ("Reach", "Push", "Pick")
    for relation in ("Red", "Reddest", "Odd", "OddGroups")
}


def register_envs() -> None:
    """Register the environment ids; called on import of `genesis_rl`.

    Entry points are strings: `gymnasium.make` imports the environment's module.
    """
    for name in TASKS:
        if f"genesis_rl/{name}-v0" not in gym.registry:
            gym.register(
                id=f"genesis_rl/{name}-v0",
                entry_point=f"genesis_rl.envs.relational.env:{name}Env",
                vector_entry_point=f"genesis_rl.envs.relational.env:{name}VectorEnv",
                max_episode_steps=100,
            )
    if "genesis_rl/Imagination-v0" not in gym.registry:
        gym.register(
            id="genesis_rl/Imagination-v0",
            entry_point="genesis_rl.envs.imagination.env:ImaginationEnv",
            vector_entry_point="genesis_rl.envs.imagination.env:ImaginationVectorEnv",
        )
    if "genesis_rl/Compose-v0" not in gym.registry:
        gym.register(id="genesis_rl/Compose-v0", entry_point="genesis_rl.envs.compose:ComposeEnv")
    if "genesis_rl/ShapeStacks-v0" not in gym.registry:
        gym.register(
            id="genesis_rl/ShapeStacks-v0",
            entry_point="genesis_rl.envs.shapestacks.env:ShapeStacksEnv",
        )
    if "genesis_rl/Rooms-v0" not in gym.registry:
        gym.register(
            id="genesis_rl/Rooms-v0",
            entry_point="genesis_rl.envs.rooms.env:RoomsEnv",
            max_episode_steps=100,
        )
    for name, (skill, relation) in FETCH_TASKS.items():
        if f"genesis_rl/{name}-v0" not in gym.registry:
            gym.register(
                id=f"genesis_rl/{name}-v0",
                entry_point="genesis_rl.envs.fetch.env:FetchEnv",
                max_episode_steps=50 if skill == "Reach" else 100,
                kwargs={"skill": skill, "relation": relation},
            )
    for name in ("Crafter", "PettingZoo"):
        if f"genesis_rl/{name}-v0" not in gym.registry:
            gym.register(
                id=f"genesis_rl/{name}-v0",
                entry_point=f"genesis_rl.envs.wrappers.adapters:{name}Env",
            )
