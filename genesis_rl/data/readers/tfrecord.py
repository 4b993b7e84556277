"""Reader of TFRecord files of `tf.train.Example`s, plain or gzip-compressed, without TensorFlow.

`write_records` and `encode_example` write plain ones.

An entry consists of its length (uint64), the checksum of these 8 bytes, the payload and its
checksum; all little-endian, checksums are masked CRC-32C. (The tfrecord package reads such files
too, but verifies no checksums.)

An Example is a protocol buffer: a map from names to lists of strings, float32 or integers.
"""

import gzip
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.readers import DamagedRecord
from genesis_rl.utils.extras import require
from genesis_rl.utils.files import new_file

_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST = 1 << 30  # bytes; a longer record has a damaged length

_DELIMITED, _FOUR_BYTES = 2, 5  # wire types of a protocol buffer
_KINDS = {1: "strings", 2: "floats", 3: "integers"}  # kinds of a Feature by field number

Example = dict[str, tuple[str, bytes]]


class Payload(NamedTuple):
    """A record's bytes.

    Attributes:
        data: the serialised message.
        path: path of the file.
        number: index in the file, from 0.
    """

    data: bytes
    path: Path
    number: int

    @property
    def name(self) -> str:
        """Name of file and record, for messages."""
        return record_name(self.path, self.number)


def record_name(path: Path, number: int) -> str:
    """Return the name of a record in messages, counted from 0."""
    return f"{path}, record {number}"


def read_records(paths: Iterable[Path], start: int = 0) -> Iterator[Payload | DamagedRecord]:
    """Yield the records of consecutive files, from overall number ``start`` on.

    If the end of a damaged record is unknown, the rest of its file is skipped and counts as one
    record.

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
    """Yield the records of a file, None for the first ``skip`` valid ones."""
    number = 0

    def damaged(reason: object) -> DamagedRecord:
        return DamagedRecord(record_name(path, number), reason)

    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    # Seeking beyond the end would hide a truncated file.
    size = math.inf if compressed else path.stat().st_size
    opened: Any = gzip.open(path, "rb") if compressed else path.open("rb")
    with opened as file:
        try:
            while head := file.read(12):
                if len(head) < 12:
                    yield damaged("the file ends within its length")
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
                    valid = _masked_crc(data[:-4]) == data[-4:]
                    yield Payload(data[:-4], path, number) if valid else damaged("wrong checksum")
                number += 1
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield damaged(f"the gzip stream is truncated or damaged ({error})")


def _masked_crc(data: bytes) -> bytes:
    """Return TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = require("crc32c").crc32c(data)
    masked: int = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def parse_example(data: bytes) -> Example:
    """Parse a `tf.train.Example` down to its serialised lists.

    Returns:
        The kind and the serialised list of every feature by name, for `floats`, `strings` and
        `pixels`; both are empty for an unset feature. Lists stay serialised because an image may be
        a list of single-byte strings.

    Raises:
        ValueError: if the bytes are not an Example.
    """
    example = {}
    try:
        for features in _fields(data):
            for entry in _fields(features):
                parts = dict(_tagged(entry))  # 1: name, 2: feature; empty ones may be missing
                kind, values = [(0, b""), *_tagged(parts.get(2, b""))][-1]
                example[parts.get(1, b"").decode()] = _KINDS.get(kind, ""), values
    except (IndexError, ValueError) as error:
        raise ValueError(f"it is not a tf.train.Example ({error})") from error
    return example


def floats(example: Example, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a feature's list of floats as an array of the given shape.

    Raises:
        ValueError: if the feature is missing, unset, or has another kind or number of values.
    """
    data = b"".join(_fields(_values(example, name, "floats")))
    return _shaped(np.frombuffer(data[: len(data) // 4 * 4], "<f4"), name, shape)


def strings(example: Example, name: str) -> list[bytes]:
    """Return a feature's list of strings.

    Raises:
        ValueError: if the feature is missing, unset, or has values of another kind.
    """
    return list(_fields(_values(example, name, "strings")))


def pixels(example: Example, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return a feature's list of strings as an array of bytes of the given shape.

    The list may have one string for all bytes or, as in Multi-Object Datasets, one per byte.

    Raises:
        ValueError: if the feature is missing, unset, or has another kind or number of values.
    """
    data, count = _values(example, name, "strings"), math.prod(shape)
    if len(data) == 3 * count and data[::3] == b"\n" * count and data[1::3] == b"\1" * count:
        values = data[2::3]  # of each string: tag, length 1, byte
    else:
        values = b"".join(_fields(data))
    return _shaped(np.frombuffer(values, np.uint8), name, shape)


def write_records(path: Path, payloads: Iterable[bytes]) -> None:
    """Write an uncompressed file of records, completely or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    with new_file(path) as temporary, temporary.open("wb") as file:
        for payload in payloads:
            length = len(payload).to_bytes(8, "little")
            file.write(b"".join((length, _masked_crc(length), payload, _masked_crc(payload))))


def encode_example(features: Mapping[str, Sequence[bytes] | npt.NDArray[np.float32]]) -> bytes:
    """Serialise a `tf.train.Example`, the inverse of `parse_example`.

    Args:
        features: strings, or an array of floats, which is flattened in row-major order, by name.
    """
    entries = []
    for name, values in features.items():
        if isinstance(values, np.ndarray):
            kind, parts = "floats", [values.astype("<f4").tobytes()]
        else:
            kind, parts = "strings", list(values)
        number = next(number for number, known in _KINDS.items() if known == kind)
        feature = _delimited(number, b"".join(_delimited(1, part) for part in parts))
        entries.append(_delimited(1, _delimited(1, name.encode()) + _delimited(2, feature)))
    return _delimited(1, b"".join(entries))


def _delimited(number: int, data: bytes) -> bytes:
    """Return a field of a protocol buffer message: tag, length as a varint, and content."""
    encoded, length = bytearray([number << 3 | _DELIMITED]), len(data)
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(encoded) + bytes([length]) + data


def _values(example: Example, name: str, kind: str) -> bytes:
    """Return the serialised list of a feature."""
    if name not in example:
        raise ValueError(f"it has no feature {name!r}, only {', '.join(sorted(example))}")
    actual, values = example[name]
    if actual != kind:
        raise ValueError(f"feature {name!r} must contain {kind}, got {actual or 'nothing'}")
    return values


def _fields(data: bytes) -> Iterator[bytes]:
    """Yield the fields of a protocol buffer message in order, for the wire types of an Example."""
    return (field for _, field in _tagged(data))


def _tagged(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields as `_fields`, with their numbers."""
    at = 0
    while at < len(data):
        tag = data[at]
        number, kind = tag >> 3, tag & 7  # all tags are below 16 and take one byte
        length, at = _varint(data, at + 1) if kind == _DELIMITED else (4, at + 1)
        if kind not in (_DELIMITED, _FOUR_BYTES) or at + length > len(data):
            raise ValueError(f"invalid field at byte {at}")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Decode a varint; return it and the position after it."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def _shaped(array: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if array.size != math.prod(shape):
        raise ValueError(f"feature {name!r} must have shape {shape}, got {array.size} values")
    return array.reshape(shape)
