"""Base class of scene models: public methods, argument checks, noise and posteriors."""

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.checkpoints.shareable import Shareable
from genesis_rl.models.blocks import GATED_STRIDES
from genesis_rl.models.likelihood import Gaussian, Mixture, log_responsibilities, mixture_nll
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots, check_shape, check_slots
from genesis_rl.utils.checks import LARGEST, Count, at_least, check_range, one_of, within

LstmState = tuple[Tensor, Tensor]

ImageSize = Annotated[int, one_of(GATED_STRIDES)]
SlotCount = Annotated[int, at_least(2)]
FiveCounts = tuple[Count, Count, Count, Count, Count]
#: Within this range the density of colours in [0, 1] is accurate in float32.
SigmaX = Annotated[float, within(1e-4, 1e4)]


class Inference(NamedTuple):
    """Slots of images, and the posterior of their component latents; every field (B, K, ...)."""

    slots: Slots
    q_c: Gaussian


class BaseModel(Shareable):
    """Base class of scene models.

    A subclass defines ``model_name``, ``config_class`` and ``decode``, and the functions of the
    noise ``_infer`` (or ``_infer_slots``), ``_score`` and ``_generate``.

    Images ``x`` have shape (B, 3, H, W) in [0, 1], H = W = ``config.image_size``; another shape
    raises ValueError. ``sample`` draws latents from the posterior by a random ``generator`` on the
    images' device; False uses its mean. ``pixel_weight``, (B, 1, H, W), weights each pixel in the
    nll; None: all 1.

    Attributes:
        sigma_scale: factor on ``config.sigma_x``, annealed to 1 in training.
        refine_step_size: step size of `genesis_rl.models.refinement`.
    """

    sigma_scale: float = 1.0
    refine_step_size: float = 0.1

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c), the widths of the two latents; 0 for a latent the model does not have."""
        mask: int = getattr(self.config, "mask_latent_size", 0)
        return mask, getattr(self.config, "component_latent_size", 0)

    @property
    def has_prior(self) -> bool:
        """Whether scenes are sampled slot by slot from an autoregressive prior."""
        return False

    @property
    def has_background(self) -> bool:
        """Whether the first slot is a background with a model of its own."""
        return False

    # ---- public methods ----------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> ElboTerms:
        """Compute ``elbo``, as the forward pass of data-parallel wrappers.

        ``share`` is (rank, world size) of a batch split across processes: ``x`` contains the images
        rank, rank + world size, ... of the batch. Each process draws the noise of the whole batch
        and uses its own part, so that results equal those of a single process.
        """
        rank, world_size = share
        if world_size == 1:
            return self.elbo(x, sample=sample, generator=generator, pixel_weight=pixel_weight)
        self._check_images(x)
        noise = None
        if sample:
            m, c, inner = self._noise(x.new_empty(len(x) * world_size), generator)
            inner = None if inner is None else inner[rank::world_size]
            noise = Noise(m[rank::world_size], c[rank::world_size], inner)
        return self._score(x, noise, pixel_weight)

    def infer(
        self, x: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Slots:
        """Infer the slots of images, with their masks, from the approximate posterior."""
        self._check_images(x)
        return self._infer_slots(x, self._noise(x, generator) if sample else None)

    def infer_latents(self, x: Tensor) -> Tensor:
        """Infer the latents of `infer` alone, without masks where they cost extra.

        Returns:
            Posterior means of z_m and z_c, (B, K, D_m + D_c).
        """
        return self.infer(x).features

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks."""
        raise NotImplementedError

    def redraw_masks(self, slots: Slots) -> Slots:
        """Return the slots with masks that depend on their latents alone.

        The masks of most models do anyway; those of a MONet's or a student's inferred slots do not.
        """
        return slots

    def segmentation_masks(self, slots: Slots) -> Tensor:
        """Return the log masks of inferred slots at the images' size, (B, K, 1, H, W)."""
        return slots.log_pi

    def elbo(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
    ) -> ElboTerms:
        """Compute the evidence lower bound in nats: nll (B,), kl_m (B, K) and kl_c (B, K)."""
        self._check_images(x)
        return self._score(x, self._noise(x, generator) if sample else None, pixel_weight)

    def nll(self, x: Tensor, decoded: Decoded, *, pixel_weight: Tensor | None = None) -> Tensor:
        """Compute the negative log likelihood of images given decoded scenes (paper Eq. 3).

        Returns:
            Shape (B,), nats, summed over pixels and channels.
        """
        config = self.config
        mixture: Mixture = getattr(config, "mixture", "channel")  # a VAE has one slot
        sigma_x = config.sigma_x * self.sigma_scale
        return mixture_nll(x, *decoded, sigma_x, mixture=mixture, pixel_weight=pixel_weight)

    def log_responsibilities(self, x: Tensor, decoded: Decoded) -> Tensor:
        """Compute log p(k | x, z), the posterior assignment of each pixel to a slot.

        In contrast to the masks pi = p(k | z), it depends on the pixel's
        colour.

        Returns:
            Shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K. See
            `genesis_rl.models.likelihood.log_responsibilities`.
        """
        return log_responsibilities(x, *decoded, self.config.sigma_x)

    def log_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Compute the log importance weight log p(x, z) - log q(z | x) at one posterior sample z.

        p is the generative model of ``sample``, so that the mean of the weights estimates p(x).
        It equals the negative sum of the terms of ``elbo`` except for models with another
        training objective (MONet) or a KL in closed form (IODINE).

        Returns:
            Shape (B,), nats; in eval mode its expectation is the evidence lower bound.
        """
        self._check_images(x)
        return self._log_weight(x, self._noise(x, generator))

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        noise: Noise | None = None,
    ) -> Slots:
        """Sample novel scenes from the prior.

        Args:
            n: number of scenes, at least 1.
            generator: random generator on the model's device.
            temperature: factor on every prior sigma; at 0 each slot is the prior's mean given the
                previous slots.
            noise: standard normal noise, (n, K, D_m) and (n, K, D_c), instead of a generator.

        Returns:
            Slots of ``n`` scenes.

        Raises:
            ValueError: if ``n`` is below 1 or above `genesis_rl.utils.checks.LARGEST`, or
                ``temperature`` is negative or not finite.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}.")
        check_range("n", n, 1, LARGEST["n"])
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be finite and >= 0, got {temperature}.")
        if noise is None:
            noise = self._noise(next(self.parameters()).new_empty(n), generator)
        return self._generate(Noise(noise.m * temperature, noise.c * temperature))

    # ---- computations given the noise; None: z = mu -------------------------------------------

    def _infer(self, x: Tensor, noise: Noise | None) -> Inference:
        raise NotImplementedError

    def _infer_slots(self, x: Tensor, noise: Noise | None) -> Slots:
        return self._infer(x, noise).slots

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        raise NotImplementedError

    def _log_weight(self, x: Tensor, noise: Noise) -> Tensor:
        """Compute the log weight of a model with single-sample estimates of the KL."""
        terms = self._score(x, noise, None)
        return -(terms.nll + terms.kl)

    def _generate(self, noise: Noise) -> Slots:
        raise NotImplementedError

    # ---- checks, noise, posterior -------------------------------------------------------------

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
        check_slots(slots)
        d_m, d_c = self.latent_sizes
        check_shape(slots.z_m, (None, self.config.num_slots, d_m), "slots.z_m")
        check_shape(slots.z_c, (None, self.config.num_slots, d_c), "slots.z_c")

    def _posterior(self, raw: Tensor) -> Gaussian:
        """Split (..., 2 D) into mu and sigma = softplus(raw + bias) + posterior_sigma_min."""
        mu, sigma = at_least_float32(raw).chunk(2, -1)
        bias = getattr(self.config, "posterior_sigma_bias", 0.5)
        return Gaussian(mu, F.softplus(sigma + bias) + self.config.posterior_sigma_min)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32, for latents, masks and densities."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_latents(like: Tensor) -> Tensor:
    """Return latents of width 0 for slots of shape (B, K, ...)."""
    return like.new_empty(*like.shape[:2], 0)


def slot_maps(*maps: Tensor) -> Tensor:
    """Concatenate maps of slots along channels: (B*K, C, H, W), b-major, channels last in memory.

    Args:
        maps: maps per slot (B, K, c, H, W) or shared by all slots (B, c, H, W), at least one of
            them per slot.
    """
    num_slots = next(m.shape[1] for m in maps if m.ndim == 5)
    expanded = [
        m if m.ndim == 5 else m.unsqueeze(1).expand(-1, num_slots, -1, -1, -1) for m in maps
    ]
    return torch.cat(expanded, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def components_and_masks(raw: Tensor, num_slots: int) -> Decoded:
    """Split the output of a component decoder into colours and masks, normalised over the slots.

    Args:
        raw: (B*K, 4, H, W), b-major: colour, then mask logit, both unbounded.
        num_slots: K.

    Returns:
        mu_x = sigmoid(colour) and log_pi = log_softmax(logits) over the slots.
    """
    raw = at_least_float32(raw).unflatten(0, (-1, num_slots))
    return Decoded(torch.sigmoid(raw[:, :, :3]), F.log_softmax(raw[:, :, 3:], dim=1))
