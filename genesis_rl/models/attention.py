"""Posterior that attends: seeds found on the image, expectation-maximisation over its pixels."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.blocks import coordinate_map
from genesis_rl.models.base import at_least_float32

_ROUNDS = 3
# Side in pixels of the squares that are attended to as one.
_STRIDE = 2
# Standard deviation of hues in a slot, as a distance between RGB vectors of length one, and the
# distance at which pixels are of different objects.
_HUE, _HUE_UNIT = 0.2, 0.5
_BANDWIDTH = 0.5
# An object has at least this share of the typical area.
_LEAST_AREA = 0.03
# Objects lie at least so many errors of the votes apart, and this part of a typical size.
_VOTE_ERRORS, _LEAST_UNIT = 4.0, 0.35
# A glimpse's side in samples, and half of it in standard deviations of the slot's pixels.
_GLIMPSE, _REACH = 16, 3.0
_EPS = 1e-6


class Seeds(NamedTuple):
    """Starting points of slots.

    Attributes:
        point: in the space of the pixels' points, (B, K, F).
        present: whether there is an object for the slot, (B, K) bool; those present come first.
    """

    point: Tensor
    present: Tensor


@torch.no_grad()
def find_seeds(point: Tensor, gate: Tensor, num_slots: int, least_mass: float) -> Seeds:
    """Choose starting points among the foreground's pixels, the farthest first.

    Each seed is moved by one step of mean shift. What lies within a distance of one belongs to it,
    so that slots beyond the number of objects stay empty. Seeds are sorted by their first
    coordinate, the largest first: from the bottom of the image to its top.

    Args:
        point: of N pixels, (B, N, F), scaled so that different objects are at least one apart.
        gate: probability that a pixel shows an object, (B, N).
        num_slots: the most seeds.
        least_mass: smallest weight of the pixels around a seed, in pixels.
    """
    norm = point.square().sum(2)

    def squared_distance(centre: Tensor) -> Tensor:
        cross = torch.einsum("bnf,bf->bn", point, centre)
        return (norm - 2 * cross + centre.square().sum(1, keepdim=True)).clamp_min(0)

    index = torch.arange(len(point), device=point.device)
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
        present.append((best > 1) & (mass[:, 0] > least_mass))
        covered = torch.minimum(squared_distance(centre), around)
        nearest = torch.minimum(nearest, covered) if len(seeds) > 1 else covered
    seed, there = torch.stack(seeds, 1), torch.stack(present, 1)
    # topk, since ONNX has no stable sort.
    order = torch.where(there, seed[..., 0], -torch.inf).topk(num_slots, dim=1).indices
    return Seeds(seed.gather(1, order[..., None].expand_as(seed)), there.gather(1, order))


class Statistics(NamedTuple):
    """What the pixels of each slot have in common; fields (B, K, ...) but the last.

    Attributes:
        position: mean row and column, 2 in [-1, 1].
        spread: standard deviation of the positions along an axis, 1.
        log_mass: logarithm of the area, in typical objects, 1.
        colour: mean colour, 3 in [0, 1].
        taken: share of each square of pixels that is the slot's, (h, w) in [0, 1].
        vote_loss: loss that the votes are trained on, (B,), in typical sizes.
    """

    position: Tensor
    spread: Tensor
    log_mass: Tensor
    colour: Tensor
    taken: Tensor
    vote_loss: Tensor


class SlotAttention(nn.Module):
    """Pixels of the foreground to slots: expectation-maximisation in votes and hue.

    Each pixel votes for the centre of its object, and slots take pixels by a Gaussian around their
    mean vote times one around their hue. Votes are learned from the slots that come of it, by a
    network that does not see hue: what tells objects apart where colours differ then does so where
    they do not. Until it has learned something, pixels vote for themselves.
    """

    positions: Tensor

    def __init__(self, image_size: int, channels: int, num_slots: int, object_size: float) -> None:
        """Build with pixels that vote for themselves.

        Args:
            image_size: side of the images in pixels.
            channels: of the convolutions.
            num_slots: slots for objects.
            object_size: typical side of an object, in halves of the frame's side.
        """
        super().__init__()
        self.num_slots, self.object_size = num_slots, object_size
        layers: list[nn.Module] = [nn.Conv2d(2, channels, 5, _STRIDE, padding=2), nn.ELU()]
        for dilation in (1, 2, 4):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
                nn.ELU(),
            ]
        self.votes = nn.Sequential(*layers, nn.Conv2d(channels, 2, 1))
        last = self.votes[-1]
        nn.init.normal_(last.get_parameter("weight"), std=0.01)
        nn.init.zeros_(last.get_parameter("bias"))
        # Logarithm of the votes' mean error in typical sizes; that of pixels that vote for
        # themselves is about a quarter.
        self.log_error = nn.Parameter(torch.tensor(0.27).log())
        positions = F.avg_pool2d(coordinate_map(image_size), _STRIDE)[0].flatten(1).T.contiguous()
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor, gate: Tensor) -> Statistics:
        """Infer the statistics of slots from images (B, 3, H, W) and gates (B, 1, H, W)."""
        value = x.amax(1, keepdim=True) * gate
        raw = at_least_float32(self.votes(torch.cat([value, gate], 1)))
        with torch.autocast(x.device.type, enabled=False):
            # A square has the mean colour of its foreground.
            mean = F.avg_pool2d(torch.cat([x * gate, gate], 1), _STRIDE).flatten(2).transpose(1, 2)
            share = mean[..., 3]
            colour = mean[..., :3] / (share[..., None] + _EPS)
            shift = self.object_size * torch.tanh(raw.flatten(2).transpose(1, 2))
            vote = self.positions + shift
            taken = self._attend(vote.detach(), F.normalize(colour, dim=2, eps=1e-3), share)
            return self._describe(taken, vote, colour, raw.shape[2])

    @torch.no_grad()
    def _attend(self, vote: Tensor, hue: Tensor, gate: Tensor) -> Tensor:
        """Share of each pixel that each slot takes, (B, K, N).

        Args:
            vote: for the centre of a pixel's object, (B, N, 2).
            hue: of each pixel, (B, N, 3), of length one.
            gate: probability that a pixel shows an object, (B, N).
        """
        scale = (_VOTE_ERRORS * self.log_error.exp()).clamp(_LEAST_UNIT, 1.0) * self.object_size
        pixel_mass = 4 / gate.shape[1]  # of a frame of area 4
        least_mass = _LEAST_AREA * self.object_size**2 / pixel_mass
        point = torch.cat([vote / scale, hue / _HUE_UNIT], 2)
        seeds = find_seeds(point, gate, self.num_slots, least_mass)
        place, tint = point[..., :2], hue
        centre, mean_tint = seeds.point[..., :2], seeds.point[..., 2:] * _HUE_UNIT
        variance = torch.full_like(centre[..., :1], 0.25)
        absent = ~seeds.present[..., None]
        # Moments in one product: place, its square, hue.
        square = place.square().sum(2)
        moments = torch.cat([place, square[..., None], tint], 2)
        taken = gate[:, None].expand(-1, self.num_slots, -1)
        for _ in range(_ROUNDS):
            # Squared distances from products: nothing of size (B, K, N, F) is made.
            near = square[:, None] - 2 * centre @ place.transpose(1, 2)
            near = near + centre.square().sum(2, keepdim=True)
            alike = 2 - 2 * mean_tint @ tint.transpose(1, 2)
            logits = -near / (2 * variance) - variance.log() - alike / (2 * _HUE**2)
            taken = logits.masked_fill(absent, -1e4).softmax(1) * gate[:, None]
            taken = taken.masked_fill(absent, 0.0)
            mean = taken @ moments / (taken.sum(2, keepdim=True) + _EPS)
            centre = mean[..., :2]
            variance = (mean[..., 2:3] - centre.square().sum(2, keepdim=True)) / 2
            variance = variance.clamp(0.04, 1.0)
            mean_tint = F.normalize(mean[..., 3:], dim=2, eps=1e-3)
        return taken

    def _describe(self, taken: Tensor, vote: Tensor, colour: Tensor, side: int) -> Statistics:
        """Statistics of slots that take pixels (B, K, N), and what the votes (B, N, 2) missed."""
        position = self.positions.expand(len(colour), -1, -1)
        moments = torch.cat([position, position.square().sum(2, keepdim=True), colour], 2)
        mass = taken.sum(2, keepdim=True)
        mean = taken @ moments / (mass + _EPS)
        centre = mean[..., :2]
        spread2 = (mean[..., 2:3] - centre.square().sum(2, keepdim=True)).clamp_min(0) / 2
        log_mass = (mass * 4 / (taken.shape[2] * self.object_size**2) + 1e-3).log()
        error = (vote[:, None] - centre[:, :, None]).square().sum(3).add(_EPS).sqrt()
        error = (taken * error).sum((1, 2)) / (taken.sum((1, 2)) + _EPS) / self.object_size
        # A Laplace distribution's, so that the scale becomes the mean error.
        loss = error * torch.exp(-self.log_error) + self.log_error
        return Statistics(
            centre,
            (spread2 + 1e-4).sqrt(),
            log_mass,
            mean[..., 3:],
            taken.unflatten(2, (side, side)),
            loss,
        )


class Glimpse(nn.Module):
    """A closer look at every slot: features of a window that its pixels' position and spread set.

    The window shows the image, its gate, and what this slot and the others take of it.
    """

    grid: Tensor

    def __init__(self, size: int) -> None:
        """Take the width of the features."""
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(6, 16, 3, 2, padding=1),
            nn.ELU(),
            nn.Conv2d(16, 32, 3, 2, padding=1),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(32 * (_GLIMPSE // 4) ** 2, size),
            nn.ELU(),
        )
        grid = _REACH * coordinate_map(_GLIMPSE)[0].permute(1, 2, 0)
        self.register_buffer("grid", grid.contiguous(), persistent=False)

    def forward(self, x: Tensor, gate: Tensor, found: Statistics) -> Tensor:
        """Features (B, K, size) of images (B, 3, H, W), gates (B, 1, H, W) and slots."""
        seen = torch.cat([x, gate], 1)
        num_slots = found.position.shape[1]
        with torch.no_grad():
            place = found.position[:, :, None, None] + found.spread[..., None, None] * self.grid
            place = place.flip(-1)  # to columns and rows
            crop = F.grid_sample(seen, place.flatten(1, 2), align_corners=True)
            crop = crop.unflatten(2, (num_slots, _GLIMPSE)).transpose(1, 2).flatten(0, 1)
            rest = found.taken.sum(1, keepdim=True) - found.taken
            both = torch.stack([found.taken, rest], 2).flatten(0, 1)
            # Centres of the squares lie half a square inside the corners that -1 and 1 mean.
            inside = (x.shape[-1] - 1) / (x.shape[-1] - _STRIDE)
            both = F.grid_sample(both, inside * place.flatten(0, 1), align_corners=True)
        features: Tensor = self.net(torch.cat([crop, both], 1)).unflatten(0, (-1, num_slots))
        return features


class AttentionPosterior(nn.Module):
    """q(z_m, z_c | x) of object slots from their pixels' statistics and a glimpse of each.

    The first four mask latents are position, size and presence: a statistic each, and a bounded
    correction. The first three component latents start from the mean colour.
    """

    def __init__(
        self,
        attention: SlotAttention,
        glimpse_size: int,
        mask_latent_size: int,
        component_latent_size: int,
    ) -> None:
        """Take the attention, the width of a glimpse's features, D_m >= 4 and D_c >= 3 (or 0)."""
        super().__init__()
        self.attention = attention
        self.glimpse = Glimpse(glimpse_size)
        self.sizes = (mask_latent_size, component_latent_size)
        self.hidden = nn.Linear(glimpse_size + 2 + 1 + 1 + 3, 64)
        self.head = nn.Linear(64, 2 * sum(self.sizes))

    def forward(self, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Infer raw parameters of z_m (B, K, 2 D_m) and z_c (B, K, 2 D_c); the votes' loss (B,)."""
        found = self.attention(x, gate)
        features = at_least_float32(self.glimpse(x, gate, found))
        d_m, d_c = self.sizes
        with torch.autocast(x.device.type, enabled=False):
            scaled = (found.spread / 0.1).log()
            read = [features, found.position, scaled, found.log_mass, found.colour]
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
            return raw_m, torch.cat([mu_c, sigma_c], 2), found.vote_loss
