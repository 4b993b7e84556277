"""GENESIS-V2 (Engelcke, Parker Jones, Posner 2021).

A U-Net computes an embedding of every pixel. Slots are clusters around seed pixels, sampled at
random from the remaining scope; the features of each slot are pooled to its latent, and one decoder
predicts colours and masks from it. The prior of the latents is autoregressive.
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from genesis_rl.models.base import (
    ImageSize,
    Inference,
    LstmState,
    SigmaX,
    SlotCount,
    at_least_float32,
    components_and_masks,
    no_latents,
)
from genesis_rl.models.blocks import UNet, conv_norm, coordinate_map
from genesis_rl.models.likelihood import Gaussian, Mixture, categorical_kl, kl_monte_carlo
from genesis_rl.models.prior import NextSlot, StepwiseModel
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots
from genesis_rl.utils.checks import Checked, Count, Must, Positive, at_least

_GROUPS = 8  # groups of every group norm
_ALPHA_RANGE = (0.01, 0.99)
_Channels = Annotated[
    int, Must(f"a multiple of {_GROUPS}", lambda value: value > 0 and value % _GROUPS == 0)
]


@dataclass(frozen=True)
class GenesisV2Config(Checked):
    """Architecture of GENESIS-V2; defaults are its authors'."""

    image_size: ImageSize = 64
    """side of the images in pixels: 32, 64 or 128"""
    num_slots: SlotCount = 5
    """K, the number of slots, background included; at least 2"""
    component_latent_size: Count = 64
    """D_c, width of the latents"""
    encoder_channels: _Channels = 64
    """channels of the U-Net's first blocks; its last three have twice as many; a multiple of 8"""
    embedding_size: Annotated[int, at_least(2)] = 8
    """width of a pixel's embedding, of which the last two are its position; at least 2"""
    decoder_channels: _Channels = 64
    """channels of the decoder; a multiple of 8"""
    prior_lstm_size: Count = 256
    """units of the autoregressive prior's LSTM"""
    mask_loss: bool = False
    """train the attention by the KL from its masks to the decoder's, without gradient of the
    latter: kl_m"""
    sigma_x: SigmaX = 0.7
    """standard deviation of every Gaussian component, in pixel units"""
    mixture: Mixture = "channel"
    """mix the slots per colour "channel" (authors' code), or per "pixel", over all its channels"""
    posterior_sigma_min: Positive = 1e-8
    """least standard deviation of the posterior; 0.01 stabilises short trainings"""


class Attention(NamedTuple):
    """Masks log_pi (B, K, 1, H, W) and the K-1 seeds (B, K-1), row-major positions of pixels."""

    log_pi: Tensor
    seeds: Tensor


class PixelEmbedding(nn.Module):
    """Semi-convolutional embedding: a gated 1x1 convolution, plus the pixel's position.

    The gate is initially 0, so that the first slots are round patches. The convolution has no bias,
    which would cancel in the differences between pixels.
    """

    coordinates: Tensor

    def __init__(self, in_channels: int, size: int, image_size: int) -> None:
        """Build from the widths of features and embedding, and the image's side."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, size, 1, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))
        empty = torch.zeros(1, size - 2, image_size, image_size)
        coordinates = torch.cat([empty, coordinate_map(image_size)], 1)
        self.register_buffer("coordinates", coordinates, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, size, H, W), of which the last two are row and column."""
        return self.gate * at_least_float32(self.conv(x)) + self.coordinates


class SlotDecoder(nn.Module):
    """Decoder from a latent to colours and mask logit: four upsampling 5x5 convolutions."""

    coordinates: Tensor

    def __init__(self, latent_size: int, image_size: int, channels: int) -> None:
        """Build from the latent's width, the image's side and the channels of every layer."""
        super().__init__()
        self.register_buffer("coordinates", coordinate_map(image_size // 16), persistent=False)
        layers: list[nn.Module] = []
        in_channels = latent_size + 2
        for _ in range(4):
            layers += [
                nn.ConvTranspose2d(in_channels, channels, 5, 2, 2, output_padding=1),
                nn.GroupNorm(_GROUPS, channels),
                nn.ReLU(),
            ]
            in_channels = channels
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels, 4, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_size) to (N, 4, H, W): colour, then mask logit, unbounded."""
        side = self.coordinates.shape[-1]
        tiled = z[:, :, None, None].expand(-1, -1, side, side)
        out: Tensor = self.head(
            self.layers(torch.cat([tiled, self.coordinates.expand(len(z), -1, -1, -1)], 1))
        )
        return out


class GenesisV2(StepwiseModel):
    """GENESIS-V2: slots around random seed pixels, one latent z_c each (D_m = 0).

    Masks of inferred slots are the attention's; reconstruction and likelihood use the masks that
    ``decode`` computes from the latents, as in the authors' code.

    With ``sample=True`` seeds are drawn by the generator. With ``sample=False`` they come from one
    fixed map for all images, so that inference is deterministic; the authors' code is random also
    in evaluation.
    """

    model_name = "genesis_v2"
    config_class = GenesisV2Config
    config: GenesisV2Config
    fixed_seeds: Tensor

    def __init__(self, config: GenesisV2Config) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__()
        self.config = config
        width, latent = config.encoder_channels, config.component_latent_size
        self.encoder = UNet(3, config.image_size, width, groups=_GROUPS)
        self.segment_head = conv_norm(width, width, _GROUPS)
        self.embedding = PixelEmbedding(width, config.embedding_size, config.image_size)
        # Squared radius of a new slot in the embedding: K * log 2 * radius^2 = 1.
        self.log_sigma = nn.Parameter(torch.tensor(-math.log(config.num_slots * math.log(2))))
        self.feature_head = nn.Sequential(
            conv_norm(width, width, _GROUPS), nn.Conv2d(width, 2 * width, 1)
        )
        self.posterior_head = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 2 * latent),
        )
        self.decoder = SlotDecoder(latent, config.image_size, config.decoder_channels)
        self.prior_lstm = nn.LSTMCell(latent, config.prior_lstm_size)
        self.prior_head = nn.Linear(config.prior_lstm_size, 2 * latent)
        # NumPy guarantees that the stream of RandomState does not change.
        uniform = np.random.RandomState(0).rand(1, 1, config.image_size, config.image_size)
        fixed_seeds = torch.from_numpy(uniform).to(torch.get_default_dtype())
        self.register_buffer("fixed_seeds", fixed_seeds, persistent=False)

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks; ``slots.log_pi`` is not used."""
        self._check_slots(slots)
        return self._decode_latents(slots.z_c)

    def _decode_latents(self, z_c: Tensor) -> Decoded:
        return components_and_masks(self.decoder(z_c.flatten(0, 1)), self.config.num_slots)

    def next_slot(
        self, noise: Noise, previous: Tensor | None = None, state: LstmState | None = None
    ) -> NextSlot:
        """Draw the next slot from p(z_c_k | z_c_<k); see `SceneBuilder`."""
        p, state = self._prior_step(previous, state, noise.c)
        z_c = p.draw(noise.c)
        return NextSlot(noise.m, z_c, p.log_prob(z_c), state)

    # ---- computations given the noise --------------------------------------------------------

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Noise:
        """Draw noise of the latents and a uniform map per image, whose maxima become seeds."""
        side = self.config.image_size
        m, c, _ = super()._noise(like, generator)
        seeds = torch.rand(
            len(like), 1, side, side, generator=generator, device=like.device, dtype=like.dtype
        )
        return Noise(m, c, seeds)

    def _infer(self, x: Tensor, noise: Noise | None) -> Inference:
        log_pi, q_c = self._mask_and_pool(x, noise)
        return Inference(Slots(no_latents(log_pi), q_c.draw(noise and noise.c), log_pi), q_c)

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        """Compute the evidence lower bound, with a single-sample estimate of the KL."""
        slots, q_c = self._infer(x, noise)
        decoded = self._decode_latents(slots.z_c)
        nll = self.nll(x, decoded, pixel_weight=pixel_weight)
        kl_c = kl_monte_carlo(slots.z_c, q_c, self._prior_of(slots.z_c))
        kl_m = torch.zeros_like(kl_c)
        if self.config.mask_loss:
            kl_m = categorical_kl(slots.log_pi, decoded.log_pi.detach())
        return ElboTerms(nll, kl_m, kl_c)

    def _log_weight(self, x: Tensor, noise: Noise) -> Tensor:
        """Compute the log weight without kl_m, an auxiliary loss of the attention."""
        terms = self._score(x, noise, None)
        return -(terms.nll + terms.kl_c.sum(1))

    def _generate(self, noise: Noise) -> Slots:
        """Sample slots from the prior, with the decoder's masks."""
        z_c = self._prior_sample(noise.c)
        return Slots(noise.m, z_c, self._decode_latents(z_c).log_pi)

    # ---- inference ---------------------------------------------------------------------------

    def _mask_and_pool(self, x: Tensor, noise: Noise | None) -> tuple[Tensor, Gaussian]:
        """Return attention masks log_pi, and the posterior given each slot's mean features."""
        seeds = self.fixed_seeds if noise is None or noise.inner is None else noise.inner
        h = self.encoder(x)
        log_pi, _ = self._attend(self.embedding(self.segment_head(h)), seeds)
        features = at_least_float32(self.feature_head(h)).flatten(2)  # (B, C, H*W)
        with torch.autocast(x.device.type, enabled=False):
            pi = log_pi.flatten(2).exp()  # (B, K, H*W)
            pooled = pi @ features.transpose(1, 2) / (pi.sum(2, keepdim=True) + 1e-5)
            return log_pi, self._posterior(self.posterior_head(pooled))

    def _attend(self, embedding: Tensor, seeds: Tensor) -> Attention:
        """Compute masks by instance colouring stick-breaking (IC-SBP).

        A slot's seed is the pixel of the highest product of seed map and remaining scope. Its share
        of a pixel's scope decreases with the squared distance of the embeddings. The last slot has
        the remaining scope.

        Args:
            embedding: pixel embeddings, (B, E, H, W).
            seeds: uniform map in [0, 1), (B, 1, H, W), or (1, 1, H, W) for all images.
        """
        flat = embedding.flatten(2)  # (B, E, H*W)
        priority = seeds.flatten(2)
        log_scope = torch.zeros_like(flat[:, :1])
        log_pi: list[Tensor] = []
        positions: list[Tensor] = []
        for _ in range(self.config.num_slots - 1):
            position = (priority * log_scope.exp()).argmax(2, keepdim=True)  # (B, 1, 1)
            seed = flat.gather(2, position.expand(-1, flat.shape[1], -1))  # (B, E, 1)
            distance = (flat - seed).square().sum(1, keepdim=True)
            alpha = torch.exp(-distance * torch.exp(-self.log_sigma))
            # Straight-through clamp: the gradient is not clamped.
            alpha = alpha + (alpha.clamp(*_ALPHA_RANGE) - alpha).detach()
            log_pi.append(log_scope + alpha.log())
            log_scope = log_scope + torch.log1p(-alpha)
            positions.append(position[:, 0])
        masks = torch.stack([*log_pi, log_scope], 1)  # (B, K, 1, H*W)
        return Attention(masks.unflatten(3, embedding.shape[2:]), torch.cat(positions, 1))
