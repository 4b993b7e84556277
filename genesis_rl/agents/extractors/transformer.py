"""Slots pooled by attention: a transformer with a CLS token."""

from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from genesis_rl.agents.extractors.slots import SlotExtractor, check_sizes


class _Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, num_queries: int) -> Tensor:
        """Update the first ``num_queries`` of the tokens (B, T, width); the rest are only read."""
        normed = self.norm_attention(x)
        x, asking = x[:, :num_queries], normed[:, :num_queries]
        query = self._split(self.query(asking))  # (B, heads, num_queries, width / heads)
        key, value = (self._split(part) for part in self.key_value(normed).chunk(2, dim=-1))
        seen = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


class SlotSetExtractor(SlotExtractor):
    """Slots as a set: a small transformer pools them into a CLS token.

    There is no positional encoding: the order of the slots does not change the features.

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
            observation_space: Box (K, D), as GenesisObs and VecGenesisObs make it, or (T, K, D).
            features_dim: size of the result.
            width: size of the tokens.
            heads: attention heads; they divide the width.
            layers: transformer blocks.

        Raises:
            ValueError: if the space is no set of slots, or a size is not positive or not divided.
        """
        check_sizes(features_dim=features_dim, width=width, layers=layers)
        if heads < 1 or width % heads:
            raise ValueError(f"heads is {heads}; wanted a divisor of width, {width}.")
        super().__init__(observation_space, features_dim)
        self.embed = nn.Linear(self.num_features, width)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, features_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Pool slots (B, K, D) into features (B, features_dim)."""
        tokens = self.embed(self.scale(observations))
        tokens = torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], dim=1)  # (B, K + 1, .)
        for i, block in enumerate(self.blocks):
            # Of the last block only the CLS token is used.
            last = i + 1 == len(self.blocks)
            tokens = block(tokens, num_queries=1 if last else tokens.shape[1])
        pooled: Tensor = F.relu(self.out(self.norm(tokens[:, 0])))
        return pooled
