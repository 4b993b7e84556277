"""Background models: the scene without its objects, predicted from a frame or constant."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import at_least_float32
from genesis_rl.models.blocks import ComponentEncoder
from genesis_rl.models.likelihood import Mixture, joint_log_prob

# Prior probability that a pixel is an outlier, which shows an object.
_OUTLIER_SHARE = 0.05
#: Standard deviation of pixels that show the background, in pixel units.
SIGMA = 0.1
_PIXEL: Mixture = "pixel"
#: Random numbers that determine an occluder of `paste_occluders`.
OCCLUDER_SIZE = 10
# Width of the foreground gate's sigmoid, in thresholds: the gate of the background itself is .07.
_GATE_SCALE = 0.375


class BackgroundNetwork(nn.Module):
    """Autoencoder of the scene without objects.

    Strided convolutions encode an image to the latents z_b; an MLP decodes them. The MLP's last
    layer is linear in pixels, so that principal components of frames can initialise it (`fit`).
    """

    def __init__(
        self, image_size: int, channels: tuple[int, ...], hidden_size: int, latent_size: int
    ) -> None:
        """Initialise with random weights.

        Args:
            image_size: side of the images in pixels.
            channels: channels of the encoder's stride-2 convolutions.
            hidden_size: units of the hidden layers.
            latent_size: D_b, width of z_b.
        """
        super().__init__()
        self.image_size = image_size
        self.encoder = ComponentEncoder(
            image_size, channels, hidden_size, 2 * latent_size, in_channels=3
        )
        self.hidden = nn.Sequential(
            nn.Linear(latent_size, hidden_size),
            nn.ELU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ELU(),
        )
        self.head = nn.Linear(hidden_size, 3 * image_size**2)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) to the posterior's parameters (B, 2 D_b), unbounded."""
        return at_least_float32(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Decode z_b (B, D_b) to images (B, 3, H, W), approximately in [0, 1]."""
        flat: Tensor = self.head(self.hidden(z))
        image: Tensor = flat.float().unflatten(1, (3, self.image_size, self.image_size))
        return image

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Initialise the last layer by the principal components of images (N, 3, H, W).

        The bias is their mean; each unit's weights are a component scaled by its standard
        deviation, or 0 for units in excess of the components.
        """
        flat = images.flatten(1).float()
        mean = flat.mean(0)
        rank = min(self.head.in_features, len(flat) - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, scale, basis = torch.svd_lowrank(flat - mean, q=rank, niter=2)
        weight = torch.zeros_like(self.head.weight)
        weight[:, :rank] = basis * (scale / math.sqrt(len(flat)))
        self.head.weight.copy_(weight)
        self.head.bias.copy_(mean)


class StaticBackground(nn.Module):
    """Constant background of a static camera: the median of the frames."""

    image: Tensor

    def __init__(self, image_size: int, latent_size: int) -> None:
        """Build for images of a side in pixels; the width of the latents is not used."""
        super().__init__()
        self.register_buffer("image", torch.zeros(3, image_size, image_size))

    def fit(self, images: Tensor) -> None:
        """Set the background to the median of images (N, 3, H, W) over time."""
        self.image.copy_(images.median(0).values)

    def decode(self, z: Tensor) -> Tensor:
        """Return the background (B, 3, H, W) in [0, 1] for latents (B, D_b), which are not used."""
        return self.image.expand(len(z), -1, -1, -1)


def background_nll(x: Tensor, background: Tensor) -> Tensor:
    """Compute the negative log likelihood of images under a background with outliers.

    A pixel is distributed as N(background, SIGMA^2), or, as an outlier, uniformly over [0, 1]^3.
    The cost of pixels of objects is therefore bounded and has almost no gradient.

    Args:
        x: images, (B, 3, H, W) in [0, 1].
        background: predicted backgrounds, (B, 3, H, W).

    Returns:
        Shape (B,), nats, summed over pixels.
    """
    log_pi = torch.zeros_like(x[:, None, :1])
    inlier = joint_log_prob(x, background[:, None], log_pi, SIGMA, _PIXEL)[:, 0]
    outlier = inlier.new_tensor(math.log(_OUTLIER_SHARE))
    log_p = torch.logaddexp(inlier + math.log(1 - _OUTLIER_SHARE), outlier)
    return -log_p.sum((1, 2, 3))


def paste_occluders(x: Tensor, uniform: Tensor) -> Tensor:
    """Paste ellipses and boxes of random colour and brightness into images.

    A background network that sees them and is scored against the images without them learns to
    predict what objects hide.

    Args:
        x: images, (B, 3, H, W) in [0, 1].
        uniform: random numbers in [0, 1), (B, N, `OCCLUDER_SIZE`); each of N occluders is present
            with probability 0.7, and 1/16 to 1/2 of the image wide and high.

    Returns:
        Images, (B, 3, H, W) in [0, 1].
    """
    height, width = x.shape[-2:]
    rows = torch.linspace(0, 1, height, device=x.device, dtype=x.dtype)[:, None]
    columns = torch.linspace(0, 1, width, device=x.device, dtype=x.dtype)
    for occluder in uniform.to(x.dtype).unbind(1):
        row, column, size, elongation, box, slope, present, *colour = (
            values[:, None, None] for values in occluder.unbind(1)
        )
        # Half the sides: 1/32 to 1/4 of the image.
        half = (1 / 32) * 8**size
        vertical = (rows - row) / half
        horizontal = (columns - column) / (half * 2 ** (2 * elongation - 1)).clamp(1 / 32, 1 / 4)
        power = torch.where(box < 0.5, 2.0, 8.0)  # of a superellipse
        inside = vertical.abs() ** power + horizontal.abs() ** power < 1
        # Brighter or darker from its top to its bottom.
        brightness = 1 + (slope - 0.5) * vertical.clamp(-1, 1)
        paint = torch.stack([(channel * brightness).clamp(0, 1) for channel in colour], 1)
        x = torch.where((inside & (present < 0.7))[:, None], paint, x)
    return x


def background_distance(
    x: Tensor,
    background: Tensor,
    shadow_brightness: float = 1.0,
    highlight_opacity: float = 0.0,
    displacement: int = 0,
) -> Tensor:
    """Return the squared colour distance of each pixel to the background, in any light.

        min_s sum_c (x_c - s background_c)^2

    over the brightnesses s of a shadow (as in the brightness distortion of Horprasert et al. 1999);
    then the same over the opacities a of white above the result, from -h / (1 - h), where only the
    background is in a highlight of opacity h, to h, where only the image is. Of the background's
    pixels within the displacement, the one of the least distance counts (as in the suppression of
    false detections of Elgammal et al. 2000).

    Args:
        x: images, (B, 3, H, W) in [0, 1].
        background: backgrounds, (B, 3, H, W).
        shadow_brightness: the least s, in (0, 1]; s is at most 1.
        highlight_opacity: h, in [0, 1).
        displacement: radius in pixels, at least 0.

    Returns:
        (B, 1, H, W) in [0, 3].
    """
    if displacement > 0:
        light = (shadow_brightness, highlight_opacity)
        shifted = _shift(background, displacement)
        return torch.stack([background_distance(x, b, *light) for b in shifted]).amin(0)
    if shadow_brightness < 1:
        brightness = _project(x, background).clamp(shadow_brightness, 1.0)
        background = brightness * background
    if highlight_opacity > 0:
        least = -highlight_opacity / (1 - highlight_opacity)
        opacity = overlay_opacity(x, background).clamp(least, highlight_opacity)
        background = background + opacity * (1 - background)
    return (x - background).square().sum(1, keepdim=True)


def _shift(images: Tensor, radius: int) -> list[Tensor]:
    """Return images (B, C, H, W) shifted by all distances within a radius in pixels."""
    height, width = images.shape[2:]
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    steps = range(-radius, radius + 1)
    offsets = [(radius + i, radius + j) for i in steps for j in steps if i**2 + j**2 <= radius**2]
    return [padded[:, :, i : i + height, j : j + width] for i, j in offsets]


def overlay_opacity(x: Tensor, background: Tensor) -> Tensor:
    """Return the opacity (B, 1, H, W) of white above the background that is closest to x.

    It is negative where the image is darker.
    """
    return _project(x - background, 1 - background)


def _project(x: Tensor, basis: Tensor) -> Tensor:
    """Return the factor of the basis that is closest to x, both (B, 3, H, W)."""
    return (x * basis).sum(1, keepdim=True) / basis.square().sum(1, keepdim=True).clamp_min(1e-6)


def foreground_gate(
    x: Tensor,
    background: Tensor,
    threshold: float,
    shadow_brightness: float = 1.0,
    highlight_opacity: float = 0.0,
    displacement: int = 0,
) -> Tensor:
    """Return the probability that a pixel shows an object, from its distance to the background.

        gate = sigmoid((distance / threshold - 1) / .375); values below .3 become 0,

    with the `background_distance`. Without the zeros all background pixels would contribute to the
    statistics of objects.

    Args:
        x: images, (B, 3, H, W) in [0, 1].
        background: backgrounds, (B, 3, H, W).
        threshold: squared distance at which the gate is 0.5, such as 0.08.
        shadow_brightness: least brightness in a shadow, in (0, 1].
        highlight_opacity: greatest opacity of a highlight, in [0, 1).
        displacement: distance in pixels by which the background may be displaced, at least 0.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    light = (shadow_brightness, highlight_opacity)
    distance = background_distance(x, background, *light, displacement)
    gate = torch.sigmoid((distance / threshold - 1) / _GATE_SCALE)
    return gate * (gate > 0.3)
