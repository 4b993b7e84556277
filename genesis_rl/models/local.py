"""Local decoder: masks and shading in object coordinates, at any resolution."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import at_least_float32

# Number of mask latents of fixed meaning: row, column, log size, presence.
GEOMETRY = 4
# Object size at a log size of 0, bound of slot coordinates, of mask logits and of log shading.
_SIZE, _REACH, _BOUND, _SHADE = 0.1, 4.0, 8.0, 0.7
# Edges of the polygon of a mask, and faces of its shading.
_EDGES, _FACES = 8, 4
# Slope of the mask logit across an edge per unit of size, and of the logits between faces.
_EDGE_SLOPE, _FACE_SLOPE = 4.0, 3.0


class LocalDecoder(nn.Module):
    """Mask logits and shading at given points of the frame.

    With u = (point - position) / size, where position and size are given by the first three
    latents, a mask is a convex polygon, empty for low presence:

        logit = softmin(softmin_j 4 (d_j - n_j . u), 6 presence), bounded at +-8

    Shading is linear on each of four faces, s = sum_i softmax_i(3 (a_i . u + b_i)) (g_i . u + h_i);
    colours are multiplied by exp(.7 tanh s). A network predicts n, d, a, b, g and h from the other
    latents; initially all masks are near-discs with little shading.
    """

    def __init__(self, latent_size: int, width: int) -> None:
        """Build the decoder of D_m > 4 latents, with ``width`` hidden units."""
        super().__init__()
        self.hidden = nn.Linear(latent_size - GEOMETRY, width)
        self.head = nn.Linear(width, 3 * _EDGES + 6 * _FACES)
        angle = torch.arange(_EDGES) * (2 * math.pi / _EDGES)
        edges = torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 2.0)], 1)
        with torch.no_grad():
            self.head.weight.mul_(0.5)
            self.head.bias.zero_()
            self.head.bias[: edges.numel()] = edges.flatten()

    def forward(self, z: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Decode masks and shading.

        Args:
            z: mask latents, (B, K, D_m).
            points: rows and columns in [-1, 1], (N, 2), for each image (B, N, 2) or for each slot
                (B, K, N, 2).

        Returns:
            Mask logits (B, K, N), in [-8, 8], and factors of the colours (B, K, N).
        """
        with torch.autocast(z.device.type, enabled=False):
            u, edges, faces = self._shapes(at_least_float32(z), points)
            # (B, K, J, N), planes before points, so that sums over planes add contiguous rows.
            weight = (_FACE_SLOPE * (faces[..., :3] @ u)).softmax(2)
            tone = (weight * (faces[..., 3:] @ u)).sum(2)
            return self._logits(z, u, edges), torch.exp(_SHADE * torch.tanh(tone))

    def masks(self, z: Tensor, points: Tensor) -> Tensor:
        """Decode mask logits alone; arguments and shape as in ``forward``."""
        with torch.autocast(z.device.type, enabled=False):
            u, edges, _ = self._shapes(at_least_float32(z), points)
            return self._logits(z, u, edges)

    def _shapes(self, z: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return points (row, column, 1) in object coordinates (B, K, 3, N), edges and faces."""
        position, size = z[..., None, :2], z[..., 2:3].exp() * _SIZE
        if points.ndim == 3:
            points = points[:, None]
        u = ((points - position) / size[..., None, :]).clamp(-_REACH, _REACH)
        parameters = self.head(F.elu(self.hidden(z[..., GEOMETRY:])))
        edges, faces = parameters.split([3 * _EDGES, 6 * _FACES], 2)
        u = F.pad(u, (0, 1), value=1.0).transpose(2, 3)
        return u, edges.unflatten(2, (_EDGES, 3)), faces.unflatten(2, (_FACES, 6))

    def _logits(self, z: Tensor, u: Tensor, edges: Tensor) -> Tensor:
        """Return mask logits (B, K, N) of points in object coordinates."""
        normal, distance = edges.split([2, 1], 3)
        outside = _EDGE_SLOPE * (torch.cat([normal, -distance], 3) @ u)
        logit = -torch.logaddexp(torch.logsumexp(outside, 2), -6 * z[..., 3:4])
        return _BOUND * torch.tanh(logit / _BOUND)
