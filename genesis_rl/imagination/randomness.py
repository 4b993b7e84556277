"""Random numbers by counters: a function of who asks and when, not of what was drawn before.

Numbers are SplitMix64's (Steele, Lea and Flood, 2014): the i-th of a key is mix(key + i * gamma).
Every environment has keys of its own, so a row of a batch draws what it would draw alone.
"""

import math

import torch
from torch import Tensor

# 64-bit constants as the signed integers that PyTorch has; its products and sums wrap around.
_GAMMA, _FIRST, _SECOND = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_BITS = 24  # of a float32 in [0, 1)


def make_keys(*parts: Tensor) -> Tensor:
    """Fold whole numbers into keys.

    Args:
        parts: int64 (B,) each, for example seed, episode and step.

    Returns:
        (B,) int64.
    """
    keys = torch.zeros_like(parts[0])
    for part in parts:
        keys = _mix(keys + _GAMMA) ^ part
    return _mix(keys + _GAMMA)


def bits(keys: Tensor, count: int) -> Tensor:
    """Draw 64 random bits, (B, count) int64, for each of the keys (B,)."""
    counters = torch.arange(1, count + 1, device=keys.device) * _GAMMA
    return _mix(keys[:, None] + counters)


def uniform(words: Tensor) -> Tensor:
    """Turn random bits into float32 in [0, 1)."""
    return _unit(_right(words, 64 - _BITS))


def below(words: Tensor, limit: int) -> Tensor:
    """Turn random bits into whole numbers in 0..limit - 1."""
    return _right(words, 1) % limit


def normal(keys: Tensor, count: int) -> Tensor:
    """Draw standard normal numbers, (B, count) float32, for each of the keys (Box and Muller)."""
    words = bits(keys, (count + 1) // 2)
    high, low = _right(words, 64 - _BITS), words & ((1 << _BITS) - 1)
    radius = (-2 * _unit(high + 1).log()).sqrt()
    angle = 2 * math.pi * _unit(low)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count]


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _right(x, 30)) * _FIRST
    x = (x ^ _right(x, 27)) * _SECOND
    return x ^ _right(x, 31)


def _right(x: Tensor, places: int) -> Tensor:
    """Shift to the right, filling with zeros; PyTorch's own repeats the sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _unit(whole: Tensor) -> Tensor:
    return whole.float() * 2.0**-_BITS
