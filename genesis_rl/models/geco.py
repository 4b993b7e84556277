"""GECO: minimisation of the KL under a reconstruction constraint (Rezende & Viola 2018)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genesis_rl.utils.checks import Checked, PartialShare, Positive

# Number of pixels of the images of the paper, over which the error is summed for its step size.
_PAPER_PIXELS = 64 * 64


@dataclass(frozen=True)
class GecoConfig(Checked):
    """GECO's settings; defaults are those of GENESIS (paper appendix B.4).

    ``goal`` and ``step_size`` are independent of the image size.
    """

    goal: float = 0.5655
    """target reconstruction error per pixel and channel, in nats"""
    step_size: Positive = 1e-5
    """step of log beta per nat of summed error at 64x64 px; scaled by 64 * 64 / (H * W)"""
    speedup: Positive = 10.0
    """factor on the step while the goal is met (beta increases)"""
    alpha: PartialShare = 0.99
    """decay of the moving average of the error"""
    beta_init: Positive = 1.0
    """weight of the KL at the start"""
    beta_min: Positive = 1e-10
    """minimum of beta; 1e-3 avoids divergence of the KL in short trainings"""

    def goal_mse(self, sigma_x: float) -> float:
        """Return the squared error per channel at which a single Gaussian meets the goal."""
        return 2 * sigma_x**2 * (self.goal - min_error(sigma_x))


def min_error(sigma_x: float) -> float:
    """Return the error of a perfect reconstruction, in nats per pixel and channel.

    The density of a mixture of Gaussians never exceeds the peak of a single one.
    """
    return math.log(sigma_x * math.sqrt(2 * math.pi))


class Geco(nn.Module):
    """GECO's loss and update of beta; beta and the error's moving average are buffers.

    Source: Rezende & Viola 2018 and the authors' code: the loss uses beta before its update; the
    moving average is initialised by the first error; the speed-up applies while the goal is met.
    """

    beta: Tensor
    err_ema: Tensor

    def __init__(
        self,
        goal: float,
        step_size: float,
        *,
        alpha: float = 0.99,
        beta_init: float = 1.0,
        beta_min: float = 1e-10,
        speedup: float = 1.0,
    ) -> None:
        """Build with goal and step size in the units of the errors passed to ``forward``.

        Args:
            goal: target error, nats per image (summed over pixels and channels).
            step_size: step of log beta per nat of the constraint.
            alpha: decay of the error's moving average.
            beta_init: initial beta.
            beta_min: minimum of beta.
            speedup: factor on the step while the goal is met (beta increases).
        """
        super().__init__()
        self.goal, self.step_size = goal, step_size
        self.alpha, self.beta_min, self.speedup = alpha, beta_min, speedup
        # float64: late in training, steps of log beta are below the resolution of float32.
        self.register_buffer("beta", torch.tensor(beta_init, dtype=torch.float64))
        self.register_buffer("err_ema", torch.tensor(float("nan"), dtype=torch.float64))

    @classmethod
    def from_config(cls, config: GecoConfig, image_size: int) -> "Geco":
        """Build for RGB images of ``image_size`` pixels a side."""
        pixels = image_size * image_size
        return cls(
            config.goal * 3 * pixels,
            config.step_size * _PAPER_PIXELS / pixels,
            alpha=config.alpha,
            beta_init=config.beta_init,
            beta_min=config.beta_min,
            speedup=config.speedup,
        )

    def forward(self, err: Tensor, kl: Tensor) -> Tensor:
        """Return the loss err + beta * kl with the current beta; both are scalars in nats."""
        return err + self.beta.to(err.dtype) * kl

    @torch.no_grad()
    def update(self, err: Tensor) -> None:
        """Update beta from the error of a step, without synchronising host and device.

        Args:
            err: scalar in nats, averaged over the batch and all ranks.
        """
        err = err.detach().to(self.err_ema.dtype)
        first = self.err_ema.isnan()
        ema = torch.where(first, err, self.alpha * self.err_ema + (1 - self.alpha) * err)
        constraint = self.goal - ema
        factor = torch.where(constraint > 0, self.speedup, 1.0)
        beta = self.beta * torch.exp(self.step_size * constraint * factor)
        self.err_ema.copy_(ema)
        self.beta.copy_(beta.clamp_min(self.beta_min))
