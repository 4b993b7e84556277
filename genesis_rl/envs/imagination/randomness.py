"""Counter-based random numbers, which depend on keys and not on previous samples.

The generator is SplitMix64 (Steele, Lea and Flood, 2014): number i of a key is mix(key + i *
gamma). Every environment has its own keys, so its numbers do not depend on the batch.
"""

import math

import torch
from torch import Tensor

# 64-bit constants as signed integers, because PyTorch has no unsigned arithmetic; it wraps around.
_GAMMA, _FIRST, _SECOND = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_BITS = 24  # random bits of a float32 in [0, 1)


def make_keys(*parts: Tensor) -> Tensor:
    """Hash integers to keys.

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
    """Sample ``count`` words of 64 random bits, (B, count) int64, for each of the keys (B,)."""
    counters = torch.arange(1, count + 1, device=keys.device) * _GAMMA
    return _mix(keys[:, None] + counters)


def uniform(words: Tensor) -> Tensor:
    """Convert random bits to float32 in [0, 1)."""
    return _unit(_right(words, 64 - _BITS))


def below(words: Tensor, limit: int) -> Tensor:
    """Convert random bits to integers in 0..limit - 1."""
    return _right(words, 1) % limit


def normal(keys: Tensor, count: int) -> Tensor:
    """Sample standard normal numbers, (B, count) float32, for each of the keys (Box-Muller)."""
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
    """Shift right logically; PyTorch's operator shifts arithmetically."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _unit(integers: Tensor) -> Tensor:
    return integers.float() * 2.0**-_BITS
