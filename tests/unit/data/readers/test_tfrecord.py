"""TFRecord files: content, damaged records, skipping."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.data.readers import DamagedRecord
from genesis_rl.data.readers.tfrecord import (
    Payload,
    encode_example,
    floats,
    parse_example,
    pixels,
    read_records,
    strings,
)
from genesis_rl.data.readers.tfrecord import write_records as write_file

PAYLOADS = [bytes([n]) * (50 + 7 * n) for n in range(6)]
OFFSETS = np.cumsum([0, *(len(payload) + 16 for payload in PAYLOADS)]).tolist()
Write = Callable[..., Path]


def read(*paths: Path, start: int = 0) -> list[bytes | str]:
    return [
        str(item) if isinstance(item, DamagedRecord) else item.data
        for item in read_records(paths, start)
    ]


@pytest.mark.parametrize("compressed", [False, True])
def test_records_come_back_from_any_start(
    tmp_path: Path, write_records: Write, compressed: bool
) -> None:
    a = write_records(tmp_path / "a", PAYLOADS[:4], compressed)
    b = write_records(tmp_path / "b", PAYLOADS[4:], compressed)
    for start in range(8):
        assert read(a, b, start=start) == PAYLOADS[start:]
    item = list(read_records([a, b]))[4]
    assert isinstance(item, Payload) and (item.path, item.number) == (b, 0)
    assert item.name == f"{b}, record 0"


def test_an_empty_file_has_no_records(tmp_path: Path, write_records: Write) -> None:
    assert read(write_records(tmp_path / "a", [])) == []
    assert read(write_records(tmp_path / "a", [], True)) == []


@pytest.mark.smoke
def test_the_package_reads_what_the_tests_write(
    tmp_path: Path, write_records: Write, example: Callable[..., bytes]
) -> None:
    # The tests' writer agrees with another one's reader.
    from tfrecord.reader import tfrecord_loader
    from tfrecord.writer import TFRecordWriter

    payload = example(name=[b"one", b"two"], size=[0.5, 2.0])
    path = write_records(tmp_path / "a", [payload])
    (entry,) = tfrecord_loader(str(path), None)
    assert entry["name"].tolist() == [b"one", b"two"] and entry["size"].tolist() == [0.5, 2.0]
    writer = TFRecordWriter(str(tmp_path / "b"))
    writer.write({"name": ([b"one", b"two"], "byte"), "size": ([0.5, 2.0], "float")})
    writer.close()
    (data,) = read(tmp_path / "b")
    assert isinstance(data, bytes)
    features = parse_example(data)
    assert strings(features, "name") == [b"one", b"two"]
    assert floats(features, "size", (2,)).tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (OFFSETS[2] + 20, "record 2 is damaged: wrong checksum"),
        (OFFSETS[3] - 1, "record 2 is damaged: wrong checksum"),
        (OFFSETS[2] + 3, "record 2 is damaged: its length has a wrong checksum; the rest"),
        (OFFSETS[2] + 9, "record 2 is damaged: its length has a wrong checksum; the rest"),
    ],
)
def test_a_flipped_byte_costs_its_record_or_the_rest(
    tmp_path: Path, write_records: Write, place: int, message: str
) -> None:
    path = write_records(tmp_path / "a", PAYLOADS)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    items = read(path)
    assert items[:2] == PAYLOADS[:2]
    assert str(path) in str(items[2]) and message in str(items[2])
    assert items[3:] == ([] if "rest" in message else PAYLOADS[3:])
    for start in range(7):  # as many items from every start
        assert read(path, start=start) == items[start:]


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (OFFSETS[3] + 5, "the file ends within its length"),
        (OFFSETS[3] + 30, "the file ends within its 71 bytes"),
        (OFFSETS[4] - 2, "the file ends within its 71 bytes"),
    ],
)
def test_a_cut_file_is_read_as_far_as_it_goes(
    tmp_path: Path, write_records: Write, length: int, message: str
) -> None:
    path = write_records(tmp_path / "a", PAYLOADS)
    other = write_records(tmp_path / "b", PAYLOADS[:1])
    path.write_bytes(path.read_bytes()[:length])
    items = read(path, other)
    assert items[:3] == PAYLOADS[:3]
    assert f"{path}, record 3 is damaged: {message}" in str(items[3])
    assert items[4:] == PAYLOADS[:1]
    for start in range(6):
        assert read(path, other, start=start) == items[start:]
    # The same in a whole gzip file.
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(path, other) == items


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_stream_is_named(tmp_path: Path, write_records: Write, damage: str) -> None:
    noise = np.random.default_rng(0).bytes(60_000)  # incompressible
    path = write_records(tmp_path / "a", [noise] * 4, True)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-30_000:]
    else:
        data[len(data) // 2] ^= 255
    path.write_bytes(data)
    items = read(path)
    assert items[0] == noise
    assert all(item == noise for item in items if isinstance(item, bytes))
    assert any(isinstance(item, str) for item in items[1:4])  # a record is lost
    assert f"{path}, record {len(items) - 1} is damaged: the gzip stream" in str(items[-1])


def test_what_is_no_tfrecord_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "record 0 is damaged: its length has a wrong checksum" in str(read(path)[0])


def test_features_are_parsed(example: Callable[..., bytes]) -> None:
    image = np.random.default_rng(0).integers(256, size=(4, 5, 3), dtype=np.uint8)
    rows = [bytes([value]) for value in image.ravel().tolist()]
    features = parse_example(example(rows=rows, whole=[image.tobytes()], x=[1.0, -2.5, 3.0]))
    np.testing.assert_array_equal(pixels(features, "rows", (4, 5, 3)), image)
    np.testing.assert_array_equal(pixels(features, "whole", (4, 5, 3)), image)
    assert floats(features, "x", (3, 1)).tolist() == [[1.0], [-2.5], [3.0]]
    assert strings(features, "rows") == rows


def test_a_whole_string_is_not_taken_for_many(example: Callable[..., bytes]) -> None:
    # Its serialised list is as long as one of single bytes may be.
    for values in (b"\n\1" * 3, b"\n\1a", b"abc"):
        features = parse_example(example(image=[values]))
        assert pixels(features, "image", (len(values),)).tobytes() == values


def test_unpacked_floats_are_read() -> None:
    values = np.array([1.5, -2.0], "<f4")
    packed = b"".join(b"\x0d" + value.tobytes() for value in values)
    feature = b"\x12" + bytes([len(packed)]) + packed
    entry = b"\x0a\x01x\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    parsed = parse_example(b"\x0a" + bytes([len(features)]) + features)
    assert floats(parsed, "x", (2,)).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\xff\xff\xff", b"\x08\x01", b"\x0a\x02\x0a\xff"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"tf\.train\.Example"):
        parse_example(data)


def test_missing_and_misshapen_features_are_named(example: Callable[..., bytes]) -> None:
    features: Any = parse_example(example(image=[b"ab"], x=[1.0]))
    with pytest.raises(ValueError, match=r"'mask'.* image, x"):
        pixels(features, "mask", (2,))
    with pytest.raises(ValueError, match=r"^feature 'image' .*shape"):
        pixels(features, "image", (3,))
    with pytest.raises(ValueError, match=r"^feature 'x' .*shape"):
        floats(features, "x", (2,))


def message(*parts: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([number << 3 | 2, len(data)]) + data for number, data in parts)


@pytest.mark.parametrize("entry", [message((1, b"x"), (2, b"")), message((1, b"x"))])
def test_a_feature_that_is_not_set_is_named_where_it_is_wanted(entry: bytes) -> None:
    other = message((1, b"y"), (2, message((1, message((1, b"ab"))))))
    features = parse_example(message((1, message((1, entry), (1, other)))))
    assert strings(features, "y") == [b"ab"]
    wanted = r"^feature 'x' .*nothing"
    with pytest.raises(ValueError, match=wanted):
        strings(features, "x")
    with pytest.raises(ValueError, match=wanted):
        floats(features, "x", (1,))
    with pytest.raises(ValueError, match=wanted):
        pixels(features, "x", (2,))


def test_lists_of_another_kind_are_refused(example: Callable[..., bytes]) -> None:
    features = parse_example(example(x=[1.0], y=[b"abcd"]))
    with pytest.raises(ValueError, match=r"^feature 'x' .*floats"):
        pixels(features, "x", (4,))
    with pytest.raises(ValueError, match=r"^feature 'y' .*strings"):
        floats(features, "y", (1,))
    integers = message((1, message((1, message((1, b"n"), (2, message((3, b"\x0a\4abcd"))))))))
    with pytest.raises(ValueError, match=r"^feature 'n' .*integers"):
        floats(parse_example(integers), "n", (1,))


def test_written_files_are_those_of_the_format(
    tmp_path: Path, write_records: Write, example: Callable[..., bytes]
) -> None:
    texts, numbers = [b"one", b"", b"x" * 300], np.arange(10, dtype=np.float32).reshape(5, 2)
    written = encode_example({"name": texts, "size": numbers})
    assert written == example(name=texts, size=numbers.ravel().tolist())
    parsed = parse_example(written)
    assert strings(parsed, "name") == texts
    np.testing.assert_array_equal(floats(parsed, "size", (5, 2)), numbers)
    write_file(tmp_path / "folder/ours", iter(PAYLOADS))
    theirs = write_records(tmp_path / "theirs", PAYLOADS)
    assert (tmp_path / "folder/ours").read_bytes() == theirs.read_bytes()


def test_an_interrupted_file_is_not_left_behind(tmp_path: Path) -> None:
    def payloads() -> Iterator[bytes]:
        yield b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a", payloads())
    assert not (tmp_path / "a").exists()
