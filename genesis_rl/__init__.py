"""Object-centric perception for reinforcement learning.

Scene models (GENESIS and related models) decompose frames into objects without labels. Wrappers
provide the objects as observations to any Gymnasium or Stable-Baselines3 agent.

Importing this package only registers the environment ids. The public names below are loaded on
first use, so that ``import genesis_rl`` imports neither PyTorch nor Stable-Baselines3.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genesis_rl.envs import register_envs

if TYPE_CHECKING:
    from genesis_rl.agents.bundle import load_agent
    from genesis_rl.agents.extractors.slots import SlotSetExtractor
    from genesis_rl.agents.vec_obs import VecGenesisObs
    from genesis_rl.checkpoints.loading import load
    from genesis_rl.data import open_dataset
    from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
    from genesis_rl.perception.encoder import SlotEncoder
    from genesis_rl.slots import Slots
    from genesis_rl.world_model.model import WorldModel

__version__ = "0.1.0"

__all__ = [
    "GenesisObs",
    "GenesisVectorObs",
    "SlotEncoder",
    "SlotSetExtractor",
    "Slots",
    "VecGenesisObs",
    "WorldModel",
    "__version__",
    "load",
    "load_agent",
    "open_dataset",
]

_HOMES = {
    "GenesisObs": "genesis_rl.envs.wrappers.obs",
    "GenesisVectorObs": "genesis_rl.envs.wrappers.obs",
    "SlotEncoder": "genesis_rl.perception.encoder",
    "SlotSetExtractor": "genesis_rl.agents.extractors.slots",
    "Slots": "genesis_rl.slots",
    "VecGenesisObs": "genesis_rl.agents.vec_obs",
    "WorldModel": "genesis_rl.world_model.model",
    "load": "genesis_rl.checkpoints.loading",
    "load_agent": "genesis_rl.agents.bundle",
    "open_dataset": "genesis_rl.data",
}

register_envs()


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
