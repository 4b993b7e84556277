"""Reading and conversion of the entries of an authors' state dict."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


def read_checkpoint(checkpoint: str | os.PathLike[str] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name; see `load_official` for arguments and errors."""
    state: Any
    if isinstance(checkpoint, str | os.PathLike):
        path = Path(checkpoint)
        if not path.is_file():
            raise ValueError(f"checkpoint must be a file, got {path}.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise ValueError(
                f"checkpoint must contain plain tensors, got {path}: {error}"
            ) from error
    else:
        state = checkpoint
    entries: Mapping[str, Any] = state.get("model_state_dict", state)
    return {
        name.removeprefix("module."): value
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


class Entries:
    """Converter of an authors' state dict, which records the entries used.

    Attributes:
        converted: the converted state dict.
        sources: the authors' name, or names, of each converted entry.
    """

    # Constants saved by older releases: pixel standard deviations and coordinate maps.
    _IGNORED = ("std", "g_1", "g_2", "num_batches_tracked")

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.converted: dict[str, Tensor] = {}
        self.sources: dict[str, str] = {}
        self._original = dict(state)
        self._used: set[str] = set()

    def take(self, source: str) -> Tensor:
        """Return one of the authors' entries, and mark it as used; ValueError if it is missing."""
        if source not in self._original:
            raise ValueError(
                f"checkpoint must contain an entry {source}, got none. Check the model argument."
            )
        self._used.add(source)
        return self._original[source]

    def put(self, name: str, source: str, change: Change | None = None) -> None:
        """Convert one entry by ``change`` and store it as ``name``."""
        value = self.take(source)
        if change is not None:
            try:
                value = change(value)
            except (RuntimeError, IndexError) as error:
                raise ValueError(
                    f"checkpoint entry {source} must have the shape of a {name} of this config, "
                    f"got {tuple(value.shape)}."
                ) from error
        self.converted[name] = value
        self.sources[name] = source

    def join(self, name: str, sources: list[str]) -> None:
        """Concatenate several entries along the first dimension and store them as ``name``."""
        parts = [self.take(source) for source in sources]
        try:
            self.converted[name] = torch.cat(parts)
        except RuntimeError as error:
            shapes = " and ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(
                f"checkpoint entries {' and '.join(sources)} must have shapes that agree but for "
                f"the first dimension, got {shapes}."
            ) from error
        self.sources[name] = " and ".join(sources)

    def layer(
        self, name: str, source: str, weight: Change | None = None, bias: Change | None = None
    ) -> None:
        """Convert the weight and bias of a layer."""
        self.put(f"{name}.weight", f"{source}.weight", weight)
        self.put(f"{name}.bias", f"{source}.bias", bias)

    def lstm(self, name: str, source: str) -> None:
        """Convert a single-layer LSTM to an LSTM cell."""
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.put(f"{name}.{part}", f"{source}.{part}_l0")

    def finish(self) -> None:
        """Raise ValueError if entries are unused, except for constants."""
        unused = [
            name
            for name in self._original
            if name not in self._used and name.split(".")[-1] not in self._IGNORED
        ]
        if unused:
            raise ValueError(f"checkpoint must contain only entries of the model, got {unused[0]}.")


def columns_channel_last(channels: int) -> Change:
    """Return a map of a Linear's inputs from (channel, row, column) to (row, column, channel)."""
    return lambda weight: weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1)


def rows_channel_last(channels: int) -> Change:
    """Return a map of a Linear's outputs from (channel, row, column) to (row, column, channel)."""
    return lambda weight: weight.unflatten(0, (channels, -1)).transpose(0, 1).flatten(0, 1)


def untranspose_kernel(weight: Tensor) -> Tensor:
    """Convert the kernel of a stride-1 transposed convolution to that of an ordinary one."""
    return weight.transpose(0, 1).flip(2, 3)
