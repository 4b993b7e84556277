"""Conversion of action spaces to and from JSON data."""

from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Space = spaces.Space[Any]


def space_to_json(space: Space) -> dict[str, Any]:
    """Return a Box, Discrete, MultiDiscrete or MultiBinary space as JSON data.

    Raises:
        ValueError: for any other space.
    """
    data: dict[str, Any] = {"type": type(space).__name__, "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return data | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return data | {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return data | {"n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, spaces.Box):
        return data | {
            "shape": list(space.shape),
            "low": _finite(space.low),
            "high": _finite(space.high),
        }
    raise ValueError(
        f"action_space must be Box, Discrete, MultiDiscrete or MultiBinary, got {space}."
    )


def space_from_json(data: dict[str, Any]) -> Space:
    """Return the space described by data of `space_to_json`.

    Raises:
        ValueError: for invalid data.
    """
    try:
        kind, dtype = data["type"], np.dtype(data["dtype"])
        if kind == "Discrete":
            return spaces.Discrete(data["n"], start=data["start"])
        if kind == "MultiDiscrete":
            nvec, start = np.asarray(data["nvec"]), np.asarray(data["start"])
            return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)
        if kind == "MultiBinary":
            return spaces.MultiBinary(data["n"])
        if kind == "Box":
            low = [-inf if value is None else value for value in data["low"]]
            high = [inf if value is None else value for value in data["high"]]
            bounds = [np.asarray(side, dtype).reshape(data["shape"]) for side in (low, high)]
            box: Space = spaces.Box(bounds[0], bounds[1], dtype=dtype.type)
            return box
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"action_space must be data of space_to_json, got {data}: {error!r}."
        ) from error
    raise ValueError(f"action_space must be of a known type, got {data}.")


def _finite(bounds: npt.NDArray[Any]) -> list[float | None]:
    """Return the flattened values; None for infinity, which JSON cannot represent."""
    return [value if np.isfinite(value) else None for value in bounds.ravel().tolist()]
