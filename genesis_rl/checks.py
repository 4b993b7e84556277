"""Checks of arguments that many functions and configs share."""

from numbers import Integral
from typing import Any


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise unless an argument is an integer (Python's or NumPy's) of at least ``least``.

    Raises:
        TypeError: for another type; True and False are no integers here.
        ValueError: for a smaller integer.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer >= {least}, got {value!r}.")
    if int(value) < least:
        wanted = f"at least {least}" if least else "0 or more"
        raise ValueError(f"{name} is {value}; wanted {wanted}.")


def check_integers(config: Any, least: int, *names: str) -> None:
    """Check fields of a config by `check_integer`."""
    for name in names:
        check_integer(name, getattr(config, name), least)
