"""Features extractor that pools a CNN's feature map as a set."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import Tensor, nn

from genesis_rl.agents.extractors.slots import SlotExtractor


class FeatureMapExtractor(BaseFeaturesExtractor):
    """The cells of NatureCNN's feature map, pooled like a set of slots.

    Each cell has a learned positional embedding. At 64 px there are 16 cells of 64 features.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], pool: type[SlotExtractor], **sizes: int
    ) -> None:
        """Build the network.

        Args:
            observation_space: Box (3, S, S), uint8, S >= 36.
            pool: one of `EXTRACTORS`.
            **sizes: arguments of ``pool``.
        """
        cnn = NatureCNN(observation_space).cnn[:-1]  # without its Flatten
        with torch.no_grad():
            example = torch.zeros(1, *observation_space.sample().shape)
            _, channels, height, width = cnn(example).shape
        cells = spaces.Box(-np.inf, np.inf, (height * width, channels), np.float32)
        pooled = pool(cells, **sizes)
        super().__init__(observation_space, pooled.features_dim)
        self.cnn, self.pool = cnn, pooled
        self.places = nn.Parameter(0.02 * torch.randn(height * width, channels))

    def forward(self, observations: Tensor) -> Tensor:
        """Compute features (B, features_dim) of frames (B, 3, S, S) in [0, 1]."""
        cells = self.cnn(observations).flatten(2).transpose(1, 2)  # (B, cells, channels)
        features: Tensor = self.pool(cells + self.places)
        return features
