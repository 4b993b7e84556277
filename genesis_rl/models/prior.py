"""Autoregressive priors: densities, sampling, and generation of scenes slot by slot."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import BaseModel, LstmState
from genesis_rl.models.likelihood import (
    FlowPrior,
    Gaussian,
    GaussianMixture,
    Prior,
    SlotPrior,
    join,
    stack,
    standard_mixture,
    standard_normal,
)
from genesis_rl.slots import Noise


class NextSlot(NamedTuple):
    """A slot drawn from the prior given the slots before.

    Attributes:
        z_m: mask latents, (B, D_m).
        z_c: component latents, (B, D_c).
        log_p: log density of both under the prior, (B,), nats.
        state: state of the prior for the following slot.
    """

    z_m: Tensor
    z_c: Tensor
    log_p: Tensor
    state: LstmState | None


@runtime_checkable
class SceneBuilder(Protocol):
    """A model whose prior generates a scene slot by slot."""

    def next_slot(
        self, noise: Noise, previous: Tensor | None = None, state: LstmState | None = None
    ) -> NextSlot:
        """Draw the next slot of B scenes, or B candidates for the next slot of one scene.

        Args:
            noise: standard normal noise, (B, D_m) and (B, D_c), scaled by a temperature.
            previous: both latents of the previous slot, (B, D_m + D_c), or (1, D_m + D_c) for
                candidates; None for the first slot.
            state: state of the prior after the previous slot; None for the first two slots.

        Returns:
            The slot, with its density under the prior at temperature 1.
        """


class StepwiseModel(BaseModel):
    """A scene model with the paper's autoregressive prior over one of its latents (Eq. 1).

    A subclass sets ``prior_lstm`` and ``prior_head``, and implements ``next_slot`` by
    `_prior_step`.

    Attributes:
        prior_lstm: LSTM over the latents of the slots so far.
        prior_head: linear layer from the LSTM's output to the next slot's distribution.
        conditional: if False, the LSTM's inputs are zeros instead of latents, so that slots are
            independent, each with a distribution of its own.
        prior_components: number of Gaussians of a learned prior; 1 in the paper.
        prior_flow: flow of the learned prior given the LSTM's output; None in the paper.
        prior_first_flow: flow of the first slot's prior, without context; None in the paper.
    """

    prior_lstm: nn.LSTMCell
    prior_head: nn.Linear
    conditional: bool = True
    prior_components: int = 1
    prior_flow: "CouplingFlow | None"
    prior_first_flow: "CouplingFlow | None"

    def __init__(self) -> None:
        """Set no flows."""
        super().__init__()
        self.prior_flow = self.prior_first_flow = None

    @property
    def has_prior(self) -> bool:
        """True: scenes are sampled slot by slot."""
        return True

    def _prior_step(
        self, z_prev: Tensor | None, state: LstmState | None, like: Tensor
    ) -> tuple[SlotPrior, LstmState | None]:
        """Return p(z_k | z_<k), for densities and for sampling.

        Args:
            z_prev: latents of the previous slot, (B, D); None for the first slot, whose prior is
                the standard normal, unless it has a flow.
            state: state of the LSTM after the previous step; None for the first two slots.
            like: a tensor of the latents' shape, dtype and device.

        Returns:
            The slot's prior and the LSTM's state.
        """
        if z_prev is None:
            empty = like.new_zeros(*like.shape[:-1], 0)
            return with_flow(self._standard_prior(like), self.prior_first_flow, empty), None
        state = self.prior_lstm(z_prev if self.conditional else torch.zeros_like(z_prev), state)
        p = learned_prior(self.prior_head(state[0]), self.prior_components)
        return with_flow(p, self.prior_flow, state[0]), state

    def _standard_prior(self, like: Tensor) -> Gaussian | GaussianMixture:
        """Return N(0, I) of a tensor's shape, of the class of the learned priors."""
        if self.prior_components == 1:
            return standard_normal(like)
        return standard_mixture(like, self.prior_components)

    def _prior_of(self, z: Tensor) -> Prior:
        """Return the prior of every slot given latents (B, K, D)."""
        steps: list[SlotPrior] = []
        state: LstmState | None = None
        z_prev = None
        with torch.autocast(z.device.type, enabled=False):
            for z_k in z.unbind(1):
                step, state = self._prior_step(z_prev, state, z_k)
                steps.append(step)
                z_prev = z_k
        return join(stack(steps[:1]), stack(steps[1:]))

    def _prior_sample(self, eps: Tensor) -> Tensor:
        """Sample latents (B, K, D) slot by slot from noise (B, K, D)."""
        z: list[Tensor] = []
        state: LstmState | None = None
        with torch.autocast(eps.device.type, enabled=False):
            for eps_k in eps.unbind(1):
                p, state = self._prior_step(z[-1] if z else None, state, eps_k)
                z.append(p.draw(eps_k))
        return torch.stack(z, 1)


class CouplingFlow(nn.Module):
    """Affine coupling layers (Dinh et al. 2017, arXiv:1605.08803), initially near the identity.

    Each layer scales and shifts one half of the latents, by a network of the other half and of the
    context. Logarithms of scales are in (-2, 2).
    """

    def __init__(self, size: int, context_size: int, hidden_size: int, num_layers: int) -> None:
        """Build from the widths of latents, context and hidden layers."""
        super().__init__()
        self.first_half = size // 2
        sizes = self.first_half, size - self.first_half
        self.layers = nn.ModuleList()
        for layer in range(num_layers):
            given, changed = sizes[:: 1 if layer % 2 == 0 else -1]
            last = nn.Linear(hidden_size, 2 * changed)
            nn.init.normal_(last.weight, std=1e-3)
            nn.init.zeros_(last.bias)
            self.layers.append(
                nn.Sequential(
                    nn.Linear(given + context_size, hidden_size),
                    nn.ELU(),
                    nn.Linear(hidden_size, hidden_size),
                    nn.ELU(),
                    last,
                )
            )

    def forward(self, u: Tensor, context: Tensor) -> Tensor:
        """Map u to z, both (..., D), given a context (..., H)."""
        halves = [u[..., : self.first_half], u[..., self.first_half :]]
        for layer in reversed(range(len(self.layers))):
            shift, log_scale = self._affine(layer, halves, context)
            changed = 1 - layer % 2
            halves[changed] = halves[changed] * log_scale.exp() + shift
        return torch.cat(halves, -1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u, and the logarithm of |det du/dz|, (...)."""
        halves = [z[..., : self.first_half], z[..., self.first_half :]]
        log_det = z.new_zeros(z.shape[:-1])
        for layer in range(len(self.layers)):
            shift, log_scale = self._affine(layer, halves, context)
            changed = 1 - layer % 2
            halves[changed] = (halves[changed] - shift) * (-log_scale).exp()
            log_det = log_det - log_scale.sum(-1)
        return torch.cat(halves, -1), log_det

    def _affine(
        self, layer: int, halves: Sequence[Tensor], context: Tensor
    ) -> tuple[Tensor, Tensor]:
        given = torch.cat([halves[layer % 2], context], -1)
        with torch.autocast(given.device.type, enabled=False):
            shift, log_scale = self.layers[layer](given).chunk(2, -1)
        return shift, 2 * torch.tanh(log_scale / 2)


def with_flow(
    base: Gaussian | GaussianMixture, flow: CouplingFlow | None, context: Tensor
) -> SlotPrior:
    """Return a prior transformed by a flow, if there is one."""
    return base if flow is None else FlowPrior(base, flow, context)


def prior_size(latent_size: int, num_components: int) -> int:
    """Return the width of the input of `learned_prior`."""
    return 2 * latent_size if num_components == 1 else (2 * latent_size + 1) * num_components


def learned_prior(raw: Tensor, num_components: int = 1) -> Gaussian | GaussianMixture:
    """Return the prior of raw parameters: mean tanh(raw), sigma = sigmoid(raw + 4) + 1e-4.

    Components of a mixture have unbounded means and sigma = softplus(raw) + 0.01.

    The authors' released code of GENESIS omits the tanh in sampling, and so samples from another
    prior than the trained one; here both use this function.
    """
    if num_components == 1:
        mu, sigma = raw.chunk(2, -1)
        return Gaussian(torch.tanh(mu), torch.sigmoid(sigma + 4.0) + 1e-4)
    weight, rest = raw.tensor_split([num_components], -1)
    mu, sigma = rest.unflatten(-1, (num_components, -1)).chunk(2, -1)
    return GaussianMixture(weight.log_softmax(-1), mu, F.softplus(sigma) + 0.01)


def spread_components(head: nn.Linear, num_components: int) -> None:
    """Initialise the means of a mixture, biases of the last layer, by N(0, .5^2)."""
    if num_components > 1:
        mu = head.bias.detach()[num_components:].unflatten(0, (num_components, -1)).chunk(2, 1)[0]
        nn.init.normal_(mu, std=0.5)
