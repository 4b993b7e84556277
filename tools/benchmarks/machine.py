"""Reference operations to measure the machine's speed."""

import torch
import torch.nn.functional as F

from genesis_rl.utils.timing import Task

#: Side of the square matrices of the reference float32 product.
MATMUL_SIDE = 4096
# The reference convolution: of the size of the model's, and large enough to reach the peak.
_CONV_BATCH, _CONV_CHANNELS, _CONV_SIDE, _CONV_KERNEL = 32, 64, 64, 5


def matmul(device: torch.device) -> tuple[Task, float]:
    """Return a float32 matrix product and its number of operations."""
    side = MATMUL_SIDE
    a, b = torch.randn(2, side, side, device=device)

    def task() -> None:
        torch.mm(a, b)

    return task, 2 * side**3


def convolution(device: torch.device, dtype: torch.dtype) -> tuple[Task, float]:
    """Return a wide channels-last convolution and its number of operations."""
    channels, side = _CONV_CHANNELS, _CONV_SIDE
    x = torch.randn(_CONV_BATCH, channels, side, side, device=device, dtype=dtype)
    weight = torch.randn(channels, channels, _CONV_KERNEL, _CONV_KERNEL, device=device, dtype=dtype)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))

    def task() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=_CONV_KERNEL // 2)

    return task, 2 * _CONV_BATCH * (channels * side * _CONV_KERNEL) ** 2
