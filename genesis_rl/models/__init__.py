"""Scene models behind one protocol; ``MODELS`` maps a name to its config and class."""

from typing import Any

from torch import nn

from genesis_rl.models.genesis import Genesis, GenesisConfig, GenesisS, GenesisSConfig

MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    "genesis": (GenesisConfig, Genesis),
    "genesis_s": (GenesisSConfig, GenesisS),
}

__all__ = ["MODELS", "Genesis", "GenesisConfig", "GenesisS", "GenesisSConfig", "build_model"]


def build_model(config: Any) -> Any:
    """Build the model that a config of ``MODELS`` describes, with fresh weights.

    Raises:
        TypeError: if the config is of no registered class.
    """
    for config_class, model_class in MODELS.values():
        if type(config) is config_class:
            model: nn.Module = model_class(config)
            return model
    raise TypeError(
        f"config is a {type(config).__name__}; wanted one of "
        f"{', '.join(c.__name__ for c, _ in MODELS.values())}."
    )
