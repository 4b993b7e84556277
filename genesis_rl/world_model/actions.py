"""Action spaces of world models, and the encoding of actions for the network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.utils.checks import check_fields

Kind = Literal["discrete", "box"]


@dataclass(frozen=True)
class ActionSpec:
    """An action space, independent of Gymnasium.

    Attributes:
        kind: "discrete" for integers start..start + n - 1, "box" for a vector.
        n: number of discrete actions; 0 for a box.
        start: smallest discrete action.
        low: lower bounds of a box, -inf for unbounded; empty if discrete.
        high: upper bounds of a box, inf for unbounded; empty if discrete.
    """

    kind: Kind
    n: int = 0
    start: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that the fields describe one space."""
        check_fields(self)
        if self.kind == "discrete" and (self.n < 1 or self.low or self.high):
            raise ValueError(
                f"n must be at least 1, without low and high, for discrete actions, got {self.n}, "
                f"{self.low} and {self.high}."
            )
        if self.kind == "box":
            pairs = list(zip(self.low, self.high, strict=False))
            valid = bool(pairs) and len(self.low) == len(self.high) and not (self.n or self.start)
            if not valid or not all(low < high for low, high in pairs):
                raise ValueError(
                    "low and high must be vectors with low < high, without n and start, for a box, "
                    f"got {self.low} and {self.high}."
                )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the action space of `to_json` or of a recording.

        Raises:
            ValueError: if the data are neither a Discrete space nor a one-dimensional Box.
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
            raise ValueError(
                f"action space must be a Discrete space or a one-dimensional Box, got {dict(data)}:"
                f" {error}"
            ) from error
        raise ValueError(
            f"action space must be a Discrete space or a one-dimensional Box, got {dict(data)}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the space as JSON data, with None for infinite bounds."""
        if self.kind == "discrete":
            return {"kind": "discrete", "n": self.n, "start": self.start}
        finite = {
            name: [value if math.isfinite(value) else None for value in getattr(self, name)]
            for name in ("low", "high")
        }
        return {"kind": "box", **finite}

    @property
    def width(self) -> int:
        """Size of an encoded action: n, or the length of a vector."""
        return self.n if self.kind == "discrete" else len(self.low)

    def check(self, action: Tensor) -> None:
        """Check that actions are of this space; bounds of a box are not checked.

        Args:
            action: (B,) integers or (B, A) floats.

        Raises:
            ValueError: for another shape or dtype, or discrete actions out of range.
        """
        got = f"{action.dtype}{list(action.shape)}"
        if self.kind == "box":
            if action.shape[1:] != (self.width,) or not action.is_floating_point():
                raise ValueError(f"action must be floats (B, {self.width}), got {got}.")
            return
        if action.ndim != 1 or action.is_floating_point() or action.is_complex():
            raise ValueError(f"action must be integers (B,), got {got}.")
        if bool(((action < self.start) | (action >= self.start + self.n)).any()):
            last = self.start + self.n - 1
            raise ValueError(
                f"action must be in {self.start}..{last}, got values in {int(action.min())}.."
                f"{int(action.max())}."
            )

    def encode(self, action: Tensor) -> Tensor:
        """Encode actions for the network.

        Args:
            action: (B,) integers or (B, A) floats.

        Returns:
            (B, width) float32: one-hot, or the vector with its bounds scaled to -1 and 1.
        """
        if self.kind == "discrete":
            return F.one_hot(action.long() - self.start, self.n).float()
        low, high = action.new_tensor(self.low), action.new_tensor(self.high)
        bounded = (high - low).isfinite()
        scaled = torch.where(bounded, 2 * (action - low) / (high - low) - 1, action)
        return scaled.float()
