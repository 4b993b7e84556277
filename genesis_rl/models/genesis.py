"""GENESIS and GENESIS-S (paper sections 3 and B.1).

Both decode K masks from mask latents z_m, inferred one after the other by an LSTM and governed by
an autoregressive prior. GENESIS infers a component latent z_c for each masked image besides;
GENESIS-S decodes the components from z_m too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.blocks import (
    BroadcastDecoder,
    ComponentEncoder,
    GatedDecoder,
    GatedEncoder,
    check_image_size,
)
from genesis_rl.likelihood import Gaussian, Mixture, kl_monte_carlo, mixture_nll, stick_breaking
from genesis_rl.slots import Decoded, ElboTerms, Slots, check_shape

LstmState = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class GenesisSConfig:
    """Shape of GENESIS-S, and of the part that GENESIS shares with it; defaults are the paper's."""

    image_size: int = 64
    """side of the images in pixels: 32, 64 or 128"""
    num_slots: int = 5
    """K, the number of slots, background included; at least 2"""
    mask_latent_size: int = 64
    """D_m, width of the mask latents"""
    encoder_channels: tuple[int, int, int, int, int] = (32, 32, 64, 64, 64)
    """channels of the five gated layers of the encoder"""
    decoder_channels: tuple[int, int, int, int, int] = (64, 32, 32, 32, 32)
    """channels of the five gated layers of the mask decoder"""
    feature_size: int = 256
    """width of the encoder's feature vector"""
    posterior_lstm_size: int = 128
    """units of the posterior's LSTM"""
    prior_lstm_size: int = 256
    """units of the autoregressive prior's LSTM"""
    component_decoder_channels: int = 32
    """channels of the broadcast decoder"""
    sigma_x: float = 0.7
    """standard deviation of every Gaussian component, in pixel units"""
    mixture: Mixture = "channel"
    """mix the slots in every colour channel apart (paper's code), or once per pixel"""
    posterior_sigma_floor: float = 1e-8
    """least standard deviation of the posterior; 0.01 keeps short trainings finite"""
    mask_logit_bias: float | None = None
    """initial bias of the mask logits; below 0, early slots start small; None: PyTorch's default"""
    decode_last_mask: bool = False
    """decode the K-th slot's mask although it is never used: in training its activations then take
    part in the decoder's batch statistics, as in the authors' code"""

    def __post_init__(self) -> None:
        """Check values."""
        check_image_size(self.image_size)
        if self.num_slots < 2:
            raise ValueError(f"num_slots is {self.num_slots}; wanted at least 2 (K slots).")
        for name in ("mask_latent_size", "feature_size", "posterior_lstm_size", "prior_lstm_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1.")
        for name in ("encoder_channels", "decoder_channels"):
            channels = getattr(self, name)
            if len(channels) != 5 or min(channels) < 1:
                raise ValueError(f"{name} is {channels}; wanted five channel counts >= 1.")
        for name in ("sigma_x", "posterior_sigma_floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value > 0.")
        if self.mixture not in ("channel", "pixel"):
            raise ValueError(f"mixture is {self.mixture!r}; wanted 'channel' or 'pixel'.")


@dataclass(frozen=True)
class GenesisConfig(GenesisSConfig):
    """Shape of GENESIS; defaults are the paper's."""

    component_latent_size: int = 16
    """D_c, width of the component latents"""
    component_encoder_channels: tuple[int, ...] = (32, 32, 64, 64)
    """channels of the component encoder's stride-2 layers"""
    component_encoder_size: int = 256
    """units of the component encoder's hidden layer"""
    prior_mlp_size: int = 256
    """units of each of the two hidden layers of the component prior"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        for name in ("component_latent_size", "component_encoder_size", "prior_mlp_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1.")
        if not self.component_encoder_channels or min(self.component_encoder_channels) < 1:
            raise ValueError(
                f"component_encoder_channels is {self.component_encoder_channels}; "
                "wanted at least one channel count >= 1."
            )


class Noise(NamedTuple):
    """Standard normal draws for both latents, (B, K, D_m) and (B, K, D_c)."""

    m: Tensor
    c: Tensor


class Inference(NamedTuple):
    """All that one pass over the posterior and the prior computes; every field (B, K, ...)."""

    slots: Slots
    q_m: Gaussian
    p_m: Gaussian
    q_c: Gaussian
    p_c: Gaussian


class GenesisS(nn.Module):
    """GENESIS-S: one latent per slot, decoded to its mask and to its component."""

    config: GenesisSConfig

    def __init__(self, config: GenesisSConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__()
        self.config = config
        width = config.mask_latent_size
        self.encoder = GatedEncoder(config.image_size, config.encoder_channels, config.feature_size)
        self.first_posterior = nn.Linear(config.feature_size, 2 * width)
        self.posterior_lstm = nn.LSTMCell(config.feature_size + width, config.posterior_lstm_size)
        self.posterior_head = nn.Linear(config.posterior_lstm_size, 2 * width)
        self.mask_decoder = GatedDecoder(width, config.image_size, config.decoder_channels, 1)
        if config.mask_logit_bias is not None:
            bias = self.mask_decoder.head.get_parameter("bias")
            nn.init.constant_(bias, config.mask_logit_bias)
        self.prior_lstm = nn.LSTMCell(width, config.prior_lstm_size)
        self.prior_head = nn.Linear(config.prior_lstm_size, 2 * width)
        self._build_components()

    def _build_components(self) -> None:
        config = self.config
        self.component_decoder = BroadcastDecoder(
            config.mask_latent_size, config.image_size, config.component_decoder_channels, 3
        )

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c); D_c is 0 for GENESIS-S."""
        return self.config.mask_latent_size, 0

    # ---- the protocol ------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
    ) -> ElboTerms:
        """Same as ``elbo``: lets data-parallel wrappers see the training pass."""
        return self.elbo(x, sample=sample, generator=generator, pixel_weight=pixel_weight)

    def infer(
        self, x: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Slots:
        """Infer slots from q(z_m, z_c | x) (paper Eq. 7).

        Args:
            x: images, shape (B, 3, H, W) in [0, 1], H = W = ``config.image_size``.
            sample: draw from the posterior; False takes its mean throughout.
            generator: source of the draws, on the images' device.

        Returns:
            Slots, with the masks that the posterior's latents decode to.

        Raises:
            ValueError: if ``x`` has another shape.
        """
        self._check_images(x)
        noise = self._noise(x, generator) if sample else None
        z_m, _ = self._mask_posterior(self.encoder(x), noise and noise.m)
        log_pi = self._decode_masks(z_m)
        z_c, _ = self._component_posterior(x, log_pi, noise and noise.c)
        return Slots(z_m, z_c, log_pi)

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks; ``slots.log_pi`` is decoded anew from z_m."""
        self._check_slots(slots)
        return Decoded(self._decode_components(slots), self._decode_masks(slots.z_m))

    def elbo(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
    ) -> ElboTerms:
        """Terms of the evidence lower bound (paper Eq. 9), the KL by a single sample.

        Args:
            x: images, shape (B, 3, H, W) in [0, 1].
            sample: draw from the posterior; False takes z = mu throughout.
            generator: source of the draws.
            pixel_weight: weight of each pixel in the nll, shape (B, 1, H, W); None: all one.

        Returns:
            nll (B,), kl_m (B, K) and kl_c (B, K) in nats.

        Raises:
            ValueError: if ``x`` has another shape.
        """
        self._check_images(x)
        return self._score(x, self._noise(x, generator) if sample else None, pixel_weight)

    def sample(
        self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Slots:
        """Sample novel scenes slot by slot from the prior (paper Eqs. 1 and 2).

        Args:
            n: number of scenes, at least 1.
            generator: source of the draws, on the model's device.
            temperature: factor on every prior sigma; 0 gives the prior's mean chain.

        Returns:
            Slots of ``n`` scenes.

        Raises:
            ValueError: if ``n`` < 1 or ``temperature`` < 0.
        """
        if n < 1:
            raise ValueError(f"n is {n}; wanted at least 1 scene.")
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; wanted a value >= 0.")
        like = self.prior_head.weight.new_empty(n)
        noise = self._noise(like, generator)
        return self._generate(Noise(noise.m * temperature, noise.c * temperature))

    # ---- the passes, given the noise ---------------------------------------------------------

    def _infer(self, x: Tensor, noise: Noise | None) -> Inference:
        """Posterior and prior of both latents; ``noise`` None takes z = mu throughout."""
        z_m, q_m = self._mask_posterior(self.encoder(x), noise and noise.m)
        log_pi = self._decode_masks(z_m)
        z_c, q_c = self._component_posterior(x, log_pi, noise and noise.c)
        return Inference(
            Slots(z_m, z_c, log_pi), q_m, self._mask_prior(z_m), q_c, self._component_prior(z_m)
        )

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        slots, q_m, p_m, q_c, p_c = self._infer(x, noise)
        nll = mixture_nll(
            x,
            self._decode_components(slots),
            slots.log_pi,
            self.config.sigma_x,
            mixture=self.config.mixture,
            pixel_weight=pixel_weight,
        )
        return ElboTerms(
            nll, kl_monte_carlo(slots.z_m, q_m, p_m), kl_monte_carlo(slots.z_c, q_c, p_c)
        )

    def _generate(self, noise: Noise) -> Slots:
        """Ancestral sampling with the prior steps that training scores with."""
        z_m: list[Tensor] = []
        state: LstmState | None = None
        for eps in noise.m.unbind(1):
            p_m, state = self._prior_step(z_m[-1] if z_m else None, state, eps)
            z_m.append(p_m.draw(eps))
        masks = torch.stack(z_m, 1)
        return Slots(masks, self._component_prior(masks).draw(noise.c), self._decode_masks(masks))

    # ---- mask latents ------------------------------------------------------------------------

    def _mask_posterior(self, h: Tensor, eps: Tensor | None) -> tuple[Tensor, Gaussian]:
        """q(z_m_k | x, z_m_<k) for k = 1..K from features (B, F): latents and parameters."""
        h = h.float() if h.dtype in (torch.bfloat16, torch.float16) else h
        z: list[Tensor] = []
        q: list[Gaussian] = []
        with torch.autocast(h.device.type, enabled=False):
            state: LstmState | None = None
            for k in range(self.config.num_slots):
                if k == 0:
                    raw = self.first_posterior(h)
                else:
                    state = self.posterior_lstm(torch.cat([h, z[-1]], 1), state)
                    raw = self.posterior_head(state[0])
                q.append(self._posterior(raw))
                z.append(q[-1].draw(None if eps is None else eps[:, k]))
        return torch.stack(z, 1), _stack(q)

    def _posterior(self, raw: Tensor) -> Gaussian:
        mu, sigma = raw.chunk(2, -1)
        return Gaussian(mu, F.softplus(sigma + 0.5) + self.config.posterior_sigma_floor)

    def _prior_step(
        self, z_prev: Tensor | None, state: LstmState | None, like: Tensor
    ) -> tuple[Gaussian, LstmState | None]:
        """p(z_m_k | z_m_<k) (paper Eq. 1), for scoring and for sampling alike.

        Args:
            z_prev: the latents of the slot before, (B, D_m); None at the first slot, whose prior is
                the standard normal.
            state: the LSTM's state after the step before; None at the first two slots.
            like: a tensor of the latents' shape, dtype and device.
        """
        if z_prev is None:
            return Gaussian(torch.zeros_like(like), torch.ones_like(like)), None
        state = self.prior_lstm(z_prev, state)
        return _prior(self.prior_head(state[0])), state

    def _mask_prior(self, z_m: Tensor) -> Gaussian:
        """The prior's parameters at given latents (B, K, D_m)."""
        steps: list[Gaussian] = []
        state: LstmState | None = None
        z_prev = None
        with torch.autocast(z_m.device.type, enabled=False):
            for z in z_m.unbind(1):
                step, state = self._prior_step(z_prev, state, z)
                steps.append(step)
                z_prev = z
        return _stack(steps)

    def _decode_masks(self, z_m: Tensor) -> Tensor:
        """All masks in parallel, then stick-breaking: (B, K, D_m) to log_pi (B, K, 1, H, W)."""
        last = self.config.num_slots - 1
        used = z_m if self.config.decode_last_mask else z_m[:, :last]
        logits = self.mask_decoder(used.flatten(0, 1)).unflatten(0, used.shape[:2])
        return stick_breaking(_at_least_float32(logits[:, :last]))

    # ---- components --------------------------------------------------------------------------

    def _component_posterior(
        self, x: Tensor, log_pi: Tensor, eps: Tensor | None
    ) -> tuple[Tensor, Gaussian]:
        """q(z_c_k | x, z_m); of width 0 here."""
        empty = log_pi.new_empty(*log_pi.shape[:2], 0)
        return empty, Gaussian(empty, empty)

    def _component_prior(self, z_m: Tensor) -> Gaussian:
        """p(z_c_k | z_m_k); of width 0 here."""
        empty = z_m.new_empty(*z_m.shape[:2], 0)
        return Gaussian(empty, empty)

    def _decode_components(self, slots: Slots) -> Tensor:
        """Component means mu_x, (B, K, 3, H, W) in [0, 1]."""
        mu_x: Tensor = self.component_decoder(self._appearance(slots).flatten(0, 1))
        return torch.sigmoid(_at_least_float32(mu_x)).view(*slots.z_m.shape[:2], *mu_x.shape[1:])

    def _appearance(self, slots: Slots) -> Tensor:
        return slots.z_m

    # ---- checks and noise --------------------------------------------------------------------

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Noise:
        shape = (len(like), self.config.num_slots)
        m, c = (
            torch.randn(*shape, d, generator=generator, device=like.device, dtype=like.dtype)
            for d in self.latent_sizes
        )
        return Noise(m, c)

    def _check_images(self, x: Tensor) -> None:
        side = self.config.image_size
        check_shape(x, (None, 3, side, side), "x")

    def _check_slots(self, slots: Slots) -> None:
        d_m, d_c = self.latent_sizes
        check_shape(slots.z_m, (None, self.config.num_slots, d_m), "slots.z_m")
        check_shape(slots.z_c, (None, self.config.num_slots, d_c), "slots.z_c")


class Genesis(GenesisS):
    """GENESIS: mask latents with an autoregressive prior, component latents given them."""

    config: GenesisConfig

    def __init__(self, config: GenesisConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__(config)

    def _build_components(self) -> None:
        config = self.config
        d_m, d_c = self.latent_sizes
        self.component_encoder = ComponentEncoder(
            config.image_size,
            config.component_encoder_channels,
            config.component_encoder_size,
            2 * d_c,
        )
        self.component_decoder = BroadcastDecoder(
            d_c, config.image_size, config.component_decoder_channels, 3
        )
        width = config.prior_mlp_size
        self.component_prior = nn.Sequential(
            nn.Linear(d_m, width),
            nn.ELU(),
            nn.Linear(width, width),
            nn.ELU(),
            nn.Linear(width, 2 * d_c),
        )

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c)."""
        return self.config.mask_latent_size, self.config.component_latent_size

    def _component_posterior(
        self, x: Tensor, log_pi: Tensor, eps: Tensor | None
    ) -> tuple[Tensor, Gaussian]:
        batch, slots = log_pi.shape[:2]
        images = x.unsqueeze(1).expand(-1, slots, -1, -1, -1)
        masked = torch.cat([log_pi, images], 2).flatten(0, 1)  # (B*K, 4, H, W), b-major
        raw = self.component_encoder(masked.contiguous(memory_format=torch.channels_last))
        q_c = self._posterior(_at_least_float32(raw).unflatten(0, (batch, slots)))
        return q_c.draw(eps), q_c

    def _component_prior(self, z_m: Tensor) -> Gaussian:
        with torch.autocast(z_m.device.type, enabled=False):
            raw: Tensor = self.component_prior(z_m)
            return _prior(raw)

    def _appearance(self, slots: Slots) -> Tensor:
        return slots.z_c


def _prior(raw: Tensor) -> Gaussian:
    """Learned prior: bounded mean tanh(raw), sigma = sigmoid(raw + 4) + 1e-4.

    The authors' released code leaves the tanh out when sampling, and so samples from another prior
    than it trained; here both go through this function.
    """
    mu, sigma = raw.chunk(2, -1)
    return Gaussian(torch.tanh(mu), torch.sigmoid(sigma + 4.0) + 1e-4)


def _stack(steps: list[Gaussian]) -> Gaussian:
    return Gaussian(torch.stack([s.mu for s in steps], 1), torch.stack([s.sigma for s in steps], 1))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
