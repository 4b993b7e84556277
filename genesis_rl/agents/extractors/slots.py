"""What all features extractors share: the form of the slots."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from genesis_rl.set_layers import SlotScale as SlotScale


class SlotExtractor(BaseFeaturesExtractor):
    """The base of all features extractors for slots.

    Attributes:
        scale: what the observations go through first.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int | None = None
    ) -> None:
        """Read the space.

        Args:
            observation_space: Box (K, D), as GenesisObs and VecGenesisObs make it, or (T, K, D).
            features_dim: size of the result; None for all slots in a row.

        Raises:
            ValueError: if the space is no set of slots.
        """
        num_slots, num_features = _read(observation_space)
        super().__init__(observation_space, features_dim or num_slots * num_features)
        self.scale = SlotScale(num_features)

    @property
    def num_features(self) -> int:
        """D of the slots as the network sees them: T times as many when stacked over time."""
        return len(self.scale.mean)

    def fit_scale(self, observations: Tensor) -> None:
        """Set the scale by observations, for example of random steps; see `SlotScale.fit`."""
        self.scale.fit(observations)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless all sizes are positive."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; wanted at least 1.")


def _read(space: spaces.Space[Any]) -> tuple[int, int]:
    """K and D of a space of slots."""
    # Frames have three axes, too, but are bytes or bounded.
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind == "f":
        if len(space.shape) == 2:
            return space.shape[0], space.shape[1]
        if len(space.shape) == 3 and not space.is_bounded("both"):
            return space.shape[1], space.shape[0] * space.shape[2]
    raise ValueError(
        f'observation_space is {space}; wanted a Box (K, D): the layout "set" of GenesisObs, also '
        "stacked over time, (T, K, D)."
    )
