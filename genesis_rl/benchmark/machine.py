"""The machine's own speed, to hold times against."""

import torch
import torch.nn.functional as F

from genesis_rl.timing import Task

#: Side of the square matrices whose float32 product tells the machine's speed.
MATMUL_SIDE = 4096
# The convolution that tells the peak: as large as the model's own, and large enough to be fast.
_CONV_BATCH, _CONV_CHANNELS, _CONV_SIDE, _CONV_KERNEL = 32, 64, 64, 5


def matmul(device: torch.device) -> tuple[Task, float]:
    """The float32 matrix product, and its operations."""
    side = MATMUL_SIDE
    a, b = torch.randn(2, side, side, device=device)

    def task() -> None:
        torch.mm(a, b)

    return task, 2 * side**3


def convolution(device: torch.device, dtype: torch.dtype) -> tuple[Task, float]:
    """A wide convolution, channels last, in the arithmetic of the models; and its operations."""
    channels, side = _CONV_CHANNELS, _CONV_SIDE
    x = torch.randn(_CONV_BATCH, channels, side, side, device=device, dtype=dtype)
    weight = torch.randn(channels, channels, _CONV_KERNEL, _CONV_KERNEL, device=device, dtype=dtype)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))

    def task() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=_CONV_KERNEL // 2)

    return task, 2 * _CONV_BATCH * (channels * side * _CONV_KERNEL) ** 2
