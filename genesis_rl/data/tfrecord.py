"""TFRecord files of `tf.train.Example`s, plain or gzip-compressed, without TensorFlow.

An entry is its length (uint64), the checksum of those 8 bytes, the payload and its checksum; all
little-endian, checksums are masked CRC-32C. (The tfrecord package reads such files too, but
checks nothing.)

An Example is a protocol buffer: a map from names to lists of strings, of float32 or of integers.
"""

import gzip
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.sources import DamagedRecord

_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST = 1 << 30  # no image takes a GiB: a longer record is a damaged length

_DELIMITED, _FOUR_BYTES = 2, 5  # how fields of a protocol buffer are stored
_KINDS = {1: "strings", 2: "floats", 3: "integers"}  # of a Feature, by its field

Example = dict[str, tuple[str, bytes]]


class Payload(NamedTuple):
    """A record's bytes.

    Attributes:
        data: the serialised message.
        path: file that holds it.
        number: place in the file, from 0.
    """

    data: bytes
    path: Path
    number: int

    @property
    def name(self) -> str:
        """File and record, for messages."""
        return record_name(self.path, self.number)


def record_name(path: Path, number: int) -> str:
    """Name a record of a file in messages, counted from 0."""
    return f"{path}, record {number}"


def read_records(paths: Iterable[Path], start: int = 0) -> Iterator[Payload | DamagedRecord]:
    """Read files one after the other, from the record with number ``start`` of them all on.

    Where the end of a damaged record cannot be told, the rest of its file is left out; it counts as
    one record.

    Raises:
        OSError: if a file cannot be opened.
    """
    for path in paths:
        for payload in _read_file(path, start):
            if start > 0:
                start -= 1
            elif payload is not None:
                yield payload


def _read_file(path: Path, skip: int) -> Iterator[Payload | DamagedRecord | None]:
    """The records of a file; the first ``skip`` are passed over and None."""
    number = 0

    def damaged(reason: object) -> DamagedRecord:
        return DamagedRecord(record_name(path, number), reason)

    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    # A seek beyond the end would hide that the file is cut short.
    size = math.inf if compressed else path.stat().st_size
    opened: Any = gzip.open(path, "rb") if compressed else path.open("rb")
    with opened as file:
        try:
            while head := file.read(12):
                if len(head) < 12:
                    yield damaged("the file ends in its length")
                    return
                length = int.from_bytes(head[:8], "little")
                if _masked_crc(head[:8]) != head[8:] or length > _LONGEST:
                    yield damaged("its length has a wrong checksum; the rest of the file is lost")
                    return
                if number < skip and file.tell() + length + 4 <= size:
                    file.seek(length + 4, os.SEEK_CUR)
                    yield None
                else:
                    data = file.read(length + 4)
                    if len(data) < length + 4:
                        yield damaged(f"the file ends within its {length} bytes")
                        return
                    sound = _masked_crc(data[:-4]) == data[-4:]
                    yield Payload(data[:-4], path, number) if sound else damaged("wrong checksum")
                number += 1
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield damaged(f"the gzip stream is cut short or damaged ({error})")


def _masked_crc(data: bytes) -> bytes:
    """TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a constant."""
    from crc32c import crc32c

    crc = crc32c(data)
    masked: int = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def parse_example(data: bytes) -> Example:
    """Parse a `tf.train.Example` as far as its lists.

    Returns:
        The kind and the serialised list of every feature by name, for `floats`, `strings` and
        `pixels`; both are empty for a feature that is not set. A general parser would make a
        million strings of one byte out of an image.

    Raises:
        ValueError: if the bytes are no Example.
    """
    example = {}
    try:
        for features in _fields(data):
            for entry in _fields(features):
                parts = dict(_tagged(entry))  # 1: name, 2: feature; what is empty may be left out
                kind, values = [(0, b""), *_tagged(parts.get(2, b""))][-1]
                example[parts.get(1, b"").decode()] = _KINDS.get(kind, ""), values
    except (IndexError, ValueError) as error:
        raise ValueError(f"it is no tf.train.Example ({error})") from error
    return example


def floats(example: Example, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Values of a list of floats as an array of a shape.

    Raises:
        ValueError: if the feature is missing, not set, or has values of another kind or number.
    """
    data = b"".join(_fields(_values(example, name, "floats")))
    return _shaped(np.frombuffer(data[: len(data) // 4 * 4], "<f4"), name, shape)


def strings(example: Example, name: str) -> list[bytes]:
    """Values of a list of strings.

    Raises:
        ValueError: if the feature is missing, not set, or holds no strings.
    """
    return list(_fields(_values(example, name, "strings")))


def pixels(example: Example, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Values of a list of strings as an array of bytes of a shape.

    The list may have one string for all bytes or, as in Multi-Object Datasets, one per byte.

    Raises:
        ValueError: if the feature is missing, not set, or has values of another kind or number.
    """
    data, count = _values(example, name, "strings"), math.prod(shape)
    if len(data) == 3 * count and data[::3] == b"\n" * count and data[1::3] == b"\1" * count:
        values = data[2::3]  # of each string: tag, length 1, byte
    else:
        values = b"".join(_fields(data))
    return _shaped(np.frombuffer(values, np.uint8), name, shape)


def _values(example: Example, name: str, kind: str) -> bytes:
    """The serialised list of a feature."""
    if name not in example:
        raise ValueError(f"it has no feature {name!r}, only {', '.join(sorted(example))}")
    found, values = example[name]
    if found != kind:
        raise ValueError(
            f"feature {name!r} must hold {kind}, got {found or 'a feature that is not set'}"
        )
    return values


def _fields(data: bytes) -> Iterator[bytes]:
    """The fields of a protocol buffer message in order, of those kinds that an Example has."""
    return (field for _, field in _tagged(data))


def _tagged(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields as `_fields` gives them, with their numbers."""
    at = 0
    while at < len(data):
        tag = data[at]
        number, kind = tag >> 3, tag & 7  # all tags are below 16 and take one byte
        length, at = _varint(data, at + 1) if kind == _DELIMITED else (4, at + 1)
        if kind not in (_DELIMITED, _FOUR_BYTES) or at + length > len(data):
            raise ValueError(f"byte {at} is not of a message")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte at a place, and the place behind it."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def _shaped(array: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if array.size != math.prod(shape):
        raise ValueError(f"feature {name!r} has {array.size} values, wanted {shape}")
    return array.reshape(shape)
