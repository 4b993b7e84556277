"""Local decoder: masks and shading in an object's own coordinates, at any resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Mask latents with a meaning: row, column, log size, presence.
GEOMETRY = 4
_SIZE = 0.1
_REACH = 4.0
_BOUND = 8.0
_SHADE = 0.7


class LocalDecoder(nn.Module):
    """Mask logits and shading at any points of the frame, moved and scaled by the latents.

    With u = (point - position) / size, where position and size are the first three latents:

        logit = softmin(a - b |u|^2 + f(u, |u|, z), 6 presence), bounded at +-8

    so that a mask starts as a disc, and an absent object has none. A second output of f is the
    shading s; colours are multiplied by exp(.7 tanh s).
    """

    def __init__(self, latent_size: int, width: int) -> None:
        """Take D_m >= 4 and the units of the two hidden layers."""
        super().__init__()
        self.from_point = nn.Linear(3, width)
        self.from_latent = nn.Linear(latent_size - GEOMETRY, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 2)
        self.disc = nn.Parameter(torch.tensor([4.0, 1.0]))
        with torch.no_grad():
            self.head.weight.mul_(0.3)
            self.head.bias.zero_()

    def forward(self, z: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Decode masks and shading.

        Args:
            z: mask latents, (B, K, D_m).
            points: rows and columns in [-1, 1], (N, 2) or for each image (B, N, 2).

        Returns:
            Mask logits (B, K, N), in [-8, 8], and the factor of colours (B, K, N).
        """
        place, size, presence = z[..., None, :2], z[..., 2:3].exp() * _SIZE, z[..., 3:4]
        points = points if points.ndim == 3 else points[None]
        u = (points[:, None] - place) / size[..., None, :]
        u = u.clamp(-_REACH, _REACH)
        square = u.square().sum(-1, keepdim=True)
        y = self.from_point(torch.cat([u, (square + 1e-6).sqrt()], -1))
        y = F.elu(y + self.from_latent(z[..., GEOMETRY:])[:, :, None])
        out = self.head(F.elu(self.hidden(y))).float()
        shape = self.disc[0] - self.disc[1] * square[..., 0] + out[..., 0]
        logit = -torch.logaddexp(-shape, -6 * presence)
        return _BOUND * torch.tanh(logit / _BOUND), torch.exp(_SHADE * torch.tanh(out[..., 1]))
