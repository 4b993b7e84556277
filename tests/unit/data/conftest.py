"""TFRecord files written byte by byte, from the format's specification only."""

import gzip
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)

Feature = list[bytes] | list[float]


def masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for value in data:
        crc = TABLE[(crc ^ value) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def delimited(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(data)) + data


def encode(**features: Feature) -> bytes:
    """Build a `tf.train.Example` with lists of strings and of (packed) floats."""
    entries = b""
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            strings = b"".join(delimited(1, value) for value in values)
            feature = delimited(1, strings)
        else:
            feature = delimited(2, delimited(1, struct.pack(f"<{len(values)}f", *values)))
        entries += delimited(1, delimited(1, name.encode()) + delimited(2, feature))
    return delimited(1, entries)


def frame(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    return head + masked_crc(head) + payload + masked_crc(payload)


def write(path: Path, payloads: Iterable[bytes], compressed: bool = False) -> Path:
    data = b"".join(frame(payload) for payload in payloads)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if compressed else data)
    return path


@pytest.fixture
def example() -> Callable[..., bytes]:
    """Serialise an Example from lists of bytes and of floats by name."""
    return encode


@pytest.fixture
def write_records() -> Callable[..., Path]:
    """Write payloads to a path as a TFRecord file, compressed by option."""
    return write


@pytest.fixture
def single_bytes() -> Callable[[np.ndarray], list[bytes]]:
    """Serialise an array as in Multi-Object Datasets: one string per byte."""
    return lambda array: [bytes([value]) for value in array.ravel().tolist()]
