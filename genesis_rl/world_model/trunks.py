"""What a world model's heads stand on: a transformer over slots, or a network without slots."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.set_layers import TransformerBlock

# Hidden units of the network without slots, for each of the transformer's.
_FLAT_FACTOR = 4


class SlotTrunk(nn.Module):
    """A transformer over the slots, a token of the action and a CLS token.

    The slots have no positions: to exchange two slots exchanges what is predicted of them.
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
        """See scenes and actions.

        Args:
            slots: (B, K, D), scaled.
            action: (B, action_width).

        Returns:
            Of each slot (B, K, width), and of the whole scene (B, width).
        """
        seen = self.action(action)[:, None]
        # The slots also know the action from the start: to find it by attention takes far longer
        # to learn. Its token comes last, and is only read by the last block.
        x = torch.cat([self.cls + seen, self.slot(slots) + seen, seen], dim=1)
        for i, block in enumerate(self.blocks):
            last = i + 1 == len(self.blocks)
            x = block(x, num_queries=x.shape[1] - last)
        x = self.norm(x)
        return x[:, 1:], x[:, 0]


class FlatTrunk(nn.Module):
    """A multilayer perceptron over all latents in a row: the baseline without slots."""

    def __init__(
        self, num_slots: int, num_features: int, action_width: int, width: int, layers: int
    ) -> None:
        """Build the network; K slots of D features in, ``width`` for each slot out."""
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
        """See scenes and actions, as `SlotTrunk.forward`."""
        x = torch.cat([slots.flatten(1), action], dim=1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        x = self.norm(x)
        return self.slots(x).unflatten(1, (self.num_slots, -1)), self.whole(x)
