"""Attention posterior: seed selection and expectation-maximisation over foreground pixels."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import at_least_float32
from genesis_rl.models.blocks import coordinate_map

_ROUNDS = 2
# Stride in pixels of the map that the attention runs on; a cell is a square of pixels.
_STRIDE = 2
# Standard deviation of the hues of a slot, as a share of the distance of different objects' hues.
_HUE_DEVIATION = 0.4
_BANDWIDTH = 0.5
# Least distance between objects: in mean errors of the votes, and as a share of the typical size.
_VOTE_ERRORS, _LEAST_UNIT = 4.0, 0.3
# Side of a window in samples, and half its extent in standard deviations of the slot's pixels.
_WINDOW, _REACH = 16, 3.0
# Least border of slots that are merged, in sides of a square with the area of the smaller one.
_BORDER = 0.5
# Hues in the order "hue", and the least saturation of a hue among them.
_HUES, _LEAST_SATURATION = 12, 0.15
_EPS = 1e-6


#: Order of slots by the rows or the hues of their objects; by stick-breaking the first slot is in
#: front.
SlotOrder = Literal["top_down", "bottom_up", "hue"]


class Seeds(NamedTuple):
    """Initial cluster centres of slots.

    Attributes:
        point: feature vectors in the space of the pixels' points, (B, K, F).
        present: whether the slot has an object, (B, K) bool; present slots come first.
    """

    point: Tensor
    present: Tensor


@torch.no_grad()
def find_seeds(
    point: Tensor,
    gate: Tensor,
    num_slots: int,
    least_mass: float,
    order: SlotOrder = "top_down",
    threshold: float = 0.4,
) -> Seeds:
    """Select seeds among foreground pixels by farthest-point sampling.

    Each seed is moved by one step of mean shift. Pixels within a distance of 1 are covered by it,
    so that slots in excess of the number of objects stay empty.

    Args:
        point: feature vectors of N pixels, (B, N, F), scaled so that different objects are at
            least 1 apart.
        gate: probability that a pixel shows an object, (B, N).
        num_slots: K, the maximum number of seeds.
        least_mass: least sum of weights of the pixels around a seed, in pixels.
        order: order of the seeds by their first coordinate, the row, or by the last three, a
            colour.
        threshold: gate above which a pixel may be a seed.
    """
    norm = point.square().sum(2)

    def squared_distance(centre: Tensor) -> Tensor:
        cross = torch.einsum("bnf,bf->bn", point, centre)
        return (norm - 2 * cross + centre.square().sum(1, keepdim=True)).clamp_min(0)

    index = torch.arange(len(point), device=point.device)
    # The first seed is the point farthest from the foreground's mean.
    middle = torch.einsum("bn,bnf->bf", gate, point) / gate.sum(1, keepdim=True).clamp_min(_EPS)
    nearest = squared_distance(middle) + 2  # above 1 even for a single pixel
    seeds, present = [], []
    for _ in range(num_slots):
        score = torch.where(gate > threshold, nearest, -1.0)
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
    seed, is_present = torch.stack(seeds, 1), torch.stack(present, 1)
    # topk because ONNX has no stable sort.
    rank = torch.where(is_present, -_sort_key(seed, order), -torch.inf).topk(num_slots, 1).indices
    return Seeds(seed.gather(1, rank[..., None].expand_as(seed)), is_present.gather(1, rank))


def _sort_key(seed: Tensor, order: SlotOrder) -> Tensor:
    """Return a key of seeds (B, K, F) by which they are sorted in ascending order, (B, K)."""
    row = seed[..., 0]
    if order != "hue":
        return row if order == "top_down" else -row
    # Twelve hues from red to pink, then grey, so that small changes of hue do not exchange objects
    # of one colour, which are sorted by rows.
    colour = seed[..., -3:]
    red, green, blue = colour.unbind(-1)
    turn = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * math.pi)
    hue = (turn * _HUES).round() % _HUES
    # The colours are unit vectors divided by a distance below 1, but that of black is zero.
    value = colour.amax(-1)
    grey = value - colour.amin(-1) < _LEAST_SATURATION * value.clamp_min(0.5)
    return torch.where(grey, _HUES, hue) + row.sigmoid()


class Statistics(NamedTuple):
    """Statistics of the pixels assigned to each slot.

    Attributes:
        position: mean row and column, (B, K, 2) in [-1, 1].
        spread: standard deviation of the positions along an axis, (B, K, 1).
        log_mass: logarithm of the area in typical objects, (B, K, 1).
        colour: mean colour, (B, K, 3) in [0, 1].
        assignment: share of each cell that is assigned to the slot, (B, K, h, w) in [0, 1].
        vote_loss: training loss of the votes, (B,), in typical sizes; None without gradients.
    """

    position: Tensor
    spread: Tensor
    log_mass: Tensor
    colour: Tensor
    assignment: Tensor
    vote_loss: Tensor | None


def _centres(assignment: Tensor, mass: Tensor) -> Tensor:
    """Return the centres (B, K, 2) of slots (B, K, N) with areas (B, K), in cells."""
    side = math.isqrt(assignment.shape[2])
    maps = assignment.unflatten(2, (side, side))
    cells = torch.arange(side, device=maps.device, dtype=maps.dtype)
    return torch.stack([maps.sum(3) @ cells, maps.sum(2) @ cells], 2) / (mass[..., None] + _EPS)


def _borders(assignment: Tensor) -> Tensor:
    """Return the lengths (B, K, K) of common borders of slots (B, K, N), in sides of a cell."""
    side = math.isqrt(assignment.shape[2])
    maps = assignment.unflatten(2, (side, side))
    right = maps[..., :-1].flatten(2) @ maps[..., 1:].flatten(2).transpose(1, 2)
    below = maps[..., :-1, :].flatten(2) @ maps[..., 1:, :].flatten(2).transpose(1, 2)
    border: Tensor = right + below
    return border + border.transpose(1, 2)


def merge_touching(
    assignment: Tensor,
    hue: Tensor,
    hue_distance: float,
    part_hue_distance: float = 0.0,
    part_distance: float = 0.0,
) -> Tensor:
    """Merge slots of one hue that touch, so that objects do not take several slots.

    Args:
        assignment: each slot's share of each cell of a square map, (B, K, N) in [0, 1].
        hue: mean hue of each slot as a unit vector, (B, K, 3).
        hue_distance: distance of hues below which two slots are merged, however far their centres
            are apart.
        part_hue_distance: distance of hues below which two slots are merged if their centres are
            near.
        part_distance: distance of near centres, in sides of a square with the area of both slots.

    Returns:
        (B, K, N): the first slot of every group has the sum of the group, the others are zero.
    """
    num_slots, border = assignment.shape[1], _borders(assignment)
    mass = assignment.sum(2)
    first, second = mass[:, :, None], mass[:, None]
    hues = 2 - 2 * hue @ hue.transpose(1, 2)
    centre = _centres(assignment, mass)
    distance = (centre[:, :, None] - centre[:, None]).square().sum(3)
    is_part = (hues < part_hue_distance**2) & (distance < part_distance**2 * (first + second))
    smaller = torch.minimum(first, second)
    touches = (border > _BORDER * smaller.sqrt()) & (smaller > 0)
    joined = touches & ((hues < hue_distance**2) | is_part)
    reach = joined.float() + torch.eye(num_slots, device=hue.device)
    for _ in range((num_slots - 1).bit_length()):  # to the slots of the slots reached
        reach = (reach @ reach).clamp_max(1)
    group = F.one_hot(reach.argmax(2), num_slots).to(assignment)
    return group.transpose(1, 2) @ assignment


class SlotAttention(nn.Module):
    """Assignment of foreground pixels to slots by expectation-maximisation over votes and hue.

    Each pixel votes for the centre of its object. A slot's likelihood of a pixel is a Gaussian
    around the slot's mean vote times a Gaussian around its mean hue. The resulting slots are the
    training targets of the votes. The network of the votes gets no hue as input, so that what it
    learns from objects of different colours also separates objects of one colour. Initially each
    pixel votes for its own position.
    """

    positions: Tensor

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_slots: int,
        object_size: float,
        order: SlotOrder = "top_down",
        seed_threshold: float = 0.4,
        hue_distance: float = 0.5,
        least_area: float = 0.03,
        merge_hue_distance: float = 0.0,
        merge_distance: float = 0.0,
    ) -> None:
        """Initialise with votes near the pixels' own positions.

        Args:
            image_size: side of the images in pixels.
            channels: channels of the convolutions.
            num_slots: number of object slots.
            object_size: typical side of an object, in halves of the frame's side.
            order: order of the slots by the rows or hues of their seeds.
            seed_threshold: mean gate above which a cell may be a seed.
            hue_distance: distance of unit RGB vectors from which on pixels are of different
                objects.
            least_area: least area of an object, as a share of object_size squared.
            merge_hue_distance: distance of unit RGB vectors below which touching slots are merged.
            merge_distance: distance of centres, in sides of a square with the area of both, below
                which touching slots of hues within hue_distance are merged.
        """
        super().__init__()
        self.num_slots, self.object_size, self.order = num_slots, object_size, order
        self.seed_threshold, self.hue_distance = seed_threshold, hue_distance
        self.least_area = least_area
        self.merge_hue_distance, self.merge_distance = merge_hue_distance, merge_distance
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
        # Logarithm of the votes' mean error in typical sizes: about a quarter for votes at the
        # pixels' own positions.
        self.log_error = nn.Parameter(torch.tensor(0.27).log())
        positions = F.avg_pool2d(coordinate_map(image_size), _STRIDE)[0].flatten(1).T.contiguous()
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor, gate: Tensor) -> Statistics:
        """Infer the statistics of slots from images (B, 3, H, W) and gates (B, 1, H, W)."""
        value = x.amax(1, keepdim=True) * gate
        raw = at_least_float32(self.votes(torch.cat([value, gate], 1)))
        with torch.autocast(x.device.type, enabled=False):
            # Mean colour of the foreground in each cell.
            mean = F.avg_pool2d(torch.cat([x * gate, gate], 1), _STRIDE).flatten(2).transpose(1, 2)
            share = mean[..., 3]
            colour = mean[..., :3] / (share[..., None] + _EPS)
            shift = self.object_size * torch.tanh(raw.flatten(2).transpose(1, 2))
            vote = self.positions + shift
            assignment = self._assign(vote.detach(), F.normalize(colour, dim=2, eps=1e-3), share)
            return self._statistics(assignment, vote, colour, raw.shape[2])

    @torch.no_grad()
    def _assign(self, vote: Tensor, hue: Tensor, gate: Tensor) -> Tensor:
        """Return each slot's share of each pixel, (B, K, N).

        Args:
            vote: predicted centre of each pixel's object, (B, N, 2).
            hue: colour of each pixel as a unit vector, (B, N, 3).
            gate: probability that a pixel shows an object, (B, N).
        """
        scale = (_VOTE_ERRORS * self.log_error.exp()).clamp(_LEAST_UNIT, 1.0) * self.object_size
        pixel_mass = 4 / gate.shape[1]  # of a frame of area 4
        least_mass = self.least_area * self.object_size**2 / pixel_mass
        point = torch.cat([vote / scale, hue / self.hue_distance], 2)
        seeds = find_seeds(point, gate, self.num_slots, least_mass, self.order, self.seed_threshold)
        position = point[..., :2]
        centre, mean_hue = seeds.point[..., :2], seeds.point[..., 2:] * self.hue_distance
        hue_variance = (_HUE_DEVIATION * self.hue_distance) ** 2
        variance = torch.full_like(centre[..., :1], 0.25)
        absent = ~seeds.present[..., None]
        # Moments in one product: position, its square, hue.
        square = position.square().sum(2)
        moments = torch.cat([position, square[..., None], hue], 2)
        for _ in range(_ROUNDS):
            # Squared distances from products, without a tensor of size (B, K, N, F).
            distance = square[:, None] - 2 * centre @ position.transpose(1, 2)
            distance = distance + centre.square().sum(2, keepdim=True)
            hue_distance = 2 - 2 * mean_hue @ hue.transpose(1, 2)
            logits = -distance / (2 * variance) - variance.log() - hue_distance / (2 * hue_variance)
            assignment = logits.masked_fill(absent, -1e4).softmax(1) * gate[:, None]
            assignment = assignment.masked_fill(absent, 0.0)
            mean = assignment @ moments / (assignment.sum(2, keepdim=True) + _EPS)
            centre = mean[..., :2]
            variance = (mean[..., 2:3] - centre.square().sum(2, keepdim=True)) / 2
            variance = variance.clamp(0.04, 1.0)
            mean_hue = F.normalize(mean[..., 3:], dim=2, eps=1e-3)
        if self.merge_hue_distance == 0 and self.merge_distance == 0:
            return assignment
        return merge_touching(
            assignment, mean_hue, self.merge_hue_distance, self.hue_distance, self.merge_distance
        )

    def _statistics(
        self, assignment: Tensor, vote: Tensor, colour: Tensor, side: int
    ) -> Statistics:
        """Compute statistics of slots from assignments (B, K, N) and votes (B, N, 2)."""
        position = self.positions.expand(len(colour), -1, -1)
        moments = torch.cat([position, position.square().sum(2, keepdim=True), colour], 2)
        mass = assignment.sum(2, keepdim=True)
        mean = assignment @ moments / (mass + _EPS)
        centre = mean[..., :2]
        spread2 = (mean[..., 2:3] - centre.square().sum(2, keepdim=True)).clamp_min(0) / 2
        log_mass = (mass * 4 / (assignment.shape[2] * self.object_size**2) + 1e-3).log()
        loss = self._vote_loss(assignment, vote, centre) if torch.is_grad_enabled() else None
        return Statistics(
            centre,
            (spread2 + 1e-4).sqrt(),
            log_mass,
            mean[..., 3:],
            assignment.unflatten(2, (side, side)),
            loss,
        )

    def _vote_loss(self, assignment: Tensor, vote: Tensor, centre: Tensor) -> Tensor:
        """Return the loss of votes (B, N, 2) for the centres (B, K, 2) of their slots, (B,).

        It is the negative log likelihood of a Laplace distribution up to a constant, so that its
        scale becomes the mean error.
        """
        error = (vote[:, None] - centre[:, :, None]).square().sum(3).add(_EPS).sqrt()
        error = (assignment * error).sum((1, 2)) / (assignment.sum((1, 2)) + _EPS)
        return error / self.object_size * torch.exp(-self.log_error) + self.log_error


class SlotWindows(NamedTuple):
    """Image windows, one per slot, centred and scaled by the slot's position and spread.

    Attributes:
        points: rows and columns of the samples, (B, K, S, S, 2) in [-1, 1].
        image: colours of the samples, (B, K, 3, S, S) in [0, 1].
        gate: probability that a sample shows an object, (B, K, 1, S, S).
        assignment: share of this slot and of all others, (B, K, 2, S, S).
    """

    points: Tensor
    image: Tensor
    gate: Tensor
    assignment: Tensor


@torch.no_grad()
def sample_windows(x: Tensor, gate: Tensor, slots: Statistics) -> SlotWindows:
    """Sample images (B, 3, H, W), gates (B, 1, H, W) and assignments at the slots' windows."""
    batch, num_slots = slots.position.shape[:2]
    grid = _REACH * coordinate_map(_WINDOW)[0].permute(1, 2, 0).to(x)
    points = slots.position[:, :, None, None] + slots.spread[..., None, None] * grid
    grid = points.flip(-1)  # to columns and rows
    pixels = F.grid_sample(torch.cat([x, gate], 1), grid.flatten(1, 2), align_corners=True)
    pixels = pixels.unflatten(2, (num_slots, _WINDOW)).transpose(1, 2)
    rest = slots.assignment.sum(1, keepdim=True) - slots.assignment
    both = torch.stack([slots.assignment, rest], 2).flatten(0, 1)
    # Coordinates of -1 and 1 are the centres of the corner pixels; the centres of the corner cells
    # lie half a stride further inside.
    scale = (x.shape[-1] - 1) / (x.shape[-1] - _STRIDE)
    assignment = F.grid_sample(both, scale * grid.flatten(0, 1), align_corners=True)
    assignment = assignment.unflatten(0, (batch, num_slots))
    return SlotWindows(points, pixels[:, :, :3], pixels[:, :, 3:], assignment)


class AttentionPosterior(nn.Module):
    """q(z_m, z_c | x) of object slots from statistics of their pixels and a window on each slot.

    The first four mask latents are position (2), size and presence: a statistic plus a learned
    correction. The first three component latents start from the mean colour. With more than one
    pass, further networks correct all latents from the decoded mask and shading in the window:
    iterative amortised inference (Marino et al. 2018).
    """

    def __init__(
        self,
        attention: SlotAttention,
        feature_size: int,
        mask_latent_size: int,
        component_latent_size: int,
        num_passes: int,
    ) -> None:
        """Initialise with corrections near zero.

        Args:
            attention: assignment of pixels to slots.
            feature_size: width of the features of a window.
            mask_latent_size: D_m, at least 4.
            component_latent_size: D_c, at least 3, or 0.
            num_passes: number of passes over the windows.
        """
        super().__init__()
        self.attention = attention
        self.num_passes = num_passes
        self.sizes = (mask_latent_size, component_latent_size)
        out = 2 * sum(self.sizes)
        # Channels: image 3, gate, assignments 2; in later passes also mask and residual 3.
        self.window = _window_network(6, feature_size)
        self.head = _head(feature_size + 7, out)
        if num_passes > 1:
            self.next_window = _window_network(10, feature_size)
            self.next_head = _head(feature_size + 7 + out, out)
            with torch.no_grad():
                self.next_head[-1].get_parameter("weight").mul_(0.1)

    def forward(
        self, x: Tensor, gate: Tensor, decoder: nn.Module
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Infer the parameters of the posterior.

        Args:
            x: images, (B, 3, H, W) in [0, 1].
            gate: probability that a pixel shows an object, (B, 1, H, W).
            decoder: decoder of masks and shading; a `LocalDecoder` for more than one pass.

        Returns:
            Raw parameters of z_m (B, K, 2 D_m) and z_c (B, K, 2 D_c), and the loss of the votes
            (B,).
        """
        assigned = self.attention(x, gate)
        windows = sample_windows(x, gate, assigned)
        inputs = torch.cat([windows.image, windows.gate, windows.assignment], 2)
        slots = inputs.shape[:2]
        features = at_least_float32(self.window(inputs.flatten(0, 1))).unflatten(0, slots)
        scaled = (assigned.spread / 0.1).log()
        statistics = torch.cat([assigned.position, scaled, assigned.log_mass, assigned.colour], 2)
        with torch.autocast(x.device.type, enabled=False):
            raw = self.head(torch.cat([features, statistics], 2))
        for _ in range(self.num_passes - 1):
            decoded = self._decode_windows(windows, assigned, raw, decoder)
            features = self.next_window(torch.cat([inputs, decoded], 2).flatten(0, 1))
            features = at_least_float32(features).unflatten(0, slots)
            with torch.autocast(x.device.type, enabled=False):
                raw = raw + self.next_head(torch.cat([features, statistics, raw], 2))
        return *self._anchor(raw, assigned), assigned.vote_loss

    @torch.no_grad()
    def _decode_windows(
        self, windows: SlotWindows, slots: Statistics, raw: Tensor, decoder: nn.Module
    ) -> Tensor:
        """Return decoded masks and residuals of the image in the windows, (B, K, 4, S, S).

        They are inputs of the next pass, without gradients.
        """
        z_m = self._anchor(raw, slots)[0][..., : self.sizes[0]]
        logit, shade = (
            v.unflatten(2, windows.points.shape[2:4])[:, :, None]
            for v in decoder(z_m, windows.points.flatten(2, 3))
        )
        colour = slots.colour[..., None, None]
        return torch.cat([torch.sigmoid(logit), windows.image - colour * shade], 2)

    def _anchor(self, raw: Tensor, slots: Statistics) -> tuple[Tensor, Tensor]:
        """Return raw parameters of z_m (B, K, 2 D_m) and z_c (B, K, 2 D_c) by the statistics."""
        d_m, d_c = self.sizes
        mu_m, sigma_m, mu_c, sigma_c = raw.split([d_m, d_m, d_c, d_c], 2)
        position = slots.position + 0.1 * torch.tanh(mu_m[..., :2])
        size = (slots.spread / 0.1).log() + torch.tanh(mu_m[..., 2:3])
        presence = torch.tanh(slots.log_mass + 2.3) + mu_m[..., 3:4]
        # Lower initial uncertainty of position, size and presence.
        sigma_m = torch.cat([sigma_m[..., :4] - 2, sigma_m[..., 4:]], 2)
        raw_m = torch.cat([position, size, presence, mu_m[..., 4:], sigma_m], 2)
        if d_c:
            mu_c = torch.cat([2 * slots.colour - 1 + mu_c[..., :3], mu_c[..., 3:]], 2)
        return raw_m, torch.cat([mu_c, sigma_c], 2)


def _window_network(in_channels: int, feature_size: int) -> nn.Sequential:
    """Build a network from windows (B, C, S, S) to features (B, feature_size)."""
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
