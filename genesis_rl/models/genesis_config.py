"""Configs of GENESIS and GENESIS-S: the paper's architecture and its alternatives."""

from dataclasses import dataclass
from typing import Annotated, Literal

from genesis_rl.models.attention import SlotOrder
from genesis_rl.models.base import FiveCounts, ImageSize, SigmaX, SlotCount
from genesis_rl.models.likelihood import Mixture
from genesis_rl.models.local import GEOMETRY
from genesis_rl.utils.checks import (
    Count,
    Counts,
    Finite,
    Must,
    Natural,
    NonNegative,
    Positive,
    check_fields,
)

Prior = Literal["autoregressive", "independent"]
MaskDecoder = Literal["deconvolution", "broadcast", "local"]
ComponentDecoder = Literal["broadcast", "flat", "flat_objects", "shaded"]
Background = Literal["none", "predicted", "static"]
Posterior = Literal["lstm", "attention"]


@dataclass(frozen=True)
class GenesisSConfig:
    """Architecture of GENESIS-S, shared by GENESIS; defaults are the paper's."""

    image_size: ImageSize = 64
    """side of the images in pixels: 32, 64 or 128"""
    num_slots: SlotCount = 5
    """K, the number of slots, background included; at least 2"""
    mask_latent_size: Count = 64
    """D_m, width of the mask latents"""
    encoder_channels: FiveCounts = (32, 32, 64, 64, 64)
    """channels of the five gated layers of the encoder"""
    decoder_channels: FiveCounts = (64, 32, 32, 32, 32)
    """channels of the five gated layers of the mask decoder"""
    feature_size: Count = 256
    """width of the encoder's feature vector"""
    posterior_lstm_size: Count = 128
    """units of the posterior's LSTM"""
    prior_lstm_size: Count = 256
    """units of the autoregressive prior's LSTM"""
    component_decoder: ComponentDecoder = "broadcast"
    """decoder of components: "broadcast", a spatial broadcast decoder (the paper's); "flat", one
    colour per slot, so that edges can only come from masks; "flat_objects", flat but for the last
    slot, the background, which a broadcast decoder decodes; "shaded", flat times the shading of a
    local mask decoder"""
    component_decoder_channels: Count = 32
    """channels of the component decoder"""
    sigma_x: SigmaX = 0.7
    """standard deviation of every Gaussian component, in pixel units"""
    mixture: Mixture = "channel"
    """mix the slots per colour "channel" (paper's code), or per "pixel", over all its channels"""
    posterior_sigma_min: Positive = 1e-8
    """least standard deviation of the posterior; 0.01 stabilises short trainings"""
    posterior_sigma_bias: Finite = 0.5
    """bias before the softplus of the posterior's standard deviation: 0.5 (paper's code) starts at
    about 1; -2 starts at 0.13, so that latents are informative from the first update on"""
    mask_logit_bound: Positive | None = None
    """bound of the mask logits, by bound * tanh(logit / bound); with 5 a slot has at least 0.7 % of
    the remaining scope, so that an empty slot still gets gradients; None: unbounded"""
    mask_logit_bias: float | None = None
    """initial bias of the mask logits; below 0, early slots start small; None: PyTorch's default"""
    decode_last_mask: bool = False
    """decode also the K-th slot's mask, which is not used: in training its activations then
    contribute to the decoder's batch statistics, as in the authors' code"""
    mask_decoder: MaskDecoder = "deconvolution"
    """decoder of masks: "deconvolution", the paper's gated transposed convolutions; "broadcast", a
    spatial broadcast decoder, in which a position in z_m moves a mask smoothly; "local", a convex
    polygon of the position and size in z_m, at any resolution"""
    mask_broadcast_channels: Count = 32
    """channels of a broadcast mask decoder, which does not use decoder_channels"""
    prior: Prior = "autoregressive"
    """prior of the mask latents: "autoregressive", each slot given the slots before (the paper's);
    "independent", an ablation: a learned Gaussian per slot, by the same network with zeros as
    input"""
    prior_components: Count = 1
    """Gaussians in the priors of a slot's mask latents and component latents: 1 in the paper; a
    mixture can represent that a slot is either empty or an object, and a set of colours"""
    prior_flow_layers: Natural = 0
    """coupling layers of a normalising flow in every prior, also in that of the first slot: 0 in
    the paper, whose first mask latents are standard normal. 4 represents correlated latents, and
    backgrounds that are not normally distributed"""
    posterior_passes: Count = 1
    """passes of the posterior: 1 in the paper; further passes correct every slot's z_m from the
    image, its decoded mask and its responsibilities, by one network for all slots and passes
    (iterative amortised inference, Marino et al. 2018). Initially the correction is 0, so that
    training can start from weights of fewer passes"""
    background: Background = "none"
    """background model: "none", the paper's: the last slot has the remaining scope; "predicted": a
    network predicts the scene without objects from the frame; "static": one image for all frames
    of a static camera. A background is the first slot, with latents z_b"""
    background_channels: Counts = (16, 32, 48, 64)
    """channels of the stride-2 layers of the background's encoder"""
    background_size: Count = 256
    """units of the background's hidden layers"""
    foreground_threshold: Positive = 0.08
    """squared colour distance to the background at which a pixel shows an object"""
    shadow_brightness: Annotated[float, Must("in (0, 1]", lambda value: 0 < value <= 1)] = 1.0
    """least brightness of the background in a shadow, relative to that without it: pixels of the
    background's hue between the two are not of an object. 0.5 suits a lit table or floor; 1: no
    shadows. Grey objects on a brighter grey background need 1"""
    highlight_opacity: Annotated[float, Must("in [0, 1)", lambda value: 0 <= value < 1)] = 0.0
    """greatest opacity of a white highlight, such as 0.3 of the agent's view in MiniGrid: what it
    changes is not of an object. 0: no highlights"""
    background_displacement: Natural = 0
    """distance in pixels by which a predicted background may be displaced: a pixel whose colour the
    background has within this distance is not of an object. 1 for textures with contrast, whose
    edges a network does not predict exactly"""
    posterior: Posterior = "lstm"
    """posterior of object slots: "lstm" over features of the image (the paper's), or "attention"
    over foreground pixels, which requires a background"""
    object_size: Positive = 0.32
    """typical side of an object in halves of the frame's side, for an attention posterior"""
    seed_threshold: Annotated[float, Must("in (0, 1)", lambda value: 0 < value < 1)] = 0.4
    """mean foreground probability above which a cell of 2 x 2 pixels may initialise a slot, for an
    attention posterior; 0.2 for objects of a few pixels"""
    hue_distance: Positive = 0.5
    """distance of the hues of different objects (unit RGB vectors), for an attention posterior:
    smaller values separate similar colours, larger ones keep objects of several shades together"""
    merge_hue_distance: NonNegative = 0.0
    """distance of hues below which touching slots are merged, for an attention posterior: 0.08
    where sizes of objects differ much, and touching objects of one colour are rare; 0: never"""
    merge_distance: NonNegative = 0.0
    """distance of centres, in sides of a square with the area of both, below which touching slots
    of hues within hue_distance are merged, for an attention posterior: 0.45 merges faces and edges
    of an object, but not two objects of one colour side by side; 0: never"""
    least_area: Positive = 0.03
    """least area of an object with a slot, as a share of object_size squared, for an attention
    posterior; 0.01 finds objects much smaller than the typical one"""
    slot_order: SlotOrder = "top_down"
    """order of slots by the rows of their objects, for an attention posterior. By stick-breaking
    the first slot is in front: "top_down" suits towers viewed from above, "bottom_up" objects on a
    table, of which the lower ones are nearer. "hue" keeps objects of different colours in the same
    slots when they move, as linear probes and policies without attention require"""
    attention_channels: Count = 32
    """channels of the convolutions that predict each pixel's object centre"""
    window_size: Count = 64
    """width of the attention's features of the window on each slot"""
    local_decoder_size: Count = 64
    """units of the hidden layer of a local mask decoder"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if self.posterior == "attention" and self.background == "none":
            raise ValueError(
                "background must be 'predicted' or 'static' with posterior='attention', got "
                "'none': the attention is over pixels that differ from the background."
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
                "'flat_objects', which has a background decoder of its own."
            )
        local = self.mask_decoder == "local"
        if self.component_decoder == "shaded" and not local:
            raise ValueError(
                "mask_decoder must be 'local' with component_decoder='shaded', got "
                f"{self.mask_decoder!r}: the shading is an output of the local decoder."
            )
        if local and self.mask_logit_bias is not None:
            raise ValueError(
                "mask_logit_bias must be None with mask_decoder='local', got "
                f"{self.mask_logit_bias}."
            )
        if (local or self.posterior == "attention") and self.mask_latent_size <= GEOMETRY:
            raise ValueError(
                f"mask_latent_size must be at least {GEOMETRY + 1} with local masks or attention, "
                f"got {self.mask_latent_size}."
            )


@dataclass(frozen=True)
class GenesisConfig(GenesisSConfig):
    """Architecture of GENESIS; defaults are the paper's."""

    component_latent_size: Count = 16
    """D_c, width of the component latents"""
    component_encoder_channels: Counts = (32, 32, 64, 64)
    """channels of the component encoder's stride-2 layers"""
    component_encoder_size: Count = 256
    """units of the component encoder's hidden layer"""
    prior_mlp_size: Count = 256
    """units of each of the two hidden layers of the component prior"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        if self.posterior == "attention" and self.component_latent_size < 3:
            raise ValueError(
                "component_latent_size must be at least 3 with posterior='attention', got "
                f"{self.component_latent_size}."
            )
