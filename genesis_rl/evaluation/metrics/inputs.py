"""Conversion of metrics' arguments, tensors and NumPy arrays of any numeric type, to tensors."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = Tensor | npt.NDArray[Any]

# Types without minimum, maximum and comparison in PyTorch.
_WIDENED = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(values: Array, name: str, *, device: torch.device | None = None) -> Tensor:
    """Return a tensor unchanged, and a NumPy array as a tensor of the same dtype.

    Args:
        values: tensor or array.
        name: name of the argument, for messages.
        device: device for arrays; None for the CPU.

    Raises:
        TypeError: for any other type.
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        got = f"{values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name} must be a tensor or a NumPy array of numbers, got {got}.")
    # PyTorch requires native byte order, contiguous and writable memory.
    native = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native).to(device)


def as_label_tensor(labels: Array, name: str, *, device: torch.device | None = None) -> Tensor:
    """Return integer labels as a tensor of a dtype that PyTorch can compare.

    Raises:
        TypeError: if they are not integers.
        ValueError: if one is 2**63 or above.
    """
    tensor = as_tensor(labels, name, device=device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be integer labels, got {tensor.dtype}.")
    if tensor.dtype not in _WIDENED:
        return tensor
    wide = tensor.long()
    if tensor.dtype == torch.uint64 and bool((wide < 0).any()):
        raise ValueError(f"{name} must be labels below 2**63, got larger ones.")
    return wide


def device_of(*arrays: Array) -> torch.device | None:
    """Return the device of the first tensor, or None without tensors."""
    return next((array.device for array in arrays if isinstance(array, Tensor)), None)
