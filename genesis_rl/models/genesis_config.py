"""Settings of GENESIS and GENESIS-S: the paper's parts and those that replace them."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from genesis_rl.likelihood import Mixture
from genesis_rl.models.attention import SlotOrder
from genesis_rl.models.base import check_channels, check_counts, check_positive, check_shared
from genesis_rl.models.local import GEOMETRY

Prior = Literal["autoregressive", "independent"]
MaskDecoder = Literal["deconvolution", "broadcast", "local"]
ComponentDecoder = Literal["broadcast", "flat", "flat_objects", "shaded"]
Background = Literal["none", "predicted", "static"]
Posterior = Literal["lstm", "attention"]


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
    prior_components: int = 1
    """Gaussians in the prior of each slot's mask latents and of its component latents: 1 is the
    paper's; a mixture can say that a slot is either empty or an object, and which of a few colours
    an object has"""
    posterior_passes: int = 1
    """looks that the posterior takes at an image: 1 is the paper's; 2 or more decode what the look
    before has found, and correct every slot's z_m from the image beside its mask and its
    responsibilities, by one network for all slots and looks (iterative amortised inference, Marino
    et al. 2018). It starts out as no correction, so weights of fewer looks can be gone on from"""
    background: Background = "none"
    """"none", the paper's: the last slot takes what the others leave; "predicted": a network infers
    the scene without objects from the frame; "static": one image for all frames of a camera that
    does not move. With a background the first slot holds it, and its latents are z_b"""
    background_channels: tuple[int, ...] = (16, 32, 48, 64)
    """channels of the background encoder's stride-2 layers"""
    background_size: int = 256
    """units of the background's hidden layers"""
    foreground_threshold: float = 0.08
    """squared distance of a pixel's colour from the background's at which it shows an object"""
    posterior: Posterior = "lstm"
    """of the objects: an LSTM over features of the whole image (the paper's), or "attention" over
    the pixels that differ from the background, which it needs"""
    object_size: float = 0.32
    """typical side of an object in halves of the frame's side, for the attention"""
    slot_order: SlotOrder = "top_down"
    """order of the slots of an attention by the rows of their objects. The first is in front, by
    stick-breaking: the upper block of a tower seen from above; "bottom_up" suits objects on a
    table, where those below are nearer"""
    attention_channels: int = 32
    """channels of the convolutions by which pixels vote for the centre of their object"""
    window_size: int = 64
    """width of the features that the attention computes from a window on each slot"""
    local_decoder_size: int = 64
    """units of the hidden layer of a local mask decoder"""

    def __post_init__(self) -> None:
        """Check values."""
        check_shared(self)
        check_counts(
            self, "mask_latent_size", "feature_size", "posterior_lstm_size", "prior_lstm_size"
        )
        check_counts(self, "component_decoder_channels", "mask_broadcast_channels")
        check_counts(self, "posterior_passes", "prior_components")
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
            ("background", Background),
            ("posterior", Posterior),
            ("slot_order", SlotOrder),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {get_args(choices)}, got {getattr(self, name)!r}."
                )
        self._check_objects()

    def _check_objects(self) -> None:
        """Check the options of backgrounds, attention and local decoders, and their combination."""
        check_channels(self, "background_channels")
        check_counts(
            self, "background_size", "attention_channels", "window_size", "local_decoder_size"
        )
        check_positive(self, "foreground_threshold", "object_size")
        if self.posterior == "attention" and self.background == "none":
            raise ValueError(
                "background must be 'predicted' or 'static' with posterior='attention', got "
                "'none': the attention is over what differs from the background."
            )
        if (
            self.posterior == "attention"
            and self.posterior_passes > 1
            and self.mask_decoder != "local"
        ):
            raise ValueError(
                "posterior_passes must be 1 with posterior='attention' unless mask_decoder is "
                f"'local', got {self.posterior_passes}."
            )
        if self.background != "none" and self.component_decoder == "flat_objects":
            raise ValueError(
                "component_decoder must be 'broadcast', 'flat' or 'shaded' with a background, got "
                "'flat_objects', which has one of its own."
            )
        local = self.mask_decoder == "local"
        if self.component_decoder == "shaded" and not local:
            raise ValueError(
                "mask_decoder must be 'local' with component_decoder='shaded', got "
                f"{self.mask_decoder!r}: the shading is an output of the local decoder."
            )
        if local and self.mask_logit_bias is not None:
            raise ValueError(
                "mask_logit_bias must be None with mask_decoder='local', whose masks start as "
                f"discs, got {self.mask_logit_bias}."
            )
        if (local or self.posterior == "attention") and self.mask_latent_size <= GEOMETRY:
            raise ValueError(
                f"mask_latent_size must be at least {GEOMETRY + 1} with local masks or attention, "
                f"got {self.mask_latent_size}."
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
        if self.posterior == "attention" and self.component_latent_size < 3:
            raise ValueError(
                "component_latent_size must be at least 3 with posterior='attention', got "
                f"{self.component_latent_size}."
            )
