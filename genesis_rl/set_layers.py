"""Layers for sets of slots: a common scale, and attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A latent that hardly varies carries noise; scaled up to a spread of 1 it would drown the others.
_MIN_SCALE = 0.1


class SlotScale(nn.Module):
    """Brings slots (B, K, D) to a common scale: (slot - mean) / scale for each of the D features.

    Latents come as they are, some hundred times wider than others. The mean and the scale are
    fixed buffers, the same for all slots, so that the order of the slots stays without meaning,
    and they are saved with the policy. Until `fit` is called nothing changes.

    Slots that are stacked over time, (B, T, K, D'), become (B, K, D) first, with D = T * D'.

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
            slots: (N, K, D) or (N, T, K, D'), for example of random steps.

        Raises:
            ValueError: for another shape.
        """
        given, slots = tuple(slots.shape), _through_time(slots)
        if slots.ndim != 3 or slots.shape[-1] != len(self.mean) or not len(slots):
            raise ValueError(f"slots has shape {given}; wanted (N, K, {len(self.mean)}).")
        flat = slots.flatten(0, 1).to(self.mean)
        spread = flat.std(0, correction=0)
        widest = float(spread.max())
        self.mean.copy_(flat.mean(0))
        # Where nothing varies there is nothing to scale.
        self.scale.copy_(spread.clamp(min=_MIN_SCALE * widest) if widest else spread + 1)

    def forward(self, slots: Tensor) -> Tensor:
        """Scale slots (B, K, D) or (B, T, K, D'); the result is (B, K, D)."""
        return (_through_time(slots) - self.mean) / self.scale


class TransformerBlock(nn.Module):
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


def _through_time(slots: Tensor) -> Tensor:
    """Bring slots (B, T, K, D') to (B, K, T * D'), as VecFrameStack lays them out."""
    return slots.transpose(1, 2).flatten(2) if slots.ndim == 4 else slots
