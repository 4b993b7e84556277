"""Scene models with one interface; ``MODELS`` maps a name to its config and class."""

from typing import Any

from torch import nn

from genesis_rl.models.genesis import Genesis, GenesisS
from genesis_rl.models.genesis_config import GenesisConfig, GenesisSConfig
from genesis_rl.models.genesis_v2 import GenesisV2, GenesisV2Config
from genesis_rl.models.iodine import Iodine, IodineConfig
from genesis_rl.models.monet import Monet, MonetConfig
from genesis_rl.models.vae import BdVae, BdVaeConfig, DcVae, DcVaeConfig

MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    cls.model_name: (cls.config_class, cls)
    for cls in (Genesis, GenesisS, Monet, BdVae, DcVae, GenesisV2, Iodine)
}

ModelConfig = (
    GenesisConfig
    | GenesisSConfig
    | MonetConfig
    | BdVaeConfig
    | DcVaeConfig
    | GenesisV2Config
    | IodineConfig
)

__all__ = [
    "MODELS",
    "BdVae",
    "BdVaeConfig",
    "DcVae",
    "DcVaeConfig",
    "Genesis",
    "GenesisConfig",
    "GenesisS",
    "GenesisSConfig",
    "GenesisV2",
    "GenesisV2Config",
    "Iodine",
    "IodineConfig",
    "ModelConfig",
    "Monet",
    "MonetConfig",
    "build_model",
]


def build_model(config: Any) -> Any:
    """Build the model of a config, with randomly initialised weights.

    Raises:
        TypeError: if the config is of no class in ``MODELS``.
    """
    for config_class, model_class in MODELS.values():
        if type(config) is config_class:
            model: nn.Module = model_class(config)
            return model
    raise TypeError(
        f"config must be one of {', '.join(c.__name__ for c, _ in MODELS.values())}, got "
        f"{type(config).__name__}."
    )
