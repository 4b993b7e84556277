"""Tensors from what metrics accept: tensors and NumPy arrays of any numeric type."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = Tensor | npt.NDArray[Any]

# Types for which PyTorch has no minimum, maximum or comparison.
_WIDENED = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(values: Array, name: str, *, device: torch.device | None = None) -> Tensor:
    """Return a tensor as it is, and a NumPy array as a tensor of the same type.

    Args:
        values: the numbers.
        name: of the argument, for messages.
        device: of the tensor that an array becomes; None for the CPU.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        got = f"{values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name} must be a tensor or a NumPy array of numbers, got {got}.")
    # A copy in the machine's byte order, contiguous and writable, as PyTorch needs it.
    native = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native).to(device)


def as_label_tensor(labels: Array, name: str, *, device: torch.device | None = None) -> Tensor:
    """Return integer labels as a tensor of a type that PyTorch computes with.

    Raises:
        TypeError: if they are not integers.
        ValueError: if one is 2**63 or above.
    """
    tensor = as_tensor(labels, name, device=device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must hold integer labels, got {tensor.dtype}")
    if tensor.dtype not in _WIDENED:
        return tensor
    wide = tensor.long()
    if tensor.dtype == torch.uint64 and bool((wide < 0).any()):
        raise ValueError(f"{name} must hold labels below 2**63, got larger ones")
    return wide


def device_of(*arrays: Array) -> torch.device | None:
    """Return the device of the first tensor, None if there is none."""
    return next((array.device for array in arrays if isinstance(array, Tensor)), None)
