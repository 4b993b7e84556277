"""What the scene models share: the protocol's checks, noise and posteriors."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.blocks import check_image_size
from genesis_rl.checks import LARGEST, check_limits, check_range
from genesis_rl.likelihood import Gaussian, Mixture, log_responsibilities, mixture_nll
from genesis_rl.models.shareable import Shareable
from genesis_rl.slots import Decoded, ElboTerms, Slots, check_shape, check_slots

LstmState = tuple[Tensor, Tensor]

# Colours lie in [0, 1]; outside of this range float32 has no useful density of them.
_SIGMA_X = (1e-4, 1e4)


class Noise(NamedTuple):
    """Standard normal draws for both latents, (B, K, D_m) and (B, K, D_c).

    ``inner`` is what else a model's inference draws (GENESIS-V2's seed map, IODINE's samples on
    the way), None for most.
    """

    m: Tensor
    c: Tensor
    inner: Tensor | None = None


class BaseModel(Shareable):
    """The public side of a scene model; a subclass fills in the passes, given the noise.

    A subclass defines ``model_name`` and ``config_class``, ``latent_sizes``, ``decode``, and
    ``_infer_slots``, ``_score``, ``_generate``.

    Attributes:
        sigma_scale: factor on ``config.sigma_x``, above 1 while a training anneals it.
    """

    sigma_scale: float = 1.0

    @property
    def latent_sizes(self) -> tuple[int, int]:
        """(D_m, D_c), the widths of the two latents; 0 where a model has none of a kind."""
        raise NotImplementedError

    # ---- the protocol ------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> ElboTerms:
        """Same as ``elbo``: lets data-parallel wrappers see the training pass.

        Args:
            x: as for ``elbo``.
            sample: as for ``elbo``.
            generator: as for ``elbo``.
            pixel_weight: as for ``elbo``.
            share: (rank, of): ``x`` is the images rank, rank + of, ... of a batch that ``of``
                processes share; each draws the whole batch's noise and takes its own part, so that
                together they compute what one process would.
        """
        rank, of = share
        if of == 1:
            return self.elbo(x, sample=sample, generator=generator, pixel_weight=pixel_weight)
        self._check_images(x)
        noise = None
        if sample:
            whole = self._noise(x.new_empty(len(x) * of), generator)
            inner = None if whole.inner is None else whole.inner[rank::of]
            noise = Noise(whole.m[rank::of], whole.c[rank::of], inner)
        return self._score(x, noise, pixel_weight)

    def infer(
        self, x: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Slots:
        """Infer the slots of images from the approximate posterior.

        Args:
            x: images, shape (B, 3, H, W) in [0, 1], H = W = ``config.image_size``.
            sample: draw from the posterior; False takes its mean throughout.
            generator: source of the draws, on the images' device.

        Returns:
            Slots, with the masks of the images.

        Raises:
            ValueError: if ``x`` has another shape.
        """
        self._check_images(x)
        return self._infer_slots(x, self._noise(x, generator) if sample else None)

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks."""
        raise NotImplementedError

    def elbo(
        self,
        x: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        pixel_weight: Tensor | None = None,
    ) -> ElboTerms:
        """Terms of the evidence lower bound.

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

    def nll(self, x: Tensor, decoded: Decoded, *, pixel_weight: Tensor | None = None) -> Tensor:
        """Negative log likelihood of images given decoded scenes (paper Eq. 3).

        Args:
            x: images, shape (B, 3, H, W) in [0, 1].
            decoded: a scene each, as ``decode`` gives them.
            pixel_weight: weight of each pixel's part, shape (B, 1, H, W); None: all one.

        Returns:
            Shape (B,), nats, summed over pixels and channels.
        """
        config = self.config
        mixture: Mixture = getattr(config, "mixture", "channel")  # a VAE's one slot mixes nothing
        sigma_x = config.sigma_x * self.sigma_scale
        return mixture_nll(x, *decoded, sigma_x, mixture=mixture, pixel_weight=pixel_weight)

    def log_responsibilities(self, x: Tensor, decoded: Decoded) -> Tensor:
        """Log p(k | x, z), which slot each pixel is of: sharper than the masks pi = p(k | z).

        Args as for ``nll``.

        Returns:
            Shape (B, K, 1, H, W), nats <= 0; exp sums to 1 over K. See
            `genesis_rl.likelihood.log_responsibilities`.
        """
        return log_responsibilities(x, *decoded, self.config.sigma_x)

    def log_weight(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Log importance weight log p(x, z) - log q(z | x) at one z drawn from the posterior.

        p is the model that ``sample`` draws from, so that the weights' mean is the likelihood of
        an image among its samples. Training may use another objective (MONet) or a KL in closed
        form (IODINE): then ``elbo`` is not minus its sum.

        Args:
            x: images, shape (B, 3, H, W) in [0, 1].
            generator: source of the draws.

        Returns:
            Shape (B,), nats; in eval mode its expectation is the evidence lower bound.

        Raises:
            ValueError: if ``x`` has another shape.
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
            generator: source of the draws, on the model's device.
            temperature: factor on every prior sigma; 0 gives the prior's mean chain.
            noise: the draws themselves, (n, K, D_m) and (n, K, D_c), in place of the generator.

        Returns:
            Slots of ``n`` scenes.

        Raises:
            ValueError: if ``n`` is below 1 or above `genesis_rl.checks.LARGEST`, or
                ``temperature`` is negative or not finite.
        """
        if n < 1:
            raise ValueError(f"n is {n}; wanted at least 1 scene.")
        check_range("n", n, 1, LARGEST["n"])
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature is {temperature}; wanted a value >= 0 that is finite.")
        if noise is None:
            noise = self._noise(next(self.parameters()).new_empty(n), generator)
        return self._generate(Noise(noise.m * temperature, noise.c * temperature))

    # ---- the passes, given the noise; None takes z = mu throughout -----------------------------

    def _infer_slots(self, x: Tensor, noise: Noise | None) -> Slots:
        raise NotImplementedError

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        raise NotImplementedError

    def _log_weight(self, x: Tensor, noise: Noise) -> Tensor:
        """Of a model whose KL terms are log q - log p at the sample that is scored."""
        terms = self._score(x, noise, None)
        return -(terms.nll + terms.kl)

    def _generate(self, noise: Noise) -> Slots:
        raise NotImplementedError

    # ---- checks, noise, parts ----------------------------------------------------------------

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
        """Halves of (..., 2 D) to mean and sigma = softplus(raw + bias) + floor, bias 0.5."""
        mu, sigma = at_least_float32(raw).chunk(2, -1)
        bias = getattr(self.config, "posterior_sigma_bias", 0.5)
        return Gaussian(mu, F.softplus(sigma + bias) + self.config.posterior_sigma_floor)


def at_least_float32(x: Tensor) -> Tensor:
    """Leave the half precisions: latents, masks and densities are never smaller than float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_latents(like: Tensor) -> Tensor:
    """Latents of width 0 for slots of shape (B, K, ...)."""
    return like.new_empty(*like.shape[:2], 0)


def slot_maps(*maps: Tensor) -> Tensor:
    """Every slot's maps over each other: (B*K, C, H, W), b-major, channels last in memory.

    Args:
        maps: in the order of their channels, each slot's own (B, K, c, H, W) or the same for all
            slots (B, c, H, W); at least one has slots.
    """
    num_slots = next(m.shape[1] for m in maps if m.ndim == 5)
    each = [m if m.ndim == 5 else m.unsqueeze(1).expand(-1, num_slots, -1, -1, -1) for m in maps]
    return torch.cat(each, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def components_and_masks(raw: Tensor, num_slots: int) -> Decoded:
    """Split a component decoder's output into colours and masks that compete for each pixel.

    Args:
        raw: (B*K, 4, H, W), b-major: colour, then mask logit, both unbounded.
        num_slots: K.

    Returns:
        mu_x = sigmoid(colour) and log_pi = log_softmax(logits) over the slots.
    """
    raw = at_least_float32(raw).unflatten(0, (-1, num_slots))
    return Decoded(torch.sigmoid(raw[:, :, :3]), F.log_softmax(raw[:, :, 3:], dim=1))


# ---- checks of configs -----------------------------------------------------------------------


def check_shared(config: Any) -> None:
    """Raise ValueError unless the fields that all models of several slots have are in range."""
    check_sizes(config)
    if config.num_slots < 2:
        raise ValueError(f"num_slots is {config.num_slots}; wanted at least 2 (K slots).")
    if config.mixture not in ("channel", "pixel"):
        raise ValueError(f"mixture is {config.mixture!r}; wanted 'channel' or 'pixel'.")


def check_sizes(config: Any) -> None:
    """Raise ValueError unless the sizes and standard deviations of any model are in range."""
    check_image_size(config.image_size)
    check_limits(config)
    check_range("sigma_x", config.sigma_x, *_SIGMA_X)
    check_positive(config, "posterior_sigma_floor")


def check_positive(config: Any, *names: str) -> None:
    """Raise ValueError unless the named fields are > 0 and finite."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(
                f"{name} is {getattr(config, name)}; wanted a value > 0 that is finite."
            )


def check_counts(config: Any, *names: str) -> None:
    """Raise ValueError unless the named fields are at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; wanted at least 1.")


def check_channels(config: Any, name: str, layers: int | None = None) -> None:
    """Raise ValueError unless a field holds one channel count >= 1 per layer."""
    channels = getattr(config, name)
    if not channels or min(channels) < 1 or layers not in (None, len(channels)):
        want = "five" if layers == 5 else "at least one"
        raise ValueError(f"{name} is {channels}; wanted {want} channel counts >= 1.")
