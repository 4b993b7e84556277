"""Training by several processes that compute, together, what one would."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class LostProcessError(RuntimeError):
    """Another process of the training is gone; the last checkpoint is there to go on from."""


class _AllSum(torch.autograd.Function):
    """Sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


def _all_sum(x: Tensor) -> Tensor:
    apply: Any = _AllSum.apply
    return cast("Tensor", apply(x))


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes; PyTorch's own (SyncBatchNorm) wants CUDA.

    In eval mode, and in a single process, an ordinary batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the mean and variance over all processes' B, H and W."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        wide = x.float()
        count = x.numel() / x.shape[1] * dist.get_world_size()  # batches are of one size
        # Centred before they are squared: sums of squares lose digits where means are large.
        mean = _all_sum(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = _all_sum(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight / torch.sqrt(variance + self.eps)
        out = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Take a batch into the running statistics."""
        if not self.track_running_stats or self.momentum is None:
            return
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a model see the batches of all processes; its weights stay.

    Returns:
        The model; changed in place on a CPU.
    """
    if device.type == "cuda":
        converted: Any = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return cast("nn.Module", converted)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return model


def agree(seconds: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """Let all processes go by the first one's clock, and stop if any of them is to.

    Every process must call this at the same step.
    """
    told = torch.tensor([seconds, float(stop)], dtype=torch.float64, device=device)
    clock = told[:1].clone()
    dist.broadcast(clock, 0)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return float(clock), bool(told[1])
