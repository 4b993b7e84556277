"""GENESIS and GENESIS-S (paper sections 3 and B.1).

Both decode K masks from mask latents z_m, inferred one after the other by an LSTM and governed by
an autoregressive prior. GENESIS infers a component latent z_c for each masked image besides;
GENESIS-S decodes the components from z_m too.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from genesis_rl.blocks import (
    BroadcastDecoder,
    ComponentEncoder,
    FlatDecoder,
    GatedDecoder,
    GatedEncoder,
    SlotCorrector,
    recomputed,
)
from genesis_rl.likelihood import Gaussian, Mixture, kl_monte_carlo, stick_breaking
from genesis_rl.models.base import (
    LstmState,
    Noise,
    at_least_float32,
    check_channels,
    check_counts,
    check_positive,
    check_shared,
    no_latents,
    slot_maps,
)
from genesis_rl.models.prior import (
    NextSlot,
    StepwiseModel,
    learned_prior,
)
from genesis_rl.slots import Decoded, ElboTerms, Slots

Prior = Literal["autoregressive", "independent"]
MaskDecoder = Literal["deconvolution", "broadcast"]
ComponentDecoder = Literal["broadcast", "flat", "flat_objects"]


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
    component_decoder: ComponentDecoder = "broadcast"
    """a spatial broadcast decoder (the paper's), or one "flat" colour for the whole component: then
    masks have to draw every edge, and no component can paint what should be another slot's;
    "flat_objects" is flat for all slots but the last, to which stick-breaking leaves the
    background: a broadcast decoder paints that, for plain objects before whatever there is"""
    component_decoder_channels: int = 32
    """channels of the components' decoder"""
    sigma_x: float = 0.7
    """standard deviation of every Gaussian component, in pixel units"""
    mixture: Mixture = "channel"
    """mix the slots in every colour channel apart (paper's code), or once per pixel"""
    posterior_sigma_floor: float = 1e-8
    """least standard deviation of the posterior; 0.01 keeps short trainings finite"""
    posterior_sigma_bias: float = 0.5
    """added to what becomes the posterior's standard deviation by a softplus (0.5: the paper's
    code, about 1 at the start); -2 starts at 0.13, so that latents tell something from the first
    update on"""
    mask_logit_bound: float | None = None
    """bound of the mask logits, by bound * tanh(logit / bound); 5 keeps at least 0.7 % of what is
    left for every slot, so that a slot without an object can still find one; None: unbounded"""
    mask_logit_bias: float | None = None
    """initial bias of the mask logits; below 0, early slots start small; None: PyTorch's default"""
    decode_last_mask: bool = False
    """decode the K-th slot's mask although it is never used: in training its activations then take
    part in the decoder's batch statistics, as in the authors' code"""
    mask_decoder: MaskDecoder = "deconvolution"
    """the paper's gated transposed convolutions, or a spatial "broadcast" decoder as the components
    have: its first layer adds a linear map of z_m to one of the coordinates, so that a position in
    z_m moves a mask smoothly, wherever it is"""
    mask_broadcast_channels: int = 32
    """channels of a broadcast mask decoder; decoder_channels then go unused"""
    prior: Prior = "autoregressive"
    """of the mask latents: each slot given those before (the paper's), or "independent", the
    ablation: each slot has a learned Gaussian of its own, by the same network blind to the slots
    before, so that nothing is lost but how slots depend on each other"""
    posterior_passes: int = 1
    """looks that the posterior takes at an image: 1 is the paper's; 2 or more decode what the look
    before has found, and correct every slot's z_m from the image beside its mask and its
    responsibilities, by one network for all slots and looks (iterative amortised inference, Marino
    et al. 2018). It starts out as no correction, so weights of fewer looks can be gone on from"""

    def __post_init__(self) -> None:
        """Check values."""
        check_shared(self)
        check_counts(
            self, "mask_latent_size", "feature_size", "posterior_lstm_size", "prior_lstm_size"
        )
        check_counts(self, "component_decoder_channels", "mask_broadcast_channels")
        check_counts(self, "posterior_passes")
        check_channels(self, "encoder_channels", 5)
        check_channels(self, "decoder_channels", 5)
        if not math.isfinite(self.posterior_sigma_bias):
            raise ValueError(
                f"posterior_sigma_bias is {self.posterior_sigma_bias}; wanted a finite number."
            )
        if self.mask_logit_bound is not None:
            check_positive(self, "mask_logit_bound")
        for name, choices in (
            ("prior", Prior),
            ("mask_decoder", MaskDecoder),
            ("component_decoder", ComponentDecoder),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; wanted one of {get_args(choices)}."
                )


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
        check_counts(self, "component_latent_size", "component_encoder_size", "prior_mlp_size")
        check_channels(self, "component_encoder_channels")


class Inference(NamedTuple):
    """All that one pass over the posterior and the prior computes; every field (B, K, ...)."""

    slots: Slots
    q_m: Gaussian
    p_m: Gaussian
    q_c: Gaussian
    p_c: Gaussian


class GenesisS(StepwiseModel):
    """GENESIS-S: one latent per slot, decoded to its mask and to its component.

    Attributes:
        recompute: compute activations per slot again for the gradient instead of keeping them.
    """

    recompute: bool = False

    model_name = "genesis_s"
    config_class = GenesisSConfig
    config: GenesisSConfig

    def __init__(self, config: GenesisSConfig) -> None:
        """Build with PyTorch's default initialisation, as the authors' code does."""
        super().__init__()
        self.config = config
        self.conditional = config.prior == "autoregressive"
        width = config.mask_latent_size
        self.encoder = GatedEncoder(config.image_size, config.encoder_channels, config.feature_size)
        self.first_posterior = nn.Linear(config.feature_size, 2 * width)
        self.posterior_lstm = nn.LSTMCell(config.feature_size + width, config.posterior_lstm_size)
        self.posterior_head = nn.Linear(config.posterior_lstm_size, 2 * width)
        self.mask_decoder: GatedDecoder | BroadcastDecoder
        if config.mask_decoder == "broadcast":
            self.mask_decoder = BroadcastDecoder(
                width, config.image_size, config.mask_broadcast_channels, 1
            )
        else:
            self.mask_decoder = GatedDecoder(width, config.image_size, config.decoder_channels, 1)
        if config.mask_logit_bias is not None:
            bias = self.mask_decoder.head.get_parameter("bias")
            nn.init.constant_(bias, config.mask_logit_bias)
        self.corrector: SlotCorrector | None = None
        if config.posterior_passes > 1:
            self.corrector = SlotCorrector(
                config.image_size, config.encoder_channels[:4], config.feature_size, 2 * width
            )
        self.prior_lstm = nn.LSTMCell(width, config.prior_lstm_size)
        self.prior_head = nn.Linear(config.prior_lstm_size, 2 * width)
        self._build_components()

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
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c); D_c is 0 for GENESIS-S."""
        return self.config.mask_latent_size, 0

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks; ``slots.log_pi`` is decoded anew from z_m."""
        self._check_slots(slots)
        return Decoded(self._decode_components(slots), self._decode_masks(slots.z_m))

    def next_slot(
        self, noise: Noise, previous: Tensor | None = None, state: LstmState | None = None
    ) -> NextSlot:
        """Draw the next slot from p(z_m_k | z_m_<k) p(z_c_k | z_m_k); see `SceneBuilder`."""
        z_prev = None if previous is None else previous[:, : self.latent_sizes[0]]
        p_m, state = self._prior_step(z_prev, state, noise.m)
        z_m = p_m.draw(noise.m)
        p_c = self._component_prior(z_m[:, None])
        z_c = p_c.draw(noise.c[:, None])
        log_p = p_m.log_prob(z_m) + p_c.log_prob(z_c)[:, 0]
        return NextSlot(z_m, z_c[:, 0], log_p, state)

    # ---- the passes, given the noise ---------------------------------------------------------

    def _infer_slots(self, x: Tensor, noise: Noise | None) -> Slots:
        """Slots from q(z_m, z_c | x) (paper Eq. 7), with the masks that they decode to."""
        z_m, _ = self._mask_posterior(x, noise and noise.m)
        return self._slots_at(x, z_m, noise and noise.c)[0]

    def _infer(self, x: Tensor, noise: Noise | None) -> Inference:
        """Posterior and prior of both latents; ``noise`` None takes z = mu throughout."""
        z_m, q_m = self._mask_posterior(x, noise and noise.m)
        slots, q_c = self._slots_at(x, z_m, noise and noise.c)
        return Inference(slots, q_m, self._mask_prior(z_m), q_c, self._component_prior(z_m))

    def _slots_at(self, x: Tensor, z_m: Tensor, eps: Tensor | None) -> tuple[Slots, Gaussian]:
        """Slots of given mask latents, and q(z_c | x, z_m), which their z_c are drawn from."""
        log_pi = self._decode_masks(z_m)
        z_c, q_c = self._component_posterior(x, log_pi, eps)
        return Slots(z_m, z_c, log_pi), q_c

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        """Paper Eq. 9, both KL terms estimated by the sample that is scored."""
        slots, q_m, p_m, q_c, p_c = self._infer(x, noise)
        decoded = Decoded(self._decode_components(slots), slots.log_pi)
        nll = self.nll(x, decoded, pixel_weight=pixel_weight)
        return ElboTerms(
            nll, kl_monte_carlo(slots.z_m, q_m, p_m), kl_monte_carlo(slots.z_c, q_c, p_c)
        )

    def _generate(self, noise: Noise) -> Slots:
        """Ancestral sampling (paper Eqs. 1 and 2)."""
        z_m = self._prior_sample(noise.m)
        return Slots(z_m, self._component_prior(z_m).draw(noise.c), self._decode_masks(z_m))

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Apply one of the networks that see all slots at once, where nearly all memory goes."""
        if self.recompute and self.training and torch.is_grad_enabled():
            return recomputed(module, x)
        out: Tensor = module(x)
        return out

    # ---- mask latents ------------------------------------------------------------------------

    def _mask_posterior(self, x: Tensor, eps: Tensor | None) -> tuple[Tensor, Gaussian]:
        """q(z_m | x) of all slots from images: latents (B, K, D_m) and parameters."""
        h = at_least_float32(self.encoder(x))
        if self.corrector is None:
            z, raw = self._first_look(h, eps)
            return z, self._posterior(raw)
        # All looks but the last are without noise, so that the whole stays one Gaussian of known
        # density.
        _, raw = self._first_look(h, None)
        for _ in range(self.config.posterior_passes - 1):
            change = self._run(self.corrector, self._evidence(x, raw))
            raw = raw + at_least_float32(change).unflatten(0, raw.shape[:2])
        q = self._posterior(raw)
        return q.draw(eps), q

    def _first_look(self, h: Tensor, eps: Tensor | None) -> tuple[Tensor, Tensor]:
        """q(z_m_k | x, z_m_<k) for k = 1..K from features (B, F): z_m, and parameters' raw form."""
        z: list[Tensor] = []
        raws: list[Tensor] = []
        with torch.autocast(h.device.type, enabled=False):
            state: LstmState | None = None
            for k in range(self.config.num_slots):
                if k == 0:
                    raws.append(self.first_posterior(h))
                else:
                    state = self.posterior_lstm(torch.cat([h, z[-1]], 1), state)
                    raws.append(self.posterior_head(state[0]))
                q = self._posterior(raws[-1])
                z.append(q.draw(None if eps is None else eps[:, k]))
        return torch.stack(z, 1), torch.stack(raws, 1)

    @torch.no_grad()
    def _evidence(self, x: Tensor, raw: Tensor) -> Tensor:
        """What a look has found: (B*K, 5, H, W), b-major; image, slot's mask, responsibilities.

        It is evidence to the next look as the image is: no gradient goes through it.
        """
        slots, _ = self._slots_at(x, self._posterior(raw).mu, None)
        found = Decoded(self._decode_components(slots), slots.log_pi)
        return slot_maps(x, found.log_pi.exp(), self.log_responsibilities(x, found).exp())

    def _mask_prior(self, z_m: Tensor) -> Gaussian:
        """The prior's parameters at given latents (B, K, D_m)."""
        return self._prior_of(z_m)

    def _decode_masks(self, z_m: Tensor) -> Tensor:
        """All masks in parallel, then stick-breaking: (B, K, D_m) to log_pi (B, K, 1, H, W)."""
        last = self.config.num_slots - 1
        used = z_m if self.config.decode_last_mask else z_m[:, :last]
        logits = self._run(self.mask_decoder, used.flatten(0, 1)).unflatten(0, used.shape[:2])
        logits = at_least_float32(logits[:, :last])
        bound = self.config.mask_logit_bound
        if bound is not None:
            logits = bound * torch.tanh(logits / bound)
        return stick_breaking(logits)

    # ---- components --------------------------------------------------------------------------

    def _component_posterior(
        self, x: Tensor, log_pi: Tensor, eps: Tensor | None
    ) -> tuple[Tensor, Gaussian]:
        """q(z_c_k | x, z_m); of width 0 here."""
        empty = no_latents(log_pi)
        return empty, Gaussian(empty, empty)

    def _component_prior(self, z_m: Tensor) -> Gaussian:
        """p(z_c_k | z_m_k); of width 0 here."""
        empty = no_latents(z_m)
        return Gaussian(empty, empty)

    def _decode_components(self, slots: Slots) -> Tensor:
        """Component means mu_x, (B, K, 3, H, W) in [0, 1]."""
        z = self._appearance(slots)
        last = z.shape[1] - (self.background_decoder is not None)
        raw = self._run(self.component_decoder, z[:, :last].flatten(0, 1))
        raw = at_least_float32(raw).unflatten(0, (-1, last))
        if self.background_decoder is not None:
            behind = at_least_float32(self._run(self.background_decoder, z[:, last]))
            raw = torch.cat([raw, behind.unsqueeze(1)], 1)
        return torch.sigmoid(raw)

    def _appearance(self, slots: Slots) -> Tensor:
        return slots.z_m


class Genesis(GenesisS):
    """GENESIS: mask latents with an autoregressive prior, component latents given them."""

    model_name = "genesis"
    config_class = GenesisConfig
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
        self._build_component_decoders(d_c)
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
        raw = self._run(self.component_encoder, slot_maps(log_pi, x))
        q_c = self._posterior(raw.unflatten(0, log_pi.shape[:2]))
        return q_c.draw(eps), q_c

    def _component_prior(self, z_m: Tensor) -> Gaussian:
        with torch.autocast(z_m.device.type, enabled=False):
            raw: Tensor = self.component_prior(z_m)
            return learned_prior(raw)

    def _appearance(self, slots: Slots) -> Tensor:
        return slots.z_c
