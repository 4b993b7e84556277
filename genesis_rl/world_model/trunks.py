"""Trunks of a world model: a transformer over slots, or an MLP over all latents."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.set_layers import TransformerBlock

# Hidden units of the MLP per unit of the transformer's width.
_FLAT_FACTOR = 4


class SlotTrunk(nn.Module):
    """A transformer over the slots, an action token and a CLS token.

    It has no positional encoding, so predictions are equivariant to permutations of the slots.
    """

    def __init__(self, num_features: int, action_width: int, width: int, layers: int, heads: int):
        """Build the network; D features of a slot, ``width`` of a token."""
        super().__init__()
        self.slot = nn.Linear(num_features, width)
        self.action = nn.Linear(action_width, width)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, slots: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features of slots and scene.

        Args:
            slots: (B, K, D), scaled.
            action: (B, action_width).

        Returns:
            Features of the slots, (B, K, width), and of the scene, (B, width).
        """
        token = self.action(action)[:, None]
        # The action is also added to all tokens, because reading it by attention takes much longer
        # to learn. Its own token is the last, and is not updated by the last block.
        x = torch.cat([self.cls + token, self.slot(slots) + token, token], dim=1)
        for i, block in enumerate(self.blocks):
            last = i + 1 == len(self.blocks)
            x = block(x, num_queries=x.shape[1] - last)
        x = self.norm(x)
        return x[:, 1:], x[:, 0]


class FlatTrunk(nn.Module):
    """An MLP over all concatenated latents: the baseline without slots."""

    def __init__(
        self, num_slots: int, num_features: int, action_width: int, width: int, layers: int
    ) -> None:
        """Build the network, from K slots of D features to ``width`` features per slot."""
        super().__init__()
        self.num_slots = num_slots
        hidden = _FLAT_FACTOR * width
        sizes = [num_slots * num_features + action_width] + layers * [hidden]
        self.hidden = nn.ModuleList(
            nn.Linear(size, following) for size, following in pairwise(sizes)
        )
        self.norm = nn.LayerNorm(hidden)
        self.slots = nn.Linear(hidden, num_slots * width)
        self.whole = nn.Linear(hidden, width)

    def forward(self, slots: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features of slots and scene, as `SlotTrunk.forward`."""
        x = torch.cat([slots.flatten(1), action], dim=1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        x = self.norm(x)
        return self.slots(x).unflatten(1, (self.num_slots, -1)), self.whole(x)
