"""Validation of arguments and config fields: types, ranges, upper limits.

Upper limits are checked before memory is allocated.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

#: Largest values of settings, beyond any real model, by their names or suffixes of these.
LARGEST = {
    "num_slots": 256,  # segmentations are bytes
    "image_size": 4096,
    "frame_size": 4096,
    "kernel_size": 63,
    "latent_size": 4096,
    "channels": 4096,
    "hidden": 16_384,
    "size": 16_384,
    "width": 4096,
    "layers": 64,
    "heads": 256,
    "ensemble": 256,
    "posterior_passes": 64,
    "prior_components": 64,
    "num_iterations": 100,
    "refine_steps": 1000,
    "iw_samples": 10_000,
    "batch_size": 2**20,
    "n_steps": 2**20,
    "buffer_size": 2**22,
    "net_arch": 16_384,
    "n": 2**20,
    "prior_scenes": 2**20,
    "candidates": 2**16,
    "num_envs": 2**16,
    "n_envs": 2**16,
    "n_imagined_envs": 2**16,
}
#: Largest number of parameters of a model.
PARAMETERS = 2**30
#: Longest tuple of a setting with a limit, such as one value per layer.
LENGTH = 64


@dataclass(frozen=True)
class Must:
    """Constraint of a field, in its `typing.Annotated` type.

    Attributes:
        be: the valid values, for the message: "at least 1".
        test: whether a value of the annotated type is valid.
    """

    be: str
    test: Callable[[Any], bool]


def at_least(low: float) -> Must:
    """Return the constraint of a lower limit, itself included."""
    return Must(f"at least {low}", lambda value: value >= low)


def within(low: float, high: float) -> Must:
    """Return the constraint of a range, both ends included."""
    return Must(f"from {low:,} to {high:,}", lambda value: low <= value <= high)


def one_of(values: Iterable[Any]) -> Must:
    """Return the constraint of a set of values."""
    choices = tuple(values)
    return Must(f"one of {', '.join(map(str, choices))}", choices.__contains__)


NOT_EMPTY = Must("at least one value", bool)
DIFFERENT = Must("different values", lambda values: len(set(values)) == len(values))

Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Seed = Annotated[int, Must("in 0..2**63 - 1", lambda value: 0 <= value < 2**63)]
#: Seed of Gymnasium environments.
EnvSeed = Annotated[int, Must("in 0..2**31 - 1", lambda value: 0 <= value < 2**31)]
Counts = Annotated[tuple[Count, ...], NOT_EMPTY]
#: One or more different names.
Names = Annotated[tuple[str, ...], NOT_EMPTY, DIFFERENT]
Finite = Annotated[float, Must("finite", math.isfinite)]
Positive = Annotated[float, Must("> 0", lambda value: value > 0)]
NonNegative = Annotated[float, at_least(0)]
#: Fractions: above 0, below 1, or any.
PositiveShare = Annotated[float, Must("in (0, 1]", lambda value: 0 < value <= 1)]
PartialShare = Annotated[float, Must("in [0, 1)", lambda value: 0 <= value < 1)]
Share = Annotated[float, Must("in [0, 1]", lambda value: 0 <= value <= 1)]


class Checked:
    """Base class of dataclasses that need no validation but `check_fields`."""

    def __post_init__(self) -> None:
        """Check the fields."""
        check_fields(self)


def check_fields(config: Any) -> None:
    """Check the fields of a dataclass against their annotations and `LARGEST`.

    Checks Literals and constraints, also of the values of tuples and of optional fields. Numbers
    with constraints must be finite and must not be bool. Types in other unions are not checked.

    Raises:
        ValueError: naming the field.
    """
    config_class: Any = type(config)
    for name, hint in _hints(config_class).items():
        value = getattr(config, name)
        _check_value(name, value, hint)
        _check_limit(name, value)


@cache
def _hints(config_class: Any) -> dict[str, Any]:
    hints = get_type_hints(config_class, include_extras=True)
    return {field.name: hints[field.name] for field in fields(config_class)}


def _check_value(name: str, value: Any, hint: Any) -> None:
    """Check a value, or one value of a tuple, against its type."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    origin, options = get_origin(kind), get_args(kind)
    constraints = [extra for extra in extras if isinstance(extra, Must)]
    if origin in (Union, UnionType):
        if value is None:
            return
        others = [option for option in options if option is not NoneType]
        if len(others) == 1:
            _check_value(name, value, others[0])
    elif origin is Literal:
        constraints.append(one_of(options))
    elif origin is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError(f"{name} must be a tuple, got {value!r}.")
        if options[-1] is Ellipsis:
            options = options[:1] * len(value)
        if len(options) != len(value):
            raise ValueError(f"{name} must have {len(options)} values, got {value}.")
        for entry, option in zip(value, options, strict=True):
            _check_value(name, entry, option)
    elif constraints and kind in (int, float):
        number, article = (Integral, "an integer") if kind is int else (Real, "a number")
        if isinstance(value, bool) or not isinstance(value, number):
            raise ValueError(f"{name} must be {article}, got {value!r}.")
        if not isinstance(value, Integral) and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}.")
    for constraint in constraints:
        if not constraint.test(value):
            raise ValueError(f"{name} must be {constraint.be}, got {value!r}.")


def _check_limit(name: str, value: Any) -> None:
    """Check a value, or the values of a tuple, against `LARGEST`; other types pass."""
    largest = _largest(name)
    if largest is None:
        return
    values = value if isinstance(value, tuple) else (value,)
    if len(values) > LENGTH:
        raise ValueError(f"{name} must have at most {LENGTH} values, got {len(values)}.")
    for entry in values:
        if isinstance(entry, int | float) and not entry <= largest:
            raise ValueError(f"{name} must be at most {largest:,}, got {entry}.")


def _largest(name: str) -> int | None:
    """Return the limit of a name or of its longest suffix: "posterior_lstm_size", "lstm_size"..."""
    words = name.split("_")
    ends = ("_".join(words[first:]) for first in range(len(words)))
    return next((LARGEST[end] for end in ends if end in LARGEST), None)


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """Check that a number lies in a range, both ends included.

    Args:
        name: name of the argument, for the message.
        value: the number; NaN lies in no range.
        low: smallest valid value.
        high: largest valid value.

    Raises:
        ValueError: naming the argument and the range.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:,} to {high:,}, got {value}.")


def check_parameters(name: str, count: int) -> None:
    """Check a model's number of parameters before it is built.

    Raises:
        ValueError: if it is larger than `PARAMETERS`.
    """
    if count > PARAMETERS:
        raise ValueError(f"{name} must have at most {PARAMETERS:,} parameters, got {count:,}.")


def check_integer(name: str, value: Any, least: int) -> None:
    """Check that an argument is an integer (Python's or NumPy's) of at least ``least``.

    Raises:
        TypeError: for another type, also bool.
        ValueError: for a smaller integer.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer >= {least}, got {value!r}.")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def parse_object(name: str, text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        name: the argument, for the message.
        text: the JSON.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON, got {text!r}: {error}.") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{name} must be a JSON object, got {text!r}.")
    return parsed
