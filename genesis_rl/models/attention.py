"""Posterior that attends: seeds found on the image, expectation-maximisation over its pixels."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.blocks import coordinate_map

_ROUNDS = 3
# Standard deviation of hues in a slot, as a distance between RGB vectors of length one.
_HUE = 0.2
# Distances of one at which pixels are of different objects: in typical sizes, and in hue.
_HUE_UNIT = 0.5
_BANDWIDTH = 0.5
# An object has at least this share of the typical area.
_LEAST_AREA = 0.03
_EPS = 1e-6


class Seeds(NamedTuple):
    """Starting points of slots.

    Attributes:
        position: rows and columns, (B, K, 2) in [-1, 1].
        hue: RGB vectors of length one, (B, K, 3).
        present: whether there is an object for the slot, (B, K) bool; those present come first.
    """

    position: Tensor
    hue: Tensor
    present: Tensor


@torch.no_grad()
def find_seeds(
    position: Tensor, hue: Tensor, gate: Tensor, num_slots: int, object_size: float
) -> Seeds:
    """Choose starting points among the foreground's pixels, the farthest first.

    The distance is that of (position / object_size, hue / .5). Each seed is moved by one step of
    mean shift; what lies within a distance of one belongs to it, so that slots beyond the number
    of objects stay empty. Seeds are sorted from the bottom of the image to its top.

    Args:
        position: rows and columns of N pixels, (N, 2) in [-1, 1].
        hue: of each pixel, (B, N, 3), of length one.
        gate: probability that a pixel shows an object, (B, N).
        num_slots: the most seeds.
        object_size: typical side of an object, in halves of the frame's side.
    """
    point = torch.cat([(position / object_size).expand(len(hue), -1, -1), hue / _HUE_UNIT], 2)
    norm = point.square().sum(2)
    pixel_mass = 4 / gate.shape[1]  # of a frame of area 4
    least = _LEAST_AREA * object_size**2 / pixel_mass

    def squared_distance(centre: Tensor) -> Tensor:
        cross = torch.einsum("bnf,bf->bn", point, centre)
        return (norm - 2 * cross + centre.square().sum(1, keepdim=True)).clamp_min(0)

    index = torch.arange(len(hue), device=hue.device)
    # First the point that is farthest from the foreground's middle.
    middle = torch.einsum("bn,bnf->bf", gate, point) / gate.sum(1, keepdim=True).clamp_min(_EPS)
    nearest = squared_distance(middle) + 1
    seeds, present = [], []
    for _ in range(num_slots):
        score = torch.where(gate > 0.4, nearest, -1.0)
        best, chosen = score.max(1)
        centre = point[index, chosen]
        around = squared_distance(centre)
        weight = gate * torch.exp(around * (-0.5 / _BANDWIDTH**2))
        mass = weight.sum(1, keepdim=True)
        centre = torch.einsum("bn,bnf->bf", weight, point) / mass.clamp_min(_EPS)
        seeds.append(centre)
        present.append((best > 1) & (mass[:, 0] > least))
        covered = torch.minimum(squared_distance(centre), around)
        nearest = torch.minimum(nearest, covered) if len(seeds) > 1 else covered
    seed, there = torch.stack(seeds, 1), torch.stack(present, 1)
    # topk, since ONNX has no stable sort.
    order = torch.where(there, seed[..., 0], -torch.inf).topk(num_slots, dim=1).indices
    seed = seed.gather(1, order[..., None].expand_as(seed))
    there = there.gather(1, order)
    return Seeds(seed[..., :2] * object_size, seed[..., 2:] * _HUE_UNIT, there)


class Statistics(NamedTuple):
    """What the pixels of each slot have in common; every field (B, K, ...).

    Attributes:
        position: mean row and column, 2 in [-1, 1].
        spread: standard deviation of the positions along an axis, 1.
        log_mass: logarithm of the area, in typical objects, 1.
        colour: mean colour, 3 in [0, 1].
        state: of the recurrent unit that has read the features.
    """

    position: Tensor
    spread: Tensor
    log_mass: Tensor
    colour: Tensor
    state: Tensor


class SlotAttention(nn.Module):
    """Pixels of the foreground to statistics of slots: EM in position and hue, with learned keys.

    Slots take pixels by a Gaussian around their position times one around their hue; features of
    the pixels, two convolutions over the gated image, add a learned term (Locatello et al. 2020).
    """

    positions: Tensor

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        num_slots: int,
        object_size: float,
        stride: int = 2,
    ) -> None:
        """Build with random weights.

        Args:
            image_size: side of the images in pixels.
            channels: of the convolutions.
            width: of queries, keys and the slots' states.
            num_slots: slots for objects.
            object_size: typical side of an object, in halves of the frame's side.
            stride: side in pixels of the squares that are attended to as one.
        """
        super().__init__()
        self.num_slots, self.object_size, self.stride = num_slots, object_size, stride
        self.convs = nn.Sequential(
            nn.Conv2d(4, channels, 5, padding=2),
            nn.ELU(),
            nn.Conv2d(channels, channels, 5, stride, padding=2),
            nn.ELU(),
        )
        features = channels + 3 + 3 + 2  # besides: colour, hue, position
        self.key = nn.Linear(features, width, bias=False)
        self.value = nn.Linear(features, width)
        self.query = nn.Linear(width, width, bias=False)
        self.first_state = nn.Parameter(torch.zeros(width))
        self.update = nn.GRUCell(width, width)
        nn.init.normal_(self.first_state, std=0.5)
        positions = F.avg_pool2d(coordinate_map(image_size), stride)[0].flatten(1).T.contiguous()
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor, gate: Tensor) -> Statistics:
        """Infer the statistics of slots from images (B, 3, H, W) and gates (B, 1, H, W)."""
        seen = torch.cat([x * gate, gate], 1)
        maps = self.convs(seen).flatten(2).transpose(1, 2).float()
        with torch.autocast(x.device.type, enabled=False):
            # A square has the mean colour of its foreground.
            mean = F.avg_pool2d(seen, self.stride).flatten(2).transpose(1, 2)
            share = mean[..., 3]
            return self._attend(mean[..., :3] / (share[..., None] + _EPS), share, maps)

    def _attend(self, colour: Tensor, gate: Tensor, maps: Tensor) -> Statistics:
        """Attend over pixels: colour (B, N, 3), gate (B, N), maps (B, N, C)."""
        size = self.object_size
        hue = F.normalize(colour, dim=2, eps=1e-3)
        position = self.positions.expand(len(colour), -1, -1)
        seeds = find_seeds(self.positions, hue, gate, self.num_slots, size)
        features = torch.cat([maps, colour, hue, position], 2)
        key, value = self.key(features), self.value(features)
        # Moments of position in one product: row, column, and their squares' sum.
        moments = torch.cat([position, position.square().sum(2, keepdim=True), colour, hue], 2)
        square = moments[..., 2]
        centre, tint = seeds.position, seeds.hue
        variance = torch.full_like(centre[..., :1], (0.5 * size) ** 2)
        state = self.first_state.expand(*centre.shape[:2], -1)
        absent = ~seeds.present[..., None]
        pixel_mass = 4 / (gate.shape[1] * size**2)
        for _ in range(_ROUNDS):
            # Squared distances from products: nothing of size (B, K, N, F) is made.
            near = square[:, None] - 2 * centre @ position.transpose(1, 2)
            near = near + centre.square().sum(2, keepdim=True)
            alike = 2 - 2 * tint @ hue.transpose(1, 2)
            learned = self.query(state) @ key.transpose(1, 2) / state.shape[2]
            logits = learned - near / (2 * variance) - variance.log() - alike / (2 * _HUE**2)
            logits = logits.masked_fill(absent, -1e4)
            taken = logits.softmax(1) * gate[:, None]
            taken = taken.masked_fill(absent, 0.0)
            mass = taken.sum(2, keepdim=True)
            share = taken / (mass + _EPS)
            mean = share @ moments
            centre = mean[..., :2]
            spread2 = (mean[..., 2:3] - centre.square().sum(2, keepdim=True)).clamp_min(0) / 2
            variance = spread2.clamp((0.2 * size) ** 2, size**2)
            tint = F.normalize(mean[..., 6:], dim=2, eps=1e-3)
            read = (share @ value).flatten(0, 1)
            state = self.update(read, state.flatten(0, 1)).unflatten(0, centre.shape[:2])
        log_mass = (mass * pixel_mass + 1e-3).log()
        return Statistics(centre, (spread2 + 1e-4).sqrt(), log_mass, mean[..., 3:6], state)


class AttentionPosterior(nn.Module):
    """q(z_m, z_c | x) of object slots from the statistics of their pixels.

    The first four mask latents are position, size and presence: a statistic each, and a bounded
    correction. The first three component latents start from the mean colour.
    """

    def __init__(
        self,
        attention: SlotAttention,
        width: int,
        mask_latent_size: int,
        component_latent_size: int,
    ) -> None:
        """Take the attention, the width of its states, D_m >= 4 and D_c >= 3 (or 0)."""
        super().__init__()
        self.attention = attention
        self.sizes = (mask_latent_size, component_latent_size)
        self.hidden = nn.Linear(width + 2 + 1 + 1 + 3, 64)
        self.head = nn.Linear(64, 2 * sum(self.sizes))

    def forward(self, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """Infer the raw parameters of z_m (B, K, 2 D_m) and of z_c (B, K, 2 D_c)."""
        found = self.attention(x, gate)
        d_m, d_c = self.sizes
        with torch.autocast(x.device.type, enabled=False):
            scaled = (found.spread / 0.1).log()
            read = [found.state, found.position, scaled, found.log_mass, found.colour]
            raw = self.head(F.elu(self.hidden(torch.cat(read, 2))))
            mu_m, sigma_m, mu_c, sigma_c = raw.split([d_m, d_m, d_c, d_c], 2)
            place = found.position + 0.1 * torch.tanh(mu_m[..., :2])
            size = scaled + torch.tanh(mu_m[..., 2:3])
            presence = torch.tanh(found.log_mass + 2.3) + mu_m[..., 3:4]
            # Where an object is, is known better than the rest.
            sigma_m = torch.cat([sigma_m[..., :4] - 2, sigma_m[..., 4:]], 2)
            raw_m = torch.cat([place, size, presence, mu_m[..., 4:], sigma_m], 2)
            if d_c:
                mu_c = torch.cat([2 * found.colour - 1 + mu_c[..., :3], mu_c[..., 3:]], 2)
            return raw_m, torch.cat([mu_c, sigma_c], 2)
