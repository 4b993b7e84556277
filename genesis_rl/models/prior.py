"""Autoregressive priors: densities, sampling, and generation of scenes slot by slot."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genesis_rl.models.base import BaseModel, LstmState
from genesis_rl.models.likelihood import (
    Gaussian,
    GaussianMixture,
    Prior,
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
    """

    prior_lstm: nn.LSTMCell
    prior_head: nn.Linear
    conditional: bool = True
    prior_components: int = 1

    @property
    def has_prior(self) -> bool:
        """True: scenes are sampled slot by slot."""
        return True

    def _prior_step(
        self, z_prev: Tensor | None, state: LstmState | None, like: Tensor
    ) -> tuple[Prior, LstmState | None]:
        """Return p(z_k | z_<k), for densities and for sampling.

        Args:
            z_prev: latents of the previous slot, (B, D); None for the first slot, whose prior is
                the standard normal.
            state: state of the LSTM after the previous step; None for the first two slots.
            like: a tensor of the latents' shape, dtype and device.

        Returns:
            The slot's prior and the LSTM's state.
        """
        if z_prev is None:
            return self._standard_prior(like), None
        state = self.prior_lstm(z_prev if self.conditional else torch.zeros_like(z_prev), state)
        return learned_prior(self.prior_head(state[0]), self.prior_components), state

    def _standard_prior(self, like: Tensor) -> Prior:
        """Return N(0, I) of a tensor's shape, of the class of the learned priors."""
        if self.prior_components == 1:
            return standard_normal(like)
        return standard_mixture(like, self.prior_components)

    def _prior_of(self, z: Tensor) -> Prior:
        """Return the prior of every slot given latents (B, K, D)."""
        steps: list[Prior] = []
        state: LstmState | None = None
        z_prev = None
        with torch.autocast(z.device.type, enabled=False):
            for z_k in z.unbind(1):
                step, state = self._prior_step(z_prev, state, z_k)
                steps.append(step)
                z_prev = z_k
        fields = zip(*steps, strict=True)
        return type(steps[0])(*(torch.stack(field, 1) for field in fields))

    def _prior_sample(self, eps: Tensor) -> Tensor:
        """Sample latents (B, K, D) slot by slot from noise (B, K, D)."""
        z: list[Tensor] = []
        state: LstmState | None = None
        with torch.autocast(eps.device.type, enabled=False):
            for eps_k in eps.unbind(1):
                p, state = self._prior_step(z[-1] if z else None, state, eps_k)
                z.append(p.draw(eps_k))
        return torch.stack(z, 1)


def prior_size(latent_size: int, num_components: int) -> int:
    """Return the width of the input of `learned_prior`."""
    return 2 * latent_size if num_components == 1 else (2 * latent_size + 1) * num_components


def learned_prior(raw: Tensor, num_components: int = 1) -> Prior:
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
