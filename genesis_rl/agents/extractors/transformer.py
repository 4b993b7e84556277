"""Features extractor with attention: a transformer with a CLS token."""

from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from genesis_rl.agents.extractors.slots import SlotExtractor, check_sizes
from genesis_rl.models.set_layers import TransformerBlock


class SlotSetExtractor(SlotExtractor):
    """A small transformer that pools slots into a CLS token.

    It has no positional encoding, so the features are invariant to the order of the slots.

    Example:
        >>> PPO("MlpPolicy", venv, policy_kwargs=dict(  # doctest: +SKIP
        ...     features_extractor_class=SlotSetExtractor, net_arch=[]))
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
    ) -> None:
        """Build the network.

        Args:
            observation_space: Box (K, D) of GenesisObs or VecGenesisObs, or (T, K, D).
            features_dim: size of the features.
            width: size of the tokens.
            heads: attention heads, a divisor of ``width``.
            layers: transformer blocks.

        Raises:
            ValueError: if the space is not a set of slots, or a size is invalid.
        """
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        if heads < 1 or width % heads:
            raise ValueError(f"heads must be a divisor of width {width}, got {heads}.")
        super().__init__(observation_space, features_dim)
        self.embed = nn.Linear(self.num_features, width)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        tokens = self.embed(self.scale(observations))
        tokens = torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], dim=1)  # (B, K + 1, .)
        for i, block in enumerate(self.blocks):
            # Only the CLS token of the last block is used.
            last = i + 1 == len(self.blocks)
            tokens = block(tokens, num_queries=1 if last else tokens.shape[1])
        pooled: Tensor = F.relu(self.out(self.norm(tokens[:, 0])))
        return pooled
