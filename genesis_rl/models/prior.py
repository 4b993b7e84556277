"""Learned priors that draw a scene slot by slot; the same steps score, sample and build."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genesis_rl.likelihood import Gaussian
from genesis_rl.models.base import BaseModel, LstmState, Noise


class NextSlot(NamedTuple):
    """A slot that was drawn from the prior given those before it.

    Attributes:
        z_m: mask latents, (B, D_m).
        z_c: component latents, (B, D_c).
        log_p: log density of both under the prior, (B,), nats.
        state: of the prior, for the slot after it.
    """

    z_m: Tensor
    z_c: Tensor
    log_p: Tensor
    state: LstmState | None


@runtime_checkable
class SceneBuilder(Protocol):
    """A model whose prior draws a scene slot by slot."""

    def next_slot(
        self, noise: Noise, previous: Tensor | None = None, state: LstmState | None = None
    ) -> NextSlot:
        """Draw the next slot of B scenes, or B candidates for the next slot of one.

        Args:
            noise: standard normal draws, (B, D_m) and (B, D_c); smaller ones sample at a lower
                temperature.
            previous: both latents of the slot before, (B, D_m + D_c), or (1, D_m + D_c) for
                candidates; None at the first slot.
            state: the prior's, after the slot before; None at the first two slots.

        Returns:
            The slot, with its density under the prior at temperature 1.
        """


def builds_scenes(model: object) -> bool:
    """Tell whether a model is a `SceneBuilder`, or a student of one, whose prior it shares."""
    return isinstance(getattr(model, "teacher", model), SceneBuilder)


class StepwiseModel(BaseModel):
    """A scene model with the paper's autoregressive prior over one of its latents (Eq. 1).

    A subclass sets ``prior_lstm`` and ``prior_head``, and ``next_slot`` by `_prior_step`.

    Attributes:
        prior_lstm: reads the latents of the slots so far.
        prior_head: its state to the next slot's distribution.
        conditional: False has the LSTM read zeros in the place of latents, so that slots are
            independent; all else stays, each slot's own distribution too.
    """

    prior_lstm: nn.LSTMCell
    prior_head: nn.Linear
    conditional: bool = True

    def _prior_step(
        self, z_prev: Tensor | None, state: LstmState | None, like: Tensor
    ) -> tuple[Gaussian, LstmState | None]:
        """p(z_k | z_<k), for scoring and for sampling alike.

        Args:
            z_prev: the latents of the slot before, (B, D); None at the first slot, whose prior is
                the standard normal.
            state: the LSTM's state after the step before; None at the first two slots.
            like: a tensor of the latents' shape, dtype and device.

        Returns:
            The slot's prior and the LSTM's state.
        """
        if z_prev is None:
            return Gaussian(torch.zeros_like(like), torch.ones_like(like)), None
        state = self.prior_lstm(z_prev if self.conditional else torch.zeros_like(z_prev), state)
        return learned_prior(self.prior_head(state[0])), state

    def _prior_of(self, z: Tensor) -> Gaussian:
        """The prior's parameters at given latents (B, K, D)."""
        steps: list[Gaussian] = []
        state: LstmState | None = None
        z_prev = None
        with torch.autocast(z.device.type, enabled=False):
            for z_k in z.unbind(1):
                step, state = self._prior_step(z_prev, state, z_k)
                steps.append(step)
                z_prev = z_k
        return stack_gaussians(steps)

    def _prior_sample(self, eps: Tensor) -> Tensor:
        """Ancestral sampling with the steps that training scores with, from noise (B, K, D)."""
        z: list[Tensor] = []
        state: LstmState | None = None
        with torch.autocast(eps.device.type, enabled=False):
            for eps_k in eps.unbind(1):
                p, state = self._prior_step(z[-1] if z else None, state, eps_k)
                z.append(p.draw(eps_k))
        return torch.stack(z, 1)


def learned_prior(raw: Tensor) -> Gaussian:
    """Learned prior: bounded mean tanh(raw), sigma = sigmoid(raw + 4) + 1e-4.

    The authors' released code of GENESIS leaves the tanh out when sampling, and so samples from
    another prior than it trained; here both go through this function.
    """
    mu, sigma = raw.chunk(2, -1)
    return Gaussian(torch.tanh(mu), torch.sigmoid(sigma + 4.0) + 1e-4)


def stack_gaussians(steps: list[Gaussian]) -> Gaussian:
    """Put the distributions of K slots side by side: (B, D) each to (B, K, D)."""
    return Gaussian(torch.stack([s.mu for s in steps], 1), torch.stack([s.sigma for s in steps], 1))
