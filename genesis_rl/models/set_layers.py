"""Layers for sets of slots: standardisation and a transformer block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Latents that hardly vary contain noise; scaled to a standard deviation of 1 they would dominate.
_MIN_SCALE = 0.1


class SlotScale(nn.Module):
    """Standardise slots (B, K, D): (slot - mean) / scale for each of the D features.

    Standard deviations of latents may differ by a factor of a hundred. Mean and scale are fixed
    buffers, saved with the policy. They are the same for all slots, so that the layer is
    permutation equivariant. Before `fit` the layer is the identity.

    Slots stacked over time, (B, T, K, D'), are reshaped to (B, K, D) first, with D = T * D'.

    Attributes:
        mean: (D,).
        scale: (D,), greater than 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        """Initialise with mean 0 and scale 1.

        Args:
            num_features: number of features D.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    @torch.no_grad()
    def fit(self, slots: Tensor) -> None:
        """Set mean and scale to the mean and standard deviation of observations.

        Standard deviations below a tenth of the largest one are raised to that.

        Args:
            slots: (N, K, D) or (N, T, K, D'), for example of random steps.

        Raises:
            ValueError: for another shape.
        """
        shape, slots = tuple(slots.shape), _through_time(slots)
        if slots.ndim != 3 or slots.shape[-1] != len(self.mean) or not len(slots):
            raise ValueError(f"slots must have shape (N, K, {len(self.mean)}), got {shape}.")
        flat = slots.flatten(0, 1).to(self.mean)
        spread = flat.std(0, correction=0)
        widest = float(spread.max())
        self.mean.copy_(flat.mean(0))
        # A scale of 1 if no feature varies.
        self.scale.copy_(spread.clamp(min=_MIN_SCALE * widest) if widest else spread + 1)

    def forward(self, slots: Tensor) -> Tensor:
        """Standardise slots (B, K, D) or (B, T, K, D') to (B, K, D)."""
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
        """Return the updated first ``num_queries`` tokens of x (B, T, width); all are attended."""
        normed = self.norm_attention(x)
        x, queries = x[:, :num_queries], normed[:, :num_queries]
        query = self._split(self.query(queries))  # (B, heads, num_queries, width / heads)
        key, value = (self._split(part) for part in self.key_value(normed).chunk(2, dim=-1))
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


def _through_time(slots: Tensor) -> Tensor:
    """Reshape slots (B, T, K, D') to (B, K, T * D'), as in VecFrameStack."""
    return slots.transpose(1, 2).flatten(2) if slots.ndim == 4 else slots
