"""Distributed training with the results of a single process."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Steps between synchronisations of elapsed time and stop requests, in distributed training.
_CLOCK_STEPS = 10


class LostProcessError(RuntimeError):
    """Another process of a distributed training has ended; the last checkpoint can be resumed."""


class Processes:
    """The processes of a training: a single one.

    Attributes:
        count: number of processes.
        index: number of this process.
        main: whether this process writes files and validates.
    """

    count: int = 1
    index: int = 0
    main: bool = True

    def wait(self) -> None:
        """Wait for the other processes."""

    def clock(self, step: int, seconds: float, stop: bool) -> tuple[float, bool] | None:
        """Return the elapsed seconds and whether to stop, the same in all processes.

        None: at this step they are not synchronised and keep their values.
        """
        return seconds, stop


class AcceleratedProcesses(Processes):
    """Several processes of an Accelerator, which compute the updates of one."""

    def __init__(self, accelerator: Any, steps: int) -> None:
        """Take the processes of an `accelerate.Accelerator` for a training of ``steps``."""
        self._accelerator, self._steps = accelerator, steps
        self.count, self.index = accelerator.num_processes, accelerator.process_index
        self.main = bool(accelerator.is_main_process)

    def wait(self) -> None:
        """Wait for the other processes."""
        self._accelerator.wait_for_everyone()

    def clock(self, step: int, seconds: float, stop: bool) -> tuple[float, bool] | None:
        """Return the first process's seconds, and whether any is to stop, every few steps."""
        # Not updated in between, since schedules of all processes depend on the time.
        if step % _CLOCK_STEPS and step < self._steps:
            return None
        return synchronise_clock(seconds, stop, self._accelerator.device)


class _AllSum(torch.autograd.Function):
    """All-reduce sum of a tensor, and of its gradient."""

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
    """Batch norm over the batches of all processes, on CPUs, unlike PyTorch's SyncBatchNorm.

    In eval mode, and in a single process, it equals BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by mean and variance over B, H and W of all processes."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        wide = x.float()
        count = x.numel() / x.shape[1] * dist.get_world_size()  # batches have equal sizes
        # Centred before squaring: sums of squares are inaccurate for large means.
        mean = _all_sum(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = _all_sum(centred.square().sum((0, 2, 3))) / count
        self._update_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight / torch.sqrt(variance + self.eps)
        out = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics by those of a batch."""
        if not self.track_running_stats or self.momentum is None:
            return
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of a model by one synchronised over processes, of equal weights.

    Returns:
        The model, modified in place on a CPU.
    """
    if device.type == "cuda":
        converted: Any = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return cast("nn.Module", converted)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return model


def synchronise_clock(seconds: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """Return the first process's elapsed seconds, and whether any process is to stop.

    All processes must call this at the same step.
    """
    status = torch.tensor([seconds, float(stop)], dtype=torch.float64, device=device)
    clock = status[:1].clone()
    dist.broadcast(clock, 0)
    dist.all_reduce(status, dist.ReduceOp.MAX)
    return float(clock), bool(status[1])
