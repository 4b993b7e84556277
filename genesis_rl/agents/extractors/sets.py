"""Features extractors without attention: deep sets, relation networks, concatenation."""

from typing import Any

import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from genesis_rl.agents.extractors.slots import SlotExtractor, check_sizes


class DeepSetsExtractor(SlotExtractor):
    """Slots as a set: rho(mean_k phi(slot_k)), with MLPs phi and rho (Zaheer et al., 2017).

    The fastest of the permutation-invariant extractors. The paper's sum is replaced by the mean, so
    that the magnitude of the features does not depend on the number of slots.

    Example:
        >>> PPO("MlpPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=DeepSetsExtractor, net_arch=[]))
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        width: int = 64,
        layers: int = 2,
    ) -> None:
        """Build the network.

        Args:
            observation_space: Box (K, D) of GenesisObs or VecGenesisObs, or (T, K, D).
            features_dim: size of the features.
            width: size of the hidden layers.
            layers: layers of phi; rho has one more hidden layer.

        Raises:
            ValueError: if the space is not a set of slots, or a size is not positive.
        """
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        super().__init__(observation_space, features_dim)
        self.phi = nn.Sequential(_layer(self.num_features, width), _layers(width, layers - 1))
        self.rho = nn.Sequential(_layer(width, width), _layer(width, features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        features: Tensor = self.rho(self.phi(self.scale(observations)).mean(1))
        return features


class RelationExtractor(SlotExtractor):
    """Relation network over pairs of slots: f(mean_ij g(slot_i, slot_j)).

    g and f are MLPs; the mean is over all K * K ordered pairs, including i = j (Santoro et al.,
    2017, whose sum differs by a constant factor).

    Example:
        >>> PPO("MlpPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=RelationExtractor, net_arch=[]))
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        width: int = 64,
        layers: int = 2,
    ) -> None:
        """Build the network.

        Args:
            observation_space: Box (K, D) of GenesisObs or VecGenesisObs, or (T, K, D).
            features_dim: size of the features.
            width: size of the hidden layers.
            layers: layers of g; f has one more hidden layer.

        Raises:
            ValueError: if the space is not a set of slots, or a size is not positive.
        """
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        super().__init__(observation_space, features_dim)
        # The first layer of g on (slot_i, slot_j) is the sum of two layers on single slots, which
        # reduces its cost by a factor of K.
        self.first = nn.Linear(self.num_features, width)
        self.second = nn.Linear(self.num_features, width, bias=False)
        self.pair = _layers(width, layers - 1)
        self.out = nn.Sequential(_layer(width, width), _layer(width, features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        slots = self.scale(observations)
        pairs = F.relu(self.first(slots)[:, :, None] + self.second(slots)[:, None])  # (B, K, K, .)
        features: Tensor = self.out(self.pair(pairs).mean((1, 2)))
        return features


class FlatSlotsExtractor(SlotExtractor):
    """Concatenated slots for an MLP policy, which depends on their order.

    FlattenExtractor of Stable-Baselines3 with scaled slots.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        """Build the extractor.

        Args:
            observation_space: Box (K, D) of GenesisObs or VecGenesisObs, or (T, K, D).

        Raises:
            ValueError: if the space is not a set of slots.
        """
        super().__init__(observation_space)

    def forward(self, observations: Tensor) -> Tensor:
        """Flatten slots (B, K, D) into features (B, K * D)."""
        flat: Tensor = self.scale(observations).flatten(1)
        return flat


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


def _layers(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_layer(width, width) for _ in range(count)))
