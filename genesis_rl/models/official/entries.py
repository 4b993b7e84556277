"""Entries of an authors' state dict: reading them, taking them by name, changing their form."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


def read_checkpoint(checkpoint: str | os.PathLike[str] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by name; see load_official for arguments and errors."""
    state: Any
    if isinstance(checkpoint, str | os.PathLike):
        path = Path(checkpoint)
        if not path.is_file():
            raise ValueError(f"checkpoint {path} is not a file.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise ValueError(
                f"checkpoint {path} is damaged or not plain tensors: {error}"
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
    """Takes entries of their state dict into ours, and knows in the end what nobody asked for.

    Attributes:
        ours: our state dict so far.
        sources: by our name, the last of their entries that went into it.
    """

    # Constants that older releases saved: pixel deviations and coordinate maps.
    _IGNORED = ("std", "g_1", "g_2", "num_batches_tracked")

    def __init__(self, theirs: Mapping[str, Tensor]) -> None:
        self.ours: dict[str, Tensor] = {}
        self.sources: dict[str, str] = {}
        self._theirs = dict(theirs)
        self._taken: set[str] = set()

    def take(self, source: str) -> Tensor:
        """One of their entries; ValueError if there is none of this name."""
        if source not in self._theirs:
            raise ValueError(f"the checkpoint has no entry {source}; is it of another model?")
        self._taken.add(source)
        return self._theirs[source]

    def put(self, name: str, source: str, change: Change | None = None) -> None:
        """Take one entry, its form changed by ``change``, as ours of another name."""
        value = self.take(source)
        if change is not None:
            try:
                value = change(value)
            except (RuntimeError, IndexError) as error:
                raise ValueError(
                    f"checkpoint entry {source} has shape {tuple(value.shape)}, which is not that "
                    f"of a {name} of this config."
                ) from error
        self.ours[name] = value
        self.sources[name] = source

    def join(self, name: str, sources: list[str]) -> None:
        """Take several entries, one after the other along the first dimension."""
        parts = [self.take(source) for source in sources]
        try:
            self.ours[name] = torch.cat(parts)
        except RuntimeError as error:
            shapes = " and ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(
                f"checkpoint entries {' and '.join(sources)} have shapes {shapes}, which do not "
                "fit together."
            ) from error
        self.sources[name] = " and ".join(sources)

    def layer(
        self, name: str, source: str, weight: Change | None = None, bias: Change | None = None
    ) -> None:
        """Take a layer's weight and bias."""
        self.put(f"{name}.weight", f"{source}.weight", weight)
        self.put(f"{name}.bias", f"{source}.bias", bias)

    def lstm(self, name: str, source: str) -> None:
        """Take the only layer of an LSTM as an LSTM cell."""
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.put(f"{name}.{part}", f"{source}.{part}_l0")

    def finish(self) -> None:
        """Raise ValueError if entries are left that mean something."""
        left = [
            name
            for name in self._theirs
            if name not in self._taken and name.split(".")[-1] not in self._IGNORED
        ]
        if left:
            raise ValueError(f"the checkpoint has entries of no known use, first {left[0]}.")


def columns_channel_last(channels: int) -> Change:
    """Reorder a Linear's inputs from (channel, row, column) to (row, column, channel)."""
    return lambda weight: weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1)


def rows_channel_last(channels: int) -> Change:
    """Reorder a Linear's outputs from (channel, row, column) to (row, column, channel)."""
    return lambda weight: weight.unflatten(0, (channels, -1)).transpose(0, 1).flatten(0, 1)


def turn(weight: Tensor) -> Tensor:
    """A stride-1 transposed convolution's kernel as that of an ordinary one."""
    return weight.transpose(0, 1).flip(2, 3)
