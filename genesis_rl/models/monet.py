"""MONet (Burgess et al. 2019; paper section B.2).

A U-Net computes the attention masks sequentially. A VAE encodes each masked image and decodes it to
colours and a mask, which is normalised over the slots.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import (
    BaseModel,
    ImageSize,
    Inference,
    SigmaX,
    SlotCount,
    at_least_float32,
    components_and_masks,
    no_latents,
    slot_maps,
)
from genesis_rl.models.blocks import BroadcastDecoder, ComponentEncoder, UNet
from genesis_rl.models.likelihood import Mixture, categorical_kl, kl_monte_carlo, standard_normal
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots, check_shape
from genesis_rl.utils.checks import Checked, Count, Counts, Positive


@dataclass(frozen=True)
class MonetConfig(Checked):
    """Architecture of MONet; defaults are the paper's."""

    image_size: ImageSize = 64
    """side of the images in pixels: 32, 64 or 128"""
    num_slots: SlotCount = 5
    """K, the number of slots, background included; at least 2"""
    component_latent_size: Count = 16
    """D_c, width of the component latents"""
    attention_channels: Count = 32
    """channels of the U-Net's first blocks; its last three have twice as many"""
    component_encoder_channels: Counts = (32, 32, 64, 64)
    """channels of the component encoder's stride-2 layers"""
    component_encoder_size: Count = 256
    """units of the component encoder's hidden layer"""
    component_decoder_channels: Count = 32
    """channels of the broadcast decoder"""
    sigma_x: SigmaX = 0.7
    """standard deviation of every Gaussian component, in pixel units"""
    mixture: Mixture = "channel"
    """mix the slots per colour "channel" (paper's code), or per "pixel", over all its channels"""
    posterior_sigma_min: Positive = 1e-8
    """least standard deviation of the posterior; 0.01 stabilises short trainings"""


class Monet(BaseModel):
    """MONet: attention masks, and a VAE of the masked images that also reconstructs the masks.

    Reconstruction, likelihood and segmentation use the attention's masks. There are no mask latents
    (D_m = 0): kl_m is the KL from the attention's masks to the component decoder's, by slot, which
    may be negative (see `categorical_kl`). Sampled scenes have the decoder's masks.
    """

    model_name = "monet"
    config_class = MonetConfig
    config: MonetConfig

    def __init__(self, config: MonetConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__()
        self.config = config
        self.attention = UNet(4, config.image_size, config.attention_channels)
        self.attention_head = nn.Conv2d(config.attention_channels, 1, 1)
        self.component_encoder = ComponentEncoder(
            config.image_size,
            config.component_encoder_channels,
            config.component_encoder_size,
            2 * config.component_latent_size,
            nn.ReLU,
        )
        self.component_decoder = BroadcastDecoder(
            config.component_latent_size,
            config.image_size,
            config.component_decoder_channels,
            4,
            activation=nn.ReLU,
        )

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components, with ``slots.log_pi`` as masks.

        Inferred slots have the attention's masks, sampled slots those of the component decoder.
        """
        self._check_slots(slots)
        side = self.config.image_size
        check_shape(slots.log_pi, (None, None, 1, side, side), "slots.log_pi")
        return Decoded(self._decode_components(slots.z_c).mu_x, slots.log_pi)

    def redraw_masks(self, slots: Slots) -> Slots:
        """Replace the masks by those of the component decoder."""
        return Slots(slots.z_m, slots.z_c, self._decode_components(slots.z_c).log_pi)

    def _infer(self, x: Tensor, noise: Noise | None) -> Inference:
        log_pi = self._attend(x)
        raw = self.component_encoder(slot_maps(log_pi, x))
        q_c = self._posterior(raw.unflatten(0, log_pi.shape[:2]))
        return Inference(Slots(no_latents(log_pi), q_c.draw(noise and noise.c), log_pi), q_c)

    def _attend(self, x: Tensor) -> Tensor:
        """Compute log_pi by one pass of the U-Net per slot over image and remaining scope."""
        log_scope = torch.zeros_like(x[:, :1])
        log_pi: list[Tensor] = []
        for _ in range(self.config.num_slots - 1):
            features = self.attention(torch.cat([x, log_scope], 1))
            logits = at_least_float32(self.attention_head(features))
            log_pi.append(log_scope + F.logsigmoid(logits))
            log_scope = log_scope + F.logsigmoid(-logits)
        return torch.stack([*log_pi, log_scope], 1)

    def _decode_components(self, z_c: Tensor) -> Decoded:
        """Decode latents (B, K, D_c) to components and masks."""
        raw = self.component_decoder(z_c.flatten(0, 1))
        return components_and_masks(raw, self.config.num_slots)

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        """Compute the terms of Burgess et al. Eq. 3, with a single-sample estimate of kl_c."""
        slots, q_c = self._infer(x, noise)
        mu_x, log_pi_decoded = self._decode_components(slots.z_c)
        nll = self.nll(x, Decoded(mu_x, slots.log_pi), pixel_weight=pixel_weight)
        return ElboTerms(
            nll,
            categorical_kl(slots.log_pi, log_pi_decoded),
            kl_monte_carlo(slots.z_c, q_c, standard_normal(q_c.mu)),
        )

    def _log_weight(self, x: Tensor, noise: Noise) -> Tensor:
        """Compute the log weight with the decoder's masks, those of the generative model."""
        slots, q_c = self._infer(x, noise)
        decoded = self._decode_components(slots.z_c)
        nll = self.nll(x, decoded)
        return -(nll + kl_monte_carlo(slots.z_c, q_c, standard_normal(q_c.mu)).sum(1))

    def _generate(self, noise: Noise) -> Slots:
        """Sample slots from the prior: independent standard normal latents."""
        return Slots(noise.m, noise.c, self._decode_components(noise.c).log_pi)
