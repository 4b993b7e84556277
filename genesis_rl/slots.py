"""Common types: slots, decoded components, ELBO terms and the protocol of scene models."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


def check_shape(value: Tensor, expected: tuple[int | None, ...], name: str) -> None:
    """Check the shape of a tensor; None is any size.

    Raises:
        TypeError: if it is not a tensor.
        ValueError: if it has another shape.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor, got {type(value).__name__}. Convert arrays by "
            "torch.as_tensor."
        )
    fits = value.ndim == len(expected) and all(
        size is None or actual == size for actual, size in zip(value.shape, expected, strict=False)
    )
    if not fits:
        shape = "(" + ", ".join("any" if n is None else str(n) for n in expected) + ")"
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}.")


def check_finite(*values: Tensor, log_masks: Tensor | None = None) -> None:
    """Check that a model's outputs are finite; synchronises host and device.

    Args:
        *values: latents or images, any shapes.
        log_masks: log probabilities, any shape; -inf is the probability 0.

    Raises:
        ValueError: if a value is NaN or infinite.
    """
    sound = [value.isfinite().all() for value in values]
    if log_masks is not None:
        sound.append((log_masks < math.inf).all())  # false for NaN
    if not bool(torch.stack(sound).all()):
        raise ValueError(
            "latents and masks must be finite, got NaN or infinity: the model's weights are broken."
        )


#: Default of every ``mask_geometry``: features of slots include their masks' geometry.
MASK_GEOMETRY = True
#: Default of every ``align``: objects keep their slots within an episode.
ALIGN = True


@dataclass(frozen=True, eq=False)
class Slots:
    """A scene as K object slots.

    A latent that a model lacks has width 0 instead of being None.

    Attributes:
        z_m: mask latents, shape (B, K, D_m), unbounded.
        z_c: component (appearance) latents, shape (B, K, D_c), unbounded.
        log_pi: log mixing probabilities, shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K.
    """

    z_m: Tensor
    z_c: Tensor
    log_pi: Tensor

    def __post_init__(self) -> None:
        """Check shapes; checks of values would synchronise host and device."""
        check_shape(self.z_m, (None,) * self.z_m.ndim, "z_m")  # that it is a tensor
        if self.z_m.ndim != 3:
            raise ValueError(f"z_m must have shape (B, K, D_m), got {tuple(self.z_m.shape)}.")
        b, k, _ = self.z_m.shape
        check_shape(self.z_c, (b, k, None), "z_c")
        check_shape(self.log_pi, (b, k, 1, None, None), "log_pi")

    @property
    def features(self) -> Tensor:
        """Both latents of each slot concatenated, shape (B, K, D_m + D_c)."""
        return torch.cat([self.z_m, self.z_c], dim=-1)

    def mask_geometry(self) -> Tensor:
        """Compute position and area of each slot's mask.

        Returns:
            (B, K, 3): row and column of the centroid in [-1, 1] (-1 is the centre of the top or
            left pixel) weighted by pi, and the share of the image's area in [0, 1].
        """
        pi = self.log_pi[:, :, 0].exp()  # (B, K, H, W)
        height, width = pi.shape[-2:]
        rows = torch.linspace(-1, 1, height, device=pi.device, dtype=pi.dtype)
        cols = torch.linspace(-1, 1, width, device=pi.device, dtype=pi.dtype)
        area = pi.sum((-2, -1))
        # The centroid of an empty slot is the image's centre instead of 0 / 0.
        mass = area.clamp_min(1e-6)
        row = (pi.sum(-1) * rows).sum(-1) / mass
        col = (pi.sum(-2) * cols).sum(-1) / mass
        return torch.stack([row, col, area / (height * width)], dim=-1)


def check_slots(slots: object) -> None:
    """Raise TypeError unless ``slots`` are Slots."""
    if not isinstance(slots, Slots):
        raise TypeError(f"slots must be Slots, as infer returns, got {type(slots).__name__}.")


class Decoded(NamedTuple):
    """Image-sized components: mu_x (B, K, 3, H, W) in [0, 1] and log_pi (B, K, 1, H, W) in nats."""

    mu_x: Tensor
    log_pi: Tensor

    @property
    def image(self) -> Tensor:
        """The mixture's mean, sum_k pi_k mu_x_k, shape (B, 3, H, W) in [0, 1]."""
        return (self.log_pi.exp() * self.mu_x).sum(1)


class ElboTerms(NamedTuple):
    """Terms of the evidence lower bound per image, in nats.

    Attributes:
        nll: negative log likelihood, shape (B,), summed over pixels and channels.
        kl_m: KL of the mask latents per slot, shape (B, K); single-sample estimates may be < 0.
        kl_c: KL of the component latents per slot, shape (B, K).
    """

    nll: Tensor
    kl_m: Tensor
    kl_c: Tensor

    @property
    def kl(self) -> Tensor:
        """Sum of all KL terms of an image, shape (B,)."""
        return self.kl_m.sum(1) + self.kl_c.sum(1)


class Noise(NamedTuple):
    """Standard normal draws for both latents, (B, K, D_m) and (B, K, D_c).

    ``inner`` is further noise of a model's inference (GENESIS-V2's seed map, the samples of
    IODINE's iterations), None for most models.
    """

    m: Tensor
    c: Tensor
    inner: Tensor | None = None


@runtime_checkable
class SceneModel(Protocol):
    """Interface of scene models, as used by wrappers, metrics, figures and imagination.

    ``x`` is (B, 3, H, W), float in [0, 1]. ``sample=False`` uses z = mu and is deterministic;
    otherwise noise is drawn by ``generator`` (or the global one). The base class
    `genesis_rl.models.base.BaseModel` implements most of the interface.

    Attributes:
        config: settings, with ``image_size`` and ``num_slots``.
        model_name: name of the model class, such as "genesis".
        preprocessing: conversion of frames to the model's images, a
            `genesis_rl.perception.preprocessing.Preprocessing`; None if unknown.
        refine_step_size: step size of `genesis_rl.models.refinement`.
    """

    config: Any
    model_name: ClassVar[str]
    preprocessing: Any
    refine_step_size: float

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c), the widths of the two latents."""

    @property
    def has_prior(self) -> bool:
        """Whether scenes are sampled slot by slot from an autoregressive prior."""

    @property
    def has_background(self) -> bool:
        """Whether the first slot is a background with a model of its own."""

    def infer(
        self, x: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Slots:
        """Infer the slots of images from the approximate posterior."""

    def infer_latents(self, x: Tensor) -> Tensor:
        """Infer the latents of `infer` alone, shape (B, K, D_m + D_c)."""

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks."""

    def redraw_masks(self, slots: Slots) -> Slots:
        """Return the slots with masks that depend on their latents alone."""

    def segmentation_masks(self, slots: Slots) -> Tensor:
        """Return the log masks of inferred slots at the images' size, shape (B, K, 1, H, W)."""

    def nll(self, x: Tensor, decoded: Decoded, *, pixel_weight: Tensor | None = None) -> Tensor:
        """Compute the negative log likelihood of images given decoded scenes, shape (B,), nats."""

    def log_responsibilities(self, x: Tensor, decoded: Decoded) -> Tensor:
        """Compute log p(k | x, z) of each pixel, shape (B, K, 1, H, W)."""

    def elbo(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
    ) -> ElboTerms:
        """Compute the ELBO terms; ``pixel_weight`` (B, 1, H, W) weights pixels in the nll."""

    def log_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Compute log p(x, z) - log q(z | x) at one posterior sample z, shape (B,), nats."""

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        noise: Noise | None = None,
    ) -> Slots:
        """Sample ``n`` novel scenes from the prior, with sigmas scaled by ``temperature``.

        ``noise``, standard normal, determines the scenes instead of ``generator``.
        """
