"""Scene models behind one protocol; ``MODELS`` maps a name to its config and class."""

from typing import Any

from genesis_rl.models.genesis import Genesis, GenesisConfig, GenesisS, GenesisSConfig

MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    "genesis": (GenesisConfig, Genesis),
    "genesis_s": (GenesisSConfig, GenesisS),
}

__all__ = ["MODELS", "Genesis", "GenesisConfig", "GenesisS", "GenesisSConfig"]
