"""Single-slot baselines (paper section B.3): BD-VAE and DC-VAE."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from genesis_rl.models.base import (
    BaseModel,
    FiveCounts,
    ImageSize,
    Inference,
    SigmaX,
    at_least_float32,
    no_latents,
)
from genesis_rl.models.blocks import BroadcastDecoder, GatedDecoder, GatedEncoder
from genesis_rl.models.likelihood import kl_monte_carlo, standard_normal
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots
from genesis_rl.utils.checks import Checked, Count, Positive


@dataclass(frozen=True)
class VaeConfig(Checked):
    """Architecture common to both VAEs; defaults are the paper's."""

    num_slots: ClassVar[int] = 1

    image_size: ImageSize = 64
    """side of the images in pixels: 32, 64 or 128"""
    latent_size: Count = 64
    """width of the latent"""
    encoder_channels: FiveCounts = (32, 32, 64, 64, 64)
    """channels of the five gated layers of the encoder"""
    feature_size: Count = 256
    """width of the encoder's feature vector"""
    sigma_x: SigmaX = 0.7
    """standard deviation of the Gaussian around every pixel, in pixel units"""
    posterior_sigma_min: Positive = 1e-8
    """least standard deviation of the posterior; 0.01 stabilises short trainings"""


@dataclass(frozen=True)
class BdVaeConfig(VaeConfig):
    """Architecture of the BD-VAE; defaults are the paper's."""

    decoder_channels: Count = 64
    """channels of the broadcast decoder: twice those of GENESIS"""


@dataclass(frozen=True)
class DcVaeConfig(VaeConfig):
    """Architecture of the DC-VAE; defaults are the paper's."""

    decoder_channels: FiveCounts = (64, 32, 32, 32, 32)
    """channels of the five gated layers of the decoder"""


class Vae(BaseModel):
    """A VAE as a scene model with K = 1 slot, whose mask covers the image: log_pi = 0.

    Its latent is z_c; D_m = 0. As in the authors' code the gated layers have no batch norm.
    """

    config: VaeConfig
    decoder: nn.Module

    def __init__(self, config: VaeConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__()
        self.config = config
        self.encoder = GatedEncoder(
            config.image_size, config.encoder_channels, config.feature_size, norm=False
        )
        self.posterior_head = nn.Linear(config.feature_size, 2 * config.latent_size)

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c); D_m is 0."""
        return 0, self.config.latent_size

    def decode(self, slots: Slots) -> Decoded:
        """Decode the slot to the image."""
        self._check_slots(slots)
        mu_x = torch.sigmoid(at_least_float32(self.decoder(slots.z_c.flatten(0, 1))))
        return Decoded(mu_x.unsqueeze(1), _whole_image(mu_x))

    def _infer(self, x: Tensor, noise: Noise | None) -> Inference:
        h = at_least_float32(self.encoder(x))
        with torch.autocast(x.device.type, enabled=False):
            q = self._posterior(self.posterior_head(h).unsqueeze(1))
        return Inference(Slots(no_latents(q.mu), q.draw(noise and noise.c), _whole_image(x)), q)

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        """Compute the evidence lower bound, with a single-sample estimate of the KL."""
        slots, q = self._infer(x, noise)
        nll = self.nll(x, self.decode(slots), pixel_weight=pixel_weight)
        kl = kl_monte_carlo(slots.z_c, q, standard_normal(q.mu))
        return ElboTerms(nll, torch.zeros_like(kl), kl)

    def _generate(self, noise: Noise) -> Slots:
        side = self.config.image_size
        return Slots(noise.m, noise.c, noise.c.new_zeros(len(noise.c), 1, 1, side, side))


class BdVae(Vae):
    """VAE with a spatial broadcast decoder of twice the width of GENESIS."""

    model_name = "bd_vae"
    config_class = BdVaeConfig
    config: BdVaeConfig
    decoder: nn.Sequential

    def __init__(self, config: BdVaeConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__(config)
        width = config.decoder_channels
        self.decoder = nn.Sequential(
            BroadcastDecoder(config.latent_size, config.image_size, width, width),
            nn.ELU(),
            nn.Conv2d(width, 3, 1),
        )


class DcVae(Vae):
    """VAE with the deconvolutional decoder of van den Berg et al. 2018."""

    model_name = "dc_vae"
    config_class = DcVaeConfig
    config: DcVaeConfig
    decoder: GatedDecoder

    def __init__(self, config: DcVaeConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__(config)
        self.decoder = GatedDecoder(
            config.latent_size, config.image_size, config.decoder_channels, 3, norm=False
        )


def _whole_image(x: Tensor) -> Tensor:
    """Return log_pi = 0 of the only slot of images (B, 3, H, W)."""
    return x.new_zeros(len(x), 1, 1, *x.shape[-2:])
