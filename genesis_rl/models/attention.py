"""Posterior that attends: seeds found on the image, expectation-maximisation over its pixels."""

from typing import Literal, NamedTuple

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
# A window's side in samples, and half of it in standard deviations of the slot's pixels.
_WINDOW, _REACH = 16, 3.0
_EPS = 1e-6


#: Which slots come first, and so, by stick-breaking, in front.
SlotOrder = Literal["top_down", "bottom_up"]


class Seeds(NamedTuple):
    """Starting points of slots.

    Attributes:
        point: in the space of the pixels' points, (B, K, F).
        present: whether there is an object for the slot, (B, K) bool; those present come first.
    """

    point: Tensor
    present: Tensor


@torch.no_grad()
def find_seeds(
    point: Tensor, gate: Tensor, num_slots: int, least_mass: float, order: SlotOrder = "top_down"
) -> Seeds:
    """Choose starting points among the foreground's pixels, the farthest first.

    Each seed is moved by one step of mean shift. What lies within a distance of one belongs to it,
    so that slots beyond the number of objects stay empty.

    Args:
        point: of N pixels, (B, N, F), scaled so that different objects are at least one apart.
        gate: probability that a pixel shows an object, (B, N).
        num_slots: the most seeds.
        least_mass: smallest weight of the pixels around a seed, in pixels.
        order: of the seeds by their first coordinate, the row.
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
    key = -seed[..., 0] if order == "top_down" else seed[..., 0]
    rank = torch.where(there, key, -torch.inf).topk(num_slots, dim=1).indices
    return Seeds(seed.gather(1, rank[..., None].expand_as(seed)), there.gather(1, rank))


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

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_slots: int,
        object_size: float,
        order: SlotOrder = "top_down",
    ) -> None:
        """Build with pixels that vote for themselves.

        Args:
            image_size: side of the images in pixels.
            channels: of the convolutions.
            num_slots: slots for objects.
            object_size: typical side of an object, in halves of the frame's side.
            order: of the slots by the rows of their seeds.
        """
        super().__init__()
        self.num_slots, self.object_size, self.order = num_slots, object_size, order
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
        seeds = find_seeds(point, gate, self.num_slots, least_mass, self.order)
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


class Windows(NamedTuple):
    """A window on each slot, which its pixels' position and spread set.

    Attributes:
        points: rows and columns of the samples, (B, K, S, S, 2) in [-1, 1].
        image: (B, K, 3, S, S) in [0, 1].
        gate: probability that a sample shows an object, (B, K, 1, S, S).
        taken: share of this slot and of all others, (B, K, 2, S, S).
    """

    points: Tensor
    image: Tensor
    gate: Tensor
    taken: Tensor


@torch.no_grad()
def open_windows(x: Tensor, gate: Tensor, found: Statistics) -> Windows:
    """Sample images (B, 3, H, W), gates (B, 1, H, W) and slots' shares in the slots' windows."""
    batch, num_slots = found.position.shape[:2]
    grid = _REACH * coordinate_map(_WINDOW)[0].permute(1, 2, 0).to(x)
    points = found.position[:, :, None, None] + found.spread[..., None, None] * grid
    place = points.flip(-1)  # to columns and rows
    seen = F.grid_sample(torch.cat([x, gate], 1), place.flatten(1, 2), align_corners=True)
    seen = seen.unflatten(2, (num_slots, _WINDOW)).transpose(1, 2)
    rest = found.taken.sum(1, keepdim=True) - found.taken
    both = torch.stack([found.taken, rest], 2).flatten(0, 1)
    # Centres of the squares lie half a square inside the corners that -1 and 1 mean.
    inside = (x.shape[-1] - 1) / (x.shape[-1] - _STRIDE)
    taken = F.grid_sample(both, inside * place.flatten(0, 1), align_corners=True)
    return Windows(points, seen[:, :, :3], seen[:, :, 3:], taken.unflatten(0, (batch, num_slots)))


class AttentionPosterior(nn.Module):
    """q(z_m, z_c | x) of object slots from their pixels' statistics and a window on each.

    The first four mask latents are position, size and presence: a statistic each, and a bounded
    correction. The first three component latents start from the mean colour. With more than one
    pass, the mask and the shading that the latents decode to are compared with the window, and all
    latents corrected: iterative amortised inference (Marino et al. 2018).
    """

    def __init__(
        self,
        attention: SlotAttention,
        feature_size: int,
        mask_latent_size: int,
        component_latent_size: int,
        num_passes: int,
    ) -> None:
        """Build with corrections near zero.

        Args:
            attention: finds the slots' pixels.
            feature_size: width of a window's features.
            mask_latent_size: D_m, at least 4.
            component_latent_size: D_c, at least 3, or 0.
            num_passes: passes over the windows.
        """
        super().__init__()
        self.attention = attention
        self.num_passes = num_passes
        self.sizes = (mask_latent_size, component_latent_size)
        out = 2 * sum(self.sizes)
        # Image, gate, shares; later also the mask and what the shaded colour leaves of the image.
        self.window = _window_network(6, feature_size)
        self.head = _head(feature_size + 7, out)
        if num_passes > 1:
            self.next_window = _window_network(10, feature_size)
            self.next_head = _head(feature_size + 7 + out, out)
            with torch.no_grad():
                self.next_head[-1].get_parameter("weight").mul_(0.1)

    def forward(self, x: Tensor, gate: Tensor, decoder: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Infer the posterior's parameters.

        Args:
            x: images, (B, 3, H, W) in [0, 1].
            gate: probability that a pixel shows an object, (B, 1, H, W).
            decoder: of masks and shading, a `LocalDecoder` if there is more than one pass.

        Returns:
            Raw parameters of z_m (B, K, 2 D_m) and z_c (B, K, 2 D_c), and the votes' loss (B,).
        """
        found = self.attention(x, gate)
        windows = open_windows(x, gate, found)
        seen = torch.cat([windows.image, windows.gate, windows.taken], 2)
        features = at_least_float32(self.window(seen.flatten(0, 1))).unflatten(0, seen.shape[:2])
        scaled = (found.spread / 0.1).log()
        described = torch.cat([found.position, scaled, found.log_mass, found.colour], 2)
        with torch.autocast(x.device.type, enabled=False):
            raw = self.head(torch.cat([features, described], 2))
        for _ in range(self.num_passes - 1):
            more = torch.cat([seen, self._compare(windows, found, raw, decoder)], 2)
            features = at_least_float32(self.next_window(more.flatten(0, 1)))
            features = features.unflatten(0, seen.shape[:2])
            with torch.autocast(x.device.type, enabled=False):
                raw = raw + self.next_head(torch.cat([features, described, raw], 2))
        return *self._anchor(raw, found), found.vote_loss

    @torch.no_grad()
    def _compare(
        self, windows: Windows, found: Statistics, raw: Tensor, decoder: nn.Module
    ) -> Tensor:
        """Masks and remainders of the image in the windows, (B, K, 4, S, S).

        They are evidence as the image is: no gradient goes through them.
        """
        z_m = self._anchor(raw, found)[0][..., : self.sizes[0]]
        logit, shade = (
            v.unflatten(2, windows.points.shape[2:4])[:, :, None]
            for v in decoder(z_m, windows.points.flatten(2, 3))
        )
        colour = found.colour[..., None, None]
        return torch.cat([torch.sigmoid(logit), windows.image - colour * shade], 2)

    def _anchor(self, raw: Tensor, found: Statistics) -> tuple[Tensor, Tensor]:
        """Raw parameters of z_m (B, K, 2 D_m) and z_c (B, K, 2 D_c) around the statistics."""
        d_m, d_c = self.sizes
        mu_m, sigma_m, mu_c, sigma_c = raw.split([d_m, d_m, d_c, d_c], 2)
        place = found.position + 0.1 * torch.tanh(mu_m[..., :2])
        size = (found.spread / 0.1).log() + torch.tanh(mu_m[..., 2:3])
        presence = torch.tanh(found.log_mass + 2.3) + mu_m[..., 3:4]
        # Where an object is, is known better than the rest.
        sigma_m = torch.cat([sigma_m[..., :4] - 2, sigma_m[..., 4:]], 2)
        raw_m = torch.cat([place, size, presence, mu_m[..., 4:], sigma_m], 2)
        if d_c:
            mu_c = torch.cat([2 * found.colour - 1 + mu_c[..., :3], mu_c[..., 3:]], 2)
        return raw_m, torch.cat([mu_c, sigma_c], 2)


def _window_network(in_channels: int, feature_size: int) -> nn.Sequential:
    """Network from windows (B, C, S, S) to features (B, feature_size)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, 2, padding=1),
        nn.ELU(),
        nn.Conv2d(16, 32, 3, 2, padding=1),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(32 * (_WINDOW // 4) ** 2, feature_size),
        nn.ELU(),
    )


def _head(in_features: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, 64), nn.ELU(), nn.Linear(64, out_features))
