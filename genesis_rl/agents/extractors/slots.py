"""Base class of features extractors for slots."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from genesis_rl.models.set_layers import SlotScale as SlotScale


class SlotExtractor(BaseFeaturesExtractor):
    """Base class of features extractors for slots.

    Attributes:
        scale: normalisation of the observations.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int | None = None
    ) -> None:
        """Validate the space and create the scale.

        Args:
            observation_space: Box (K, D) of GenesisObs or VecGenesisObs, or (T, K, D).
            features_dim: size of the features; None for K * D.

        Raises:
            ValueError: if the space is not a set of slots.
        """
        num_slots, num_features = _read(observation_space)
        super().__init__(observation_space, features_dim or num_slots * num_features)
        self.scale = SlotScale(num_features)

    @property
    def num_features(self) -> int:
        """Features per slot: D, or T * D when stacked over time."""
        return len(self.scale.mean)

    def fit_scale(self, observations: Tensor) -> None:
        """Fit the scale to observations, for example of random steps; see `SlotScale.fit`."""
        self.scale.fit(observations)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless all sizes are positive."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


def _read(space: spaces.Space[Any]) -> tuple[int, int]:
    """Return K and D of a space of slots."""
    # Frames also have three axes, but are uint8 or bounded.
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind == "f":
        if len(space.shape) == 2:
            return space.shape[0], space.shape[1]
        if len(space.shape) == 3 and not space.is_bounded("both"):
            return space.shape[1], space.shape[0] * space.shape[2]
    raise ValueError(
        f'observation_space must be a Box (K, D), the layout "set" of GenesisObs, or stacked over '
        f"time, (T, K, D), got {space}."
    )
