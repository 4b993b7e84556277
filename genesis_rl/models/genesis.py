"""GENESIS and GENESIS-S (paper sections 3 and B.1).

Both decode K masks from mask latents z_m, which an LSTM infers sequentially and which have an
autoregressive prior. GENESIS also infers a component latent z_c from each masked image;
GENESIS-S decodes the components from z_m.

Optionally the first slot is a background with a network of its own, and the other slots are
inferred from the foreground (`genesis_rl.models.background`, `attention`, `local`).
"""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.attention import AttentionPosterior, SlotAttention
from genesis_rl.models.background import (
    OCCLUDER_SIZE,
    BackgroundNetwork,
    StaticBackground,
    background_nll,
    foreground_gate,
    paste_occluders,
)
from genesis_rl.models.base import LstmState, at_least_float32, no_latents, slot_maps
from genesis_rl.models.blocks import (
    BroadcastDecoder,
    ComponentEncoder,
    FlatDecoder,
    GatedDecoder,
    GatedEncoder,
    SlotCorrector,
    coordinate_map,
    recomputed,
)
from genesis_rl.models.genesis_config import GenesisConfig, GenesisSConfig
from genesis_rl.models.likelihood import (
    Gaussian,
    Prior,
    SlotPrior,
    concatenate,
    join,
    kl_monte_carlo,
    standard_normal,
    stick_breaking,
)
from genesis_rl.models.local import LocalDecoder
from genesis_rl.models.prior import (
    CouplingFlow,
    NextSlot,
    StepwiseModel,
    learned_prior,
    prior_size,
    spread_components,
    with_flow,
)
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots

#: Beginnings of the names of a model's parameters that belong to its prior.
PRIOR_NAMES = ("prior_", "component_prior")
# Warn of a moving camera above this share of pixels that differ from a static background.
_MOVING_CAMERA_SHARE = 0.5


class Latents(NamedTuple):
    """Latents of images and their posteriors.

    ``log_pi``: the masks, if computed in inference; ``vote_loss`` (B,): the loss of the votes of an
    attention posterior.
    """

    z_m: Tensor
    z_c: Tensor
    q_m: Gaussian
    q_c: Gaussian
    log_pi: Tensor | None = None
    vote_loss: Tensor | None = None


class GenesisS(StepwiseModel):
    """GENESIS-S: one latent per slot, decoded to its mask and to its component.

    With a background, the latents of the first slot are z_b, from which the background's image is
    decoded; its mask is the scope remaining after the objects.

    Attributes:
        activation_checkpointing: recompute activations per slot in the backward pass instead of
            storing them.
        background_only: score the background alone, with the objects' pixels as outliers.
        occluders: in training with ``background_only``, the number of random shapes in front of
            each image, which is predicted without them.
        likelihood_stride: in training, score every n-th row and column at a random offset, and
            scale the likelihood accordingly. For local decoders.
    """

    activation_checkpointing: bool = False
    background_only: bool = False
    occluders: int = 0
    likelihood_stride: int = 1

    model_name = "genesis_s"
    config_class = GenesisSConfig
    config: GenesisSConfig
    points: Tensor

    def __init__(self, config: GenesisSConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__()
        self.config = config
        self.conditional = config.prior == "autoregressive"
        width = config.mask_latent_size
        self.corrector: SlotCorrector | None = None
        if config.posterior == "lstm":
            self._build_lstm_posterior()
        self.mask_decoder: GatedDecoder | BroadcastDecoder | LocalDecoder
        if config.mask_decoder == "local":
            self.mask_decoder = LocalDecoder(width, config.local_decoder_size)
            self.refine_step_size = 0.03  # for positions and edges, 0.1 is a third of a block
        elif config.mask_decoder == "broadcast":
            self.mask_decoder = BroadcastDecoder(
                width, config.image_size, config.mask_broadcast_channels, 1
            )
        else:
            self.mask_decoder = GatedDecoder(width, config.image_size, config.decoder_channels, 1)
        if config.mask_logit_bias is not None:
            bias = self.mask_decoder.head.get_parameter("bias")
            nn.init.constant_(bias, config.mask_logit_bias)
        self.prior_lstm = nn.LSTMCell(width, config.prior_lstm_size)
        self.prior_components = config.prior_components
        self.prior_head = nn.Linear(
            config.prior_lstm_size, prior_size(width, config.prior_components)
        )
        spread_components(self.prior_head, config.prior_components)
        if config.prior_flow_layers:
            self.prior_flow = self._build_flow(width, config.prior_lstm_size)
            self.prior_first_flow = self._build_flow(width, 0)
        self.component_prior_first_flow: CouplingFlow | None = None
        self._build_components()
        points = coordinate_map(config.image_size)[0].permute(1, 2, 0)
        self.register_buffer("points", points, persistent=False)
        if config.background != "none":
            self._build_background()
        if config.posterior == "attention":
            self._build_attention()

    def _build_lstm_posterior(self) -> None:
        config, width = self.config, self.config.mask_latent_size
        self.encoder = GatedEncoder(config.image_size, config.encoder_channels, config.feature_size)
        self.first_posterior = nn.Linear(config.feature_size, 2 * width)
        self.posterior_lstm = nn.LSTMCell(config.feature_size + width, config.posterior_lstm_size)
        self.posterior_head = nn.Linear(config.posterior_lstm_size, 2 * width)
        if config.posterior_passes > 1:
            self.corrector = SlotCorrector(
                config.image_size, config.encoder_channels[:4], config.feature_size, 2 * width
            )

    def _build_background(self) -> None:
        config, latent_size = self.config, sum(self.latent_sizes)
        self.background: BackgroundNetwork | StaticBackground
        if config.background == "static":
            self.background = StaticBackground(config.image_size, latent_size)
        else:
            self.background = BackgroundNetwork(
                config.image_size, config.background_channels, config.background_size, latent_size
            )

    def _build_attention(self) -> None:
        config = self.config
        attention = SlotAttention(
            config.image_size,
            config.attention_channels,
            config.num_slots - 1,
            config.object_size,
            config.slot_order,
            config.seed_threshold,
            config.hue_distance,
            config.least_area,
            config.merge_hue_distance,
            config.merge_distance,
        )
        self.attention = AttentionPosterior(
            attention, config.window_size, *self.latent_sizes, config.posterior_passes
        )

    def _build_flow(self, size: int, context_size: int) -> CouplingFlow:
        config = self.config
        return CouplingFlow(size, context_size, config.prior_lstm_size, config.prior_flow_layers)

    def _build_components(self) -> None:
        self._build_component_decoders(self.config.mask_latent_size)

    def _build_component_decoders(self, latent_size: int) -> None:
        config = self.config
        shape = (latent_size, config.image_size, config.component_decoder_channels, 3)
        flat = config.component_decoder != "broadcast"
        self.component_decoder = FlatDecoder(*shape) if flat else BroadcastDecoder(*shape)
        self.background_decoder: BroadcastDecoder | None = None
        if config.component_decoder == "flat_objects":
            self.background_decoder = BroadcastDecoder(*shape)

    @property
    def has_background(self) -> bool:
        """Whether the first slot is a background with a model of its own."""
        return self.config.background != "none"

    def fit_background(self, images: Tensor) -> None:
        """Initialise the background, if there is one, from images (N, 3, H, W).

        Warns:
            UserWarning: if a static background differs from most pixels: the camera seems to move.
        """
        if not self.has_background:
            return
        self.background.fit(images)
        if isinstance(self.background, StaticBackground):
            median = self.background.image.expand_as(images)
            gate = self._gate(images, median)
            share = float(gate.mean())
            if share > _MOVING_CAMERA_SHARE:
                warnings.warn(
                    f"{share:.0%} of the pixels differ from the images' median, so the camera "
                    "seems to move; use model.background='predicted' instead of 'static'.",
                    stacklevel=2,
                )

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks; ``slots.log_pi`` is not used."""
        self._check_slots(slots)
        return self._render(slots.z_m, slots.z_c)

    def next_slot(
        self, noise: Noise, previous: Tensor | None = None, state: LstmState | None = None
    ) -> NextSlot:
        """Draw the next slot from p(z_m_k | z_m_<k) p(z_c_k | z_m_k); see `SceneBuilder`."""
        z_prev = None if previous is None else previous[:, : self.latent_sizes[0]]
        p_m, state = self._prior_step(z_prev, state, noise.m)
        z_m = p_m.draw(noise.m)
        first = self.has_background and previous is None
        p_c = (self._background_prior if first else self._component_prior)(z_m[:, None])
        z_c = p_c.draw(noise.c[:, None])
        log_p = p_m.log_prob(z_m) + p_c.log_prob(z_c)[:, 0]
        return NextSlot(z_m, z_c[:, 0], log_p, state)

    def infer_latents(self, x: Tensor) -> Tensor:
        """Infer the latents of `infer` alone; with attention, no masks are decoded for them."""
        self._check_images(x)
        latents = self._latents(x, None)
        return torch.cat([latents.z_m, latents.z_c], 2)

    def posteriors(self, x: Tensor) -> tuple[Gaussian, Gaussian]:
        """Return q(z_m | x) and q(z_c | x) of an attention posterior; slots are independent."""
        self._check_images(x)
        latents = self._latents(x, None)
        return latents.q_m, latents.q_c

    def log_prior(self, z_m: Tensor, z_c: Tensor) -> Tensor:
        """Return log p(z_m) p(z_c | z_m) of latents (B, K, D_m) and (B, K, D_c): (B,), nats."""
        p_m, p_c = self._priors(z_m)
        return (p_m.log_prob(z_m) + p_c.log_prob(z_c)).sum(1)

    @property
    def prior_modules(self) -> list[nn.Module]:
        """The modules with the parameters of the prior."""
        return [module for name, module in self.named_children() if name.startswith(PRIOR_NAMES)]

    # ---- computations given the noise --------------------------------------------------------

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Noise:
        noise = super()._noise(like, generator)
        count, stride, inner = len(like), self.likelihood_stride, None
        if self.training and self.background_only and self.occluders:
            shape = count, self.occluders, OCCLUDER_SIZE
            inner = torch.rand(shape, generator=generator, device=like.device)
        elif self.training and not self.background_only and stride > 1:
            inner = torch.randint(stride, (count, 2), generator=generator, device=like.device)
        return noise._replace(inner=inner)

    def _infer_slots(self, x: Tensor, noise: Noise | None) -> Slots:
        """Infer slots from q(z_m, z_c | x) (paper Eq. 7), with their decoded masks."""
        latents = self._latents(x, noise)
        log_pi = latents.log_pi
        if log_pi is None:
            log_pi = self._decode_masks(latents.z_m)
        return Slots(latents.z_m, latents.z_c, log_pi)

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        """Compute the terms of paper Eq. 9, with single-sample estimates of both KL terms."""
        if self.background_only:
            return self._score_background(x, noise)
        latents = self._latents(x, noise)
        p_m, p_c = self._priors(latents.z_m)
        offset = noise.inner if noise is not None else None
        decoded = self._render(latents.z_m, latents.z_c, latents.log_pi, offset)
        if offset is not None:
            x = self._subsample(x, offset)
            pixel_weight = None if pixel_weight is None else self._subsample(pixel_weight, offset)
        nll = self.nll(x, decoded, pixel_weight=pixel_weight)
        if offset is not None:
            nll = nll * self.likelihood_stride**2
        if latents.vote_loss is not None:
            # Adds the gradient of the votes' loss, but not its value, to the bound.
            nll = nll + (latents.vote_loss - latents.vote_loss.detach())
        return ElboTerms(
            nll,
            kl_monte_carlo(latents.z_m, latents.q_m, p_m),
            kl_monte_carlo(latents.z_c, latents.q_c, p_c),
        )

    def _generate(self, noise: Noise) -> Slots:
        """Sample slots from the prior (paper Eqs. 1 and 2)."""
        z_m = self._prior_sample(noise.m)
        return Slots(z_m, self._priors(z_m)[1].draw(noise.c), self._decode_masks(z_m))

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Apply a network to all slots, with ``activation_checkpointing`` if set."""
        if self.activation_checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(module, x)
        out: Tensor = module(x)
        return out

    # ---- posteriors and priors ---------------------------------------------------------------

    def _latents(self, x: Tensor, noise: Noise | None) -> Latents:
        """Infer both latents of all slots."""
        eps_m, eps_c = (None, None) if noise is None else (noise.m, noise.c)
        if not self.has_background:
            z_m, q_m = self._mask_posterior(x, eps_m)
            log_pi = self._decode_masks(z_m)
            z_c, q_c = self._component_posterior(x, log_pi, eps_c)
            return Latents(z_m, z_c, q_m, q_c, log_pi)
        # The background's latents are z_m and z_c of the first slot. The foreground gate is an
        # input of the objects' posterior, without gradient.
        q_b = self._background_posterior(x)
        sizes = list(self.latent_sizes)
        first_m, first_c = (
            Gaussian(mu, sigma)
            for mu, sigma in zip(q_b.mu.split(sizes, 2), q_b.sigma.split(sizes, 2), strict=True)
        )
        with torch.no_grad():
            background = self.background.decode(q_b.mu[:, 0])
            gate = self._gate(x, background)
        if self.config.posterior == "attention":
            raw_m, raw_c, vote_loss = self.attention(x, gate, self.mask_decoder)
            q_m = concatenate(first_m, self._posterior(raw_m))
            q_c = concatenate(first_c, self._posterior(raw_c))
            z_m, z_c = q_m.draw(eps_m), q_c.draw(eps_c)
            return Latents(z_m, z_c, q_m, q_c, vote_loss=vote_loss)
        z_m, rest_m = self._mask_posterior(x * gate, None if eps_m is None else eps_m[:, 1:])
        q_m = concatenate(first_m, rest_m)
        z_m = torch.cat([first_m.draw(None if eps_m is None else eps_m[:, :1]), z_m], 1)
        log_pi = self._decode_masks(z_m)
        _, rest_c = self._component_posterior(x, log_pi[:, 1:], None)
        q_c = concatenate(first_c, rest_c)
        return Latents(z_m, q_c.draw(eps_c), q_m, q_c, log_pi)

    def _priors(self, z_m: Tensor) -> tuple[Prior, Prior]:
        """Return p(z_m) and p(z_c | z_m)."""
        if not self.has_background:
            return self._prior_of(z_m), self._component_prior(z_m)
        first, rest = self._background_prior(z_m[:, :1]), self._component_prior(z_m[:, 1:])
        return self._prior_of(z_m), join(first, rest)

    def _background_posterior(self, x: Tensor) -> Gaussian:
        """Return q(z_b | x), (B, 1, D_m + D_c)."""
        if isinstance(self.background, StaticBackground):
            return standard_normal(x.new_zeros(len(x), 1, sum(self.latent_sizes)))
        return self._posterior(self.background(x)[:, None])

    def _gate(self, x: Tensor, background: Tensor) -> Tensor:
        """Return the probability that a pixel shows an object, (B, 1, H, W)."""
        config = self.config
        return foreground_gate(
            x,
            background,
            config.foreground_threshold,
            config.shadow_brightness,
            config.highlight_opacity,
            config.background_displacement,
        )

    def _score_background(self, x: Tensor, noise: Noise | None) -> ElboTerms:
        """Compute the terms of the background alone, with pixels of objects as outliers."""
        seen = x
        if noise is not None and noise.inner is not None:
            seen = paste_occluders(x, noise.inner)
        q_b = self._background_posterior(seen)
        eps = None if noise is None else torch.cat([noise.m[:, :1], noise.c[:, :1]], 2)
        z_b = q_b.draw(eps)
        nll = background_nll(x, self.background.decode(z_b[:, 0]))
        kl = F.pad(kl_monte_carlo(z_b, q_b, standard_normal(z_b)), (0, self.config.num_slots - 1))
        return ElboTerms(nll, kl, torch.zeros_like(kl))

    # ---- mask latents ------------------------------------------------------------------------

    def _mask_posterior(self, x: Tensor, eps: Tensor | None) -> tuple[Tensor, Gaussian]:
        """Infer z_m and q(z_m | x) by the LSTM, for all slots but a background."""
        h = at_least_float32(self.encoder(x))
        if self.corrector is None:
            z, raw = self._first_pass(h, eps)
            return z, self._posterior(raw)
        # Only the last pass is sampled, so that the posterior is a Gaussian of known density.
        _, raw = self._first_pass(h, None)
        for _ in range(self.config.posterior_passes - 1):
            change = self._run(self.corrector, self._corrector_inputs(x, raw))
            raw = raw + at_least_float32(change).unflatten(0, raw.shape[:2])
        q = self._posterior(raw)
        return q.draw(eps), q

    def _first_pass(self, h: Tensor, eps: Tensor | None) -> tuple[Tensor, Tensor]:
        """Infer z_m and raw parameters of q(z_m_k | x, z_m_<k), k = 1..K, from features (B, F)."""
        z: list[Tensor] = []
        raws: list[Tensor] = []
        with torch.autocast(h.device.type, enabled=False):
            state: LstmState | None = None
            for k in range(self.config.num_slots - self.has_background):
                if k == 0:
                    raws.append(self.first_posterior(h))
                else:
                    state = self.posterior_lstm(torch.cat([h, z[-1]], 1), state)
                    raws.append(self.posterior_head(state[0]))
                q = self._posterior(raws[-1])
                z.append(q.draw(None if eps is None else eps[:, k]))
        return torch.stack(z, 1), torch.stack(raws, 1)

    @torch.no_grad()
    def _corrector_inputs(self, x: Tensor, raw: Tensor) -> Tensor:
        """Return image, masks and responsibilities after a pass: (B*K, 5, H, W), b-major.

        They are inputs of the next pass, without gradients.
        """
        z_m = self._posterior(raw).mu
        log_pi = self._decode_masks(z_m)
        z_c, _ = self._component_posterior(x, log_pi, None)
        decoded = self._render(z_m, z_c, log_pi)
        return slot_maps(x, decoded.log_pi.exp(), self.log_responsibilities(x, decoded).exp())

    # ---- decoders ----------------------------------------------------------------------------

    def _decode_masks(self, z_m: Tensor) -> Tensor:
        """Decode z_m (B, K, D_m) to log_pi (B, K, 1, H, W)."""
        if isinstance(self.mask_decoder, LocalDecoder):
            points = self.points.flatten(0, 1)
            logits = self.mask_decoder.masks(self._masked_slots(z_m), points)
            return self._stick_breaking(logits.unflatten(2, (1, *self.points.shape[:2])))
        return self._stick_breaking(self._decode_logits(z_m, None)[0])

    def _masked_slots(self, z_m: Tensor) -> Tensor:
        """Return the mask latents of the K - 1 slots with a decoded mask."""
        return z_m[:, 1:] if self.has_background else z_m[:, : self.config.num_slots - 1]

    def _decode_logits(self, z_m: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return mask logits and any shading of K - 1 slots, both (B, K - 1, 1, h, w)."""
        last = self.config.num_slots - 1
        objects = self._masked_slots(z_m)
        if isinstance(self.mask_decoder, LocalDecoder):
            points = self.points if offset is None else self._offset_points(offset)
            flat, shade = self.mask_decoder(objects, points.flatten(-3, -2))
            shape = (1, *points.shape[-3:-1])
            return flat.unflatten(2, shape), shade.unflatten(2, shape)
        used = z_m if self.config.decode_last_mask and not self.has_background else objects
        logits = self._run(self.mask_decoder, used.flatten(0, 1)).unflatten(0, used.shape[:2])
        logits = at_least_float32(logits[:, :last])
        bound = self.config.mask_logit_bound
        if bound is not None:
            logits = bound * torch.tanh(logits / bound)
        return logits, None

    def _stick_breaking(self, logits: Tensor) -> Tensor:
        """Compute log_pi; the background, or else the last slot, has the remaining scope."""
        log_pi = stick_breaking(logits)
        return log_pi.roll(1, 1) if self.has_background else log_pi

    def _render(
        self,
        z_m: Tensor,
        z_c: Tensor,
        log_pi: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> Decoded:
        """Decode latents to components and masks.

        Args:
            z_m: mask latents, (B, K, D_m).
            z_c: component latents, (B, K, D_c).
            log_pi: the masks, if already decoded.
            offset: row and column of the first decoded pixel, (B, 2); every
                ``likelihood_stride``-th pixel is decoded from there. None: all pixels.
        """
        shade = None
        if log_pi is None or self.config.component_decoder == "shaded":
            logits, shade = self._decode_logits(z_m, offset)
            log_pi = self._stick_breaking(logits)
        mu_x = self._decode_components(self._appearance(z_m, z_c), shade)
        if offset is not None and mu_x.shape[-1] == self.config.image_size:
            mu_x = self._subsample(mu_x.flatten(1, 2), offset).unflatten(1, mu_x.shape[1:3])
        mu_x = mu_x.expand(*mu_x.shape[:3], *log_pi.shape[3:])
        if self.has_background:
            background = self.background.decode(torch.cat([z_m[:, 0], z_c[:, 0]], 1)).clamp(0, 1)
            background = background if offset is None else self._subsample(background, offset)
            mu_x = torch.cat([background[:, None], mu_x], 1)
        return Decoded(mu_x, log_pi)

    def _decode_components(self, z: Tensor, shade: Tensor | None) -> Tensor:
        """Return component means (B, K, 3, H, W) in [0, 1], without that of a background."""
        if self.has_background:
            z = z[:, 1:]
        last = z.shape[1] - (self.background_decoder is not None)
        if self.config.component_decoder in ("flat", "shaded"):
            # The same colour at every pixel.
            colour = at_least_float32(self.component_decoder(z.flatten(0, 1))[:, :, 0, 0])
            colour = torch.sigmoid(colour.unflatten(0, z.shape[:2]) + self._colour_offset(z))
            colour = colour[..., None, None]
            if shade is None or self.config.component_decoder == "flat":
                return colour
            if not self.has_background:  # the last slot has no shading
                shade = F.pad(shade, (0, 0, 0, 0, 0, 0, 0, 1), value=1.0)
            return (colour * shade).clamp_max(1.0)
        raw = self._run(self.component_decoder, z[:, :last].flatten(0, 1))
        raw = at_least_float32(raw).unflatten(0, (-1, last))
        if self.background_decoder is not None:
            background = at_least_float32(self._run(self.background_decoder, z[:, last]))
            raw = torch.cat([raw, background.unsqueeze(1)], 1)
        return torch.sigmoid(raw)

    def _offset_points(self, offset: Tensor) -> Tensor:
        """Return coordinates of the decoded pixels, (B, h, w, 2)."""
        return self._subsample(
            self.points.movedim(2, 0).expand(len(offset), -1, -1, -1), offset
        ).movedim(1, 3)

    def _subsample(self, maps: Tensor, offset: Tensor) -> Tensor:
        """Subsample maps (B, C, H, W) by ``likelihood_stride``, from pixel offsets (B, 2)."""
        stride = self.likelihood_stride
        start = torch.arange(0, maps.shape[-1], stride, device=maps.device)
        rows, cols = (start + offset[:, i : i + 1] for i in (0, 1))
        image = torch.arange(len(maps), device=maps.device)[:, None, None]
        return maps[image, :, rows[:, :, None], cols[:, None, :]].movedim(3, 1)

    # ---- components --------------------------------------------------------------------------

    def _component_posterior(
        self, x: Tensor, log_pi: Tensor, eps: Tensor | None
    ) -> tuple[Tensor, Gaussian]:
        """Infer z_c and q(z_c_k | x, z_m); of width 0 here."""
        empty = no_latents(log_pi)
        return empty, Gaussian(empty, empty)

    def _component_prior(self, z_m: Tensor) -> SlotPrior:
        """Return p(z_c_k | z_m_k); of width 0 here."""
        return self._standard_prior(no_latents(z_m))

    def _background_prior(self, z_m: Tensor) -> SlotPrior:
        """Return p(z_c | z_m) of a background: standard normal, unless it has a flow."""
        p = self._standard_prior(z_m.new_zeros(len(z_m), 1, self.latent_sizes[1]))
        return with_flow(p, self.component_prior_first_flow, z_m)

    def _appearance(self, z_m: Tensor, z_c: Tensor) -> Tensor:
        """Return the latents from which components are decoded."""
        return z_m

    def _colour_offset(self, z: Tensor) -> Tensor | float:
        """Return an offset of the colour logits, for latents that contain a colour."""
        return 0.0


class Genesis(GenesisS):
    """GENESIS: mask latents with an autoregressive prior, component latents given mask latents."""

    model_name = "genesis"
    config_class = GenesisConfig
    config: GenesisConfig

    def _build_components(self) -> None:
        config = self.config
        d_m, d_c = self.latent_sizes
        if config.posterior == "lstm":
            self.component_encoder = ComponentEncoder(
                config.image_size,
                config.component_encoder_channels,
                config.component_encoder_size,
                2 * d_c,
            )
        self._build_component_decoders(d_c)
        width = config.prior_mlp_size
        last = nn.Linear(width, prior_size(d_c, config.prior_components))
        spread_components(last, config.prior_components)
        self.component_prior = nn.Sequential(
            nn.Linear(d_m, width),
            nn.ELU(),
            nn.Linear(width, width),
            nn.ELU(),
            last,
        )
        self.component_prior_flow: CouplingFlow | None = None
        if config.prior_flow_layers:
            self.component_prior_flow = self._build_flow(d_c, d_m)
            if self.has_background:
                self.component_prior_first_flow = self._build_flow(d_c, d_m)

    def _component_posterior(
        self, x: Tensor, log_pi: Tensor, eps: Tensor | None
    ) -> tuple[Tensor, Gaussian]:
        raw = self._run(self.component_encoder, slot_maps(log_pi, x))
        q_c = self._posterior(raw.unflatten(0, log_pi.shape[:2]))
        return q_c.draw(eps), q_c

    def _component_prior(self, z_m: Tensor) -> SlotPrior:
        with torch.autocast(z_m.device.type, enabled=False):
            raw: Tensor = self.component_prior(z_m)
            p = learned_prior(raw, self.prior_components)
            return with_flow(p, self.component_prior_flow, z_m)

    def _appearance(self, z_m: Tensor, z_c: Tensor) -> Tensor:
        return z_c

    def _colour_offset(self, z: Tensor) -> Tensor | float:
        return 3 * z[..., :3] if self.config.posterior == "attention" else 0.0
