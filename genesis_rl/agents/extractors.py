"""Features extractors of Stable-Baselines3 for observations that are sets of slots."""

from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

# A latent that hardly varies carries noise; scaled up to a spread of 1 it would drown the others.
_MIN_SCALE = 0.1


class SlotScale(nn.Module):
    """Brings slots (B, K, D) to a common scale: (slot - mean) / scale for each of the D features.

    Latents come as they are, some hundred times wider than others. The mean and the scale are
    fixed buffers, the same for all slots, so that the order of the slots stays without meaning,
    and they are saved with the policy. Until `fit` is called nothing changes.

    Attributes:
        mean: (D,).
        scale: (D,), greater than 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        """Start with mean 0 and scale 1.

        Args:
            num_features: D.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    @torch.no_grad()
    def fit(self, slots: Tensor) -> None:
        """Take mean and standard deviation from observations.

        A standard deviation below a tenth of the widest feature's is raised to that.

        Args:
            slots: (N, K, D), for example of random steps.

        Raises:
            ValueError: for another shape.
        """
        if slots.ndim != 3 or slots.shape[-1] != len(self.mean) or not len(slots):
            raise ValueError(
                f"slots has shape {tuple(slots.shape)}; wanted (N, K, {len(self.mean)})."
            )
        flat = slots.flatten(0, 1).to(self.mean)
        spread = flat.std(0, correction=0)
        widest = float(spread.max())
        self.mean.copy_(flat.mean(0))
        # Where nothing varies there is nothing to scale.
        self.scale.copy_(spread.clamp(min=_MIN_SCALE * widest) if widest else spread + 1)

    def forward(self, slots: Tensor) -> Tensor:
        """Scale slots (B, K, D)."""
        return (slots - self.mean) / self.scale


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


class SlotSetExtractor(BaseFeaturesExtractor):
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
            observation_space: Box (K, D), as GenesisObs and VecGenesisObs make it.
            features_dim: size of the result.
            width: size of the tokens.
            heads: attention heads; they divide the width.
            layers: transformer blocks.

        Raises:
            ValueError: if the space is no set of slots, or a size is not positive or not divided.
        """
        for name, value in (("features_dim", features_dim), ("width", width), ("layers", layers)):
            if value < 1:
                raise ValueError(f"{name} is {value}; wanted at least 1.")
        if heads < 1 or width % heads:
            raise ValueError(f"heads is {heads}; wanted a divisor of width, {width}.")
        super().__init__(observation_space, features_dim)
        self.scale = SlotScale(_set_shape(observation_space)[1])
        self.embed = nn.Linear(len(self.scale.mean), width)
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


class FlatSlotsExtractor(BaseFeaturesExtractor):
    """Slots as one long vector, for a plain MLP policy: every slot has its place.

    The same as FlattenExtractor of Stable-Baselines3, with the slots scaled first.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        """Build the extractor.

        Args:
            observation_space: Box (K, D), as GenesisObs and VecGenesisObs make it.

        Raises:
            ValueError: if the space is no set of slots.
        """
        num_slots, num_features = _set_shape(observation_space)
        super().__init__(observation_space, num_slots * num_features)
        self.scale = SlotScale(num_features)

    def forward(self, observations: Tensor) -> Tensor:
        """Flatten slots (B, K, D) into features (B, K * D)."""
        flat: Tensor = self.scale(observations).flatten(1)
        return flat


def _set_shape(space: spaces.Space[Any]) -> tuple[int, int]:
    """K and D of a space of slots."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 2:
        raise ValueError(
            f'observation_space is {space}; wanted a Box (K, D): the layout "set" of GenesisObs.'
        )
    return space.shape[0], space.shape[1]
