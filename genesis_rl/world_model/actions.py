"""Actions of a world model: which there are, and how the network sees them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.checks import check_limits

Kind = Literal["discrete", "box"]


@dataclass(frozen=True)
class ActionSpec:
    """An action space, without Gymnasium.

    Attributes:
        kind: "discrete" for one of n numbers, "box" for a vector.
        n: how many numbers; 0 for a box.
        start: the smallest of the numbers.
        low: smallest values of a box, -inf where there is no bound; empty if discrete.
        high: its largest values.
    """

    kind: Kind
    n: int = 0
    start: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that the fields describe one space."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}; wanted one of {get_args(Kind)}.")
        check_limits(self)
        if self.kind == "discrete" and (self.n < 1 or self.low or self.high):
            raise ValueError(f"a discrete space of n {self.n}; wanted n of at least 1, no bounds.")
        if self.kind == "box":
            pairs = list(zip(self.low, self.high, strict=False))
            sound = bool(pairs) and len(self.low) == len(self.high) and not (self.n or self.start)
            if not sound or not all(low < high for low, high in pairs):
                raise ValueError(
                    f"a box from {self.low} to {self.high}; wanted a vector of low < high."
                )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` made, or the action space of a recording.

        Raises:
            ValueError: if the data describe no Discrete space, nor a Box of one dimension.
        """
        kind = data.get("kind", str(data.get("type", "")).lower())
        try:
            if kind == "discrete":
                return cls("discrete", n=int(data["n"]), start=int(data.get("start", 0)))
            if kind == "box" and len(data.get("shape", [0])) == 1:
                low, high = (
                    tuple(
                        sign * math.inf if value is None else float(value) for value in data[name]
                    )
                    for name, sign in (("low", -1), ("high", 1))
                )
                return cls("box", low=low, high=high)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{dict(data)} describes no action space: {error}") from error
        raise ValueError(
            f"the actions are {dict(data)}; wanted a Discrete space or a Box of one dimension."
        )

    def to_json(self) -> dict[str, Any]:
        """Describe the space as JSON data; None where a box has no bound."""
        if self.kind == "discrete":
            return {"kind": "discrete", "n": self.n, "start": self.start}
        finite = {
            name: [value if math.isfinite(value) else None for value in getattr(self, name)]
            for name in ("low", "high")
        }
        return {"kind": "box", **finite}

    @property
    def width(self) -> int:
        """Numbers in an encoded action: n, or the length of a vector."""
        return self.n if self.kind == "discrete" else len(self.low)

    def check(self, action: Tensor) -> None:
        """Refuse actions of another space; vectors beyond the bounds are taken as they are.

        Args:
            action: (B,) integers or (B, A) floats.

        Raises:
            ValueError: for another shape, another type or a number that is not in the space.
        """
        if self.kind == "box":
            if action.shape[1:] != (self.width,) or not action.is_floating_point():
                raise ValueError(
                    f"action is {action.dtype}{list(action.shape)};"
                    f" wanted floats (B, {self.width})."
                )
            return
        if action.ndim != 1 or action.is_floating_point() or action.is_complex():
            raise ValueError(f"action is {action.dtype}{list(action.shape)}; wanted integers (B,).")
        if bool(((action < self.start) | (action >= self.start + self.n)).any()):
            last = self.start + self.n - 1
            raise ValueError(
                f"action has values from {int(action.min())} to {int(action.max())}; wanted"
                f" {self.start} to {last}."
            )

    def encode(self, action: Tensor) -> Tensor:
        """Bring actions to what the network sees.

        Args:
            action: (B,) integers or (B, A) floats.

        Returns:
            (B, width) float32: one-hot, or the vector with its bounds brought to -1 and 1.
        """
        if self.kind == "discrete":
            return F.one_hot(action.long() - self.start, self.n).float()
        low, high = action.new_tensor(self.low), action.new_tensor(self.high)
        bounded = (high - low).isfinite()
        scaled = torch.where(bounded, 2 * (action - low) / (high - low) - 1, action)
        return scaled.float()
