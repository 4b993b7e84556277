"""IODINE (Greff et al. 2019): iterative amortised inference of slots.

K slots have the same initial posterior. In every iteration they are sampled and decoded, and a
recurrent network shared by all slots updates each slot's posterior from likelihoods and the
gradient of the loss.

Source: Greff et al. 2019 (arXiv:1903.00450), sections 2 and 3; sizes, the inputs of the refinement
and their preprocessing as in its authors' released code
(github.com/google-deepmind/deepmind-research, iodine/, its settings for Multi-dSprites).
Differences from that code, besides those listed at `Iodine`:

- Components are Gaussian, as in the paper (released: logistic, scale 0.03), with means bounded to
  colours by a sigmoid (released: unbounded).
- The posterior's sigma is a softplus, as in the other models (released: its square is), and the
  prior is standard normal (released: of variance ln 2).
- Layer norm has no learned scale and offset; the following layer makes them redundant.
- Positions are encoded as row and column (released: 8 cosines for Multi-dSprites), convolutions of
  the decoder are unpadded over a larger map, and constant inputs are omitted.

The authors train for 1,000,000 updates by Adam (beta_1 = 0.95) with a batch size of 128, a learning
rate of 3e-4 that decays tenfold over the training (scaled by the square root of the batch size for
smaller batches), and gradients clipped to a norm of 5.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import (
    BaseModel,
    ImageSize,
    LstmState,
    SigmaX,
    SlotCount,
    at_least_float32,
    components_and_masks,
    no_latents,
)
from genesis_rl.models.blocks import BroadcastDecoder, coordinate_map
from genesis_rl.models.likelihood import (
    Gaussian,
    Mixture,
    joint_log_prob,
    kl_monte_carlo,
    kl_standard_normal,
    leave_one_out_logsumexp,
    standard_normal,
)
from genesis_rl.slots import Decoded, ElboTerms, Noise, Slots
from genesis_rl.utils.checks import Checked, Count, Counts, Must, Positive

# Image-sized inputs of the refinement: image 3, component 3, mask, mask logit, gradients of the
# component 3 and of the mask logit, mask posterior, log likelihood and its gain by this slot,
# coordinates 2.
_MAPS = 17


@dataclass(frozen=True)
class IodineConfig(Checked):
    """Architecture of IODINE; defaults are the authors' for Multi-dSprites, but K = 5 (not 6)."""

    image_size: ImageSize = 64
    """side of the images in pixels: 32, 64 or 128"""
    num_slots: SlotCount = 5
    """K, the number of slots, background included; at least 2"""
    num_iterations: Count = 5
    """T, updates of the posterior per image; at least 1"""
    component_latent_size: Count = 16
    """D_c, width of the latents"""
    kernel_size: Annotated[int, Must("odd and >= 1", lambda side: side > 0 and side % 2)] = 5
    """side of every convolution in pixels; odd"""
    decoder_channels: Count = 32
    """channels of the broadcast decoder"""
    refinement_channels: Counts = (32, 32, 32)
    """channels of the refinement network's stride-2 layers"""
    refinement_size: Count = 128
    """units of the refinement network's linear layer between convolutions and LSTM"""
    refinement_lstm_size: Count = 128
    """units of the refinement network's LSTM"""
    sigma_x: SigmaX = 0.1
    """standard deviation of every Gaussian component, in pixel units"""
    mixture: Mixture = "pixel"
    """mix the slots per "pixel" (the authors) over all channels, or per "channel" of colour"""
    posterior_sigma_min: Positive = 1e-8
    """least standard deviation of the posterior; 0.01 stabilises short trainings"""


class Iteration(NamedTuple):
    """Posterior of one iteration, its sample, and the decoded sample with its mask logits."""

    q: Gaussian
    z: Tensor
    decoded: Decoded
    logits: Tensor


class RefinementNetwork(nn.Module):
    """Recurrent network from maps and vectors of a slot to the update of its posterior."""

    def __init__(self, config: IodineConfig) -> None:
        """Build from the model's config."""
        super().__init__()
        width, side = 2 * config.component_latent_size, config.kernel_size
        layers: list[nn.Module] = []
        in_channels = _MAPS
        for channels in config.refinement_channels:
            layers += [nn.Conv2d(in_channels, channels, side, 2, side // 2), nn.ELU()]
            in_channels = channels
        self.convs = nn.Sequential(*layers)
        self.hidden = nn.Linear(in_channels, config.refinement_size)
        lstm_size = config.refinement_lstm_size
        self.lstm = nn.LSTMCell(config.refinement_size + 2 * width, lstm_size)
        self.head = nn.Linear(lstm_size, width)

    def forward(
        self, maps: Tensor, vectors: Tensor, state: LstmState | None
    ) -> tuple[Tensor, LstmState]:
        """Map (N, 17, H, W), (N, 4 D_c) and the LSTM's state to (N, 2 D_c) and the next state."""
        pooled = at_least_float32(self.convs(maps)).mean((2, 3))
        with torch.autocast(maps.device.type, enabled=False):
            state = self.lstm(torch.cat([self.hidden(pooled), vectors], 1), state)
            return self.head(state[0]), state


class Iodine(BaseModel):
    """IODINE: one latent z_c per slot (D_m = 0), inferred in T iterations.

    In training mode ``elbo`` averages the bounds after all iterations with weights t / T, scaled to
    sum to 1 (Greff et al. sum them, which differs by a factor); in eval mode it is the bound after
    the last iteration. All slots have the same initial posterior, so that inference requires noise
    even for a posterior mean: with ``sample=False`` the samples before the last use fixed noise,
    the same for all images, and the result is the mean.

    Inference differentiates the bound by the latents in any gradient mode; its results have
    gradients only if the caller enables them.
    """

    model_name = "iodine"
    config_class = IodineConfig
    config: IodineConfig
    coordinates: Tensor
    fixed_noise: Tensor

    def __init__(self, config: IodineConfig) -> None:
        """Build with PyTorch's default initialisation and a standard normal initial posterior."""
        super().__init__()
        self.config = config
        width, side = config.component_latent_size, config.image_size
        self.decoder = BroadcastDecoder(
            width,
            side,
            config.decoder_channels,
            4,
            kernel_size=config.kernel_size,
            head_kernel_size=config.kernel_size,
        )
        self.refinement = RefinementNetwork(config)
        self.first_mean = nn.Parameter(torch.zeros(width))
        # softplus(raw + 0.5) = 1
        self.first_sigma = nn.Parameter(torch.full((width,), math.log(math.e - 1) - 0.5))
        self.register_buffer("coordinates", coordinate_map(side), persistent=False)
        # NumPy guarantees that the stream of RandomState does not change.
        shape = (1, config.num_iterations, config.num_slots, width)
        normal = torch.from_numpy(np.random.RandomState(0).standard_normal(shape))
        fixed_noise = normal.to(torch.get_default_dtype())
        self.register_buffer("fixed_noise", fixed_noise, persistent=False)

    def decode(self, slots: Slots) -> Decoded:
        """Decode slots to components and masks; ``slots.log_pi`` is not used."""
        self._check_slots(slots)
        return self._decode_latents(slots.z_c)[0]

    def _decode_latents(self, z: Tensor) -> tuple[Decoded, Tensor]:
        """Decode latents (B, K, D_c) to components, masks and mask logits."""
        raw = at_least_float32(self.decoder(z.flatten(0, 1)))
        logits = raw[:, 3:].unflatten(0, z.shape[:2])
        return components_and_masks(raw, self.config.num_slots), logits

    # ---- computations given the noise --------------------------------------------------------

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Noise:
        """Draw noise of the last sample, and of those of all iterations, (B, T, K, D_c)."""
        m, c, _ = super()._noise(like, generator)
        shape = (len(like), self.config.num_iterations, *c.shape[1:])
        inner = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        return Noise(m, c, inner)

    def _infer_slots(self, x: Tensor, noise: Noise | None) -> Slots:
        step = self._iterate(x, noise)[-1]
        return Slots(no_latents(step.z), step.z, step.decoded.log_pi)

    def _score(self, x: Tensor, noise: Noise | None, pixel_weight: Tensor | None) -> ElboTerms:
        """Compute the terms of Greff et al. Eq. 3 and section 2.3, the KL in closed form."""
        steps = self._iterate(x, noise)
        used = steps if self.training else steps[-1:]
        last = len(steps)
        weights = [(last - len(used) + i) / last for i in range(1, len(used) + 1)]
        nll, kl = x.new_zeros(len(x)), x.new_zeros(len(x), self.config.num_slots)
        for weight, step in zip(weights, used, strict=True):
            share = weight / sum(weights)
            nll = nll + share * self.nll(x, step.decoded, pixel_weight=pixel_weight)
            kl = kl + share * kl_standard_normal(step.q)
        return ElboTerms(nll, torch.zeros_like(kl), kl)

    def _log_weight(self, x: Tensor, noise: Noise) -> Tensor:
        """Compute the log weight at the sample of the last iteration."""
        step = self._iterate(x, noise)[-1]
        kl = kl_monte_carlo(step.z, step.q, standard_normal(step.z))
        return -(self.nll(x, step.decoded) + kl.sum(1))

    def _generate(self, noise: Noise) -> Slots:
        """Sample slots from the prior: independent standard normal latents."""
        return Slots(noise.m, noise.c, self._decode_latents(noise.c)[0].log_pi)

    # ---- inference ---------------------------------------------------------------------------

    # torch.compile cannot trace gradients within the forward pass.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _iterate(self, x: Tensor, noise: Noise | None) -> list[Iteration]:
        """Return the iterations after each of T updates; without noise, the last has z = mu."""
        attached = torch.is_grad_enabled()
        batch, last = len(x), self.config.num_iterations
        inner = self.fixed_noise if noise is None or noise.inner is None else noise.inner
        steps: list[Iteration] = []
        with _differentiable(x.device.type):
            x, inner = x.clone(), inner.clone()  # autograd cannot save inference tensors
            raw = torch.cat([self.first_mean, self.first_sigma])
            raw = raw.expand(batch, self.config.num_slots, -1)
            state: LstmState | None = None
            for t in range(last + 1):
                if not (attached and raw.requires_grad):
                    raw = raw.detach().requires_grad_()
                q = self._posterior(raw)
                eps = inner[:, t] if t < last else noise and noise.c.clone()
                z = q.draw(eps)
                step = Iteration(q, z, *self._decode_latents(z))
                if t > 0:
                    steps.append(step if attached else _detached(step))
                if t < last:
                    raw, state = self._refine(x, raw, step, state, attached)
        return steps

    def _refine(
        self, x: Tensor, raw: Tensor, step: Iteration, state: LstmState | None, attached: bool
    ) -> tuple[Tensor, LstmState]:
        """Update the posterior's parameters (B, K, 2 D_c) of all slots.

        Gradients and likelihoods are inputs without gradient. The mask posterior is
        p(m_k | x, mu), under uniform masks.
        """
        mu_x, log_pi = step.decoded
        joint = joint_log_prob(x, mu_x, log_pi, self.config.sigma_x, self.config.mixture)
        log_p = joint.logsumexp(1, keepdim=True)
        loss = kl_standard_normal(step.q).sum() - log_p.sum()
        by_raw, by_mu_x = torch.autograd.grad(loss, (raw, mu_x), retain_graph=attached)
        with torch.no_grad():
            pi = log_pi.exp()
            by_logit = (pi - (joint - log_p).exp()).sum(2, keepdim=True)
            others = leave_one_out_logsumexp(joint) - leave_one_out_logsumexp(log_pi)
            gain = (log_p - others).sum(2, keepdim=True)
            normed = [
                _layer_norm(by_mu_x),
                _layer_norm(by_logit),
                _layer_norm(log_p.sum(2, keepdim=True)).expand_as(pi),
                _layer_norm(gain),
                self.coordinates.unsqueeze(1).expand(*mu_x.shape[:2], -1, -1, -1),
            ]
        with torch.set_grad_enabled(attached):
            images = x.unsqueeze(1).expand_as(mu_x)
            posterior = (joint - log_pi).softmax(1).mean(2, keepdim=True)
            maps = [images, mu_x, log_pi.exp(), step.logits, posterior, *normed]
            stacked = torch.cat(maps, 2).flatten(0, 1)
            vectors = torch.cat([raw, _layer_norm(by_raw)], 2).flatten(0, 1)
            update, state = self.refinement(
                stacked.contiguous(memory_format=torch.channels_last), vectors, state
            )
            return raw + update.view_as(raw), state


def _layer_norm(x: Tensor) -> Tensor:
    """Normalise each slot's map or vector (B, K, ...) to mean 0 and variance 1."""
    return F.layer_norm(x, x.shape[2:])


def _detached(step: Iteration) -> Iteration:
    q, z, decoded, logits = step
    decoded = Decoded(*(part.detach() for part in decoded))
    return Iteration(Gaussian(*(part.detach() for part in q)), z.detach(), decoded, logits.detach())


@contextmanager
def _differentiable(device_type: str) -> Iterator[None]:
    """Enable gradients, also within inference mode, at the caller's precision.

    Autocast's cache of converted weights is disabled, since those converted in inference mode
    cannot be differentiated.
    """
    precision = torch.autocast(
        device_type,
        dtype=torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
        cache_enabled=False,
    )
    with torch.inference_mode(False), torch.enable_grad(), precision:
        yield
