"""Validation of arguments and config fields: types, ranges, upper limits.

Upper limits are checked before memory is allocated.
"""

from dataclasses import fields
from numbers import Integral
from typing import Any

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
#: Longest tuple of a setting, such as one value per layer.
LENGTH = 64


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


def check_limits(config: Any) -> None:
    """Check the fields of a dataclass against `LARGEST`; others, and None, pass.

    Raises:
        ValueError: naming the field and its largest value.
    """
    for field in fields(config):
        largest, value = _largest(field.name), getattr(config, field.name)
        if largest is None:
            continue
        values = value if isinstance(value, tuple) else (value,)
        if len(values) > LENGTH:
            raise ValueError(f"{field.name} must have at most {LENGTH} values, got {len(values)}.")
        for entry in values:
            if isinstance(entry, int | float) and not entry <= largest:
                raise ValueError(f"{field.name} must be at most {largest:,}, got {entry}.")


def check_parameters(name: str, count: int) -> None:
    """Check a model's number of parameters before it is built.

    Raises:
        ValueError: if it is larger than `PARAMETERS`.
    """
    if count > PARAMETERS:
        raise ValueError(f"{name} must have at most {PARAMETERS:,} parameters, got {count:,}.")


def _largest(name: str) -> int | None:
    """Return the limit of a name or of its longest suffix: "posterior_lstm_size", "lstm_size"..."""
    words = name.split("_")
    ends = ("_".join(words[first:]) for first in range(len(words)))
    return next((LARGEST[end] for end in ends if end in LARGEST), None)


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


def check_integers(config: Any, least: int, *names: str) -> None:
    """Apply `check_integer` to fields of a config."""
    for name in names:
        check_integer(name, getattr(config, name), least)
