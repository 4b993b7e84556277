"""GQN rooms: files, splits, views and cameras of small files in the real format."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.readers import DamagedRecord, Record
from genesis_rl.data.readers.gqn import GqnRooms

FOLDERS = {"train": ("train", "0001-of-2160"), "validation": ("train", "2125-of-2160")}
FOLDERS["test"] = ("test", "001-of-240")
ROOMS = 6


def jpeg(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), value, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def cameras(room: int) -> npt.NDArray[np.float32]:
    return np.arange(50, dtype=np.float32).reshape(10, 5) + 100 * room


@pytest.fixture
def rooms(
    tmp_path: Path, write_records: Callable[..., Path], example: Callable[..., bytes]
) -> Callable[..., Path]:
    """Write a file of rooms; view v of room r has the constant value 20 r + 2 v."""

    def make(split: str, first: int = 0, frames: int = 10) -> Path:
        folder, name = FOLDERS[split]
        payloads = [
            example(
                frames=[jpeg(20 * room + 2 * view) for view in range(frames)],
                cameras=cameras(room).ravel().tolist(),
            )
            for room in range(first, first + ROOMS)
        ]
        path = tmp_path / "rooms_ring_camera" / folder / f"{name}.tfrecord"
        return write_records(path, payloads)

    return make


def values(images: npt.NDArray[np.uint8]) -> list[int]:
    assert (np.ptp(images.reshape(len(images), -1), axis=1) == 0).all()
    return [int(value) for value in images[:, 0, 0, 0]]


def open_gqn(path: Path, split: str = "train", **options: Any) -> Pack:
    options = {"num_files": 1, **options}
    return open_dataset("gqn", split, root=path / "root", source=path, **options)


@pytest.mark.parametrize("split", FOLDERS)
def test_one_random_view_of_every_room(
    tmp_path: Path, rooms: Callable[..., Path], split: str
) -> None:
    rooms(split)
    pack = open_gqn(tmp_path, split)
    assert pack.images.shape == (ROOMS, 64, 64, 3) and pack.masks is None
    found = values(pack.images)
    views = [(value - 20 * room) // 2 for room, value in enumerate(found)]
    assert all(0 <= view < 10 for view in views) and len(set(views)) > 1
    for room, view in enumerate(views):
        assert pack.factors["camera_pose"][room].tolist() == cameras(room)[view].tolist()
    # The same for the same seed, from the whole or from the middle.
    source = GqnRooms(tmp_path, split, num_files=1)
    for start in (0, 4):
        again = [record for record in source.records(start) if isinstance(record, Record)]
        assert values(np.stack([record.image for record in again])) == found[start:]
    assert values(open_gqn(tmp_path, split, seed=1).images) != found


def test_all_views(tmp_path: Path, rooms: Callable[..., Path]) -> None:
    rooms("test")
    pack = open_gqn(tmp_path / "rooms_ring_camera", "test", frames="all")  # both folders are valid
    assert values(pack.images) == [2 * i for i in range(10 * ROOMS)]
    assert (
        pack.factors["camera_pose"].tolist()
        == np.concatenate([cameras(room) for room in range(ROOMS)]).tolist()
    )
    source = GqnRooms(tmp_path, "test", frames="all", num_files=1)
    assert len(list(source.records(37))) == 10 * ROOMS - 37
    first = next(source.records(37))
    assert isinstance(first, Record) and first.image[0, 0, 0] == 74


def test_files_are_read_one_after_the_other(tmp_path: Path, rooms: Callable[..., Path]) -> None:
    first = rooms("train")
    second = rooms("train", first=ROOMS).rename(first.with_name("0002-of-2160.tfrecord"))
    assert second.is_file() and not first.is_file()
    rooms("train")
    pack = open_gqn(tmp_path, num_files=2)
    assert [value // 20 for value in values(pack.images)] == list(range(2 * ROOMS))


def test_splits_are_cut_as_published() -> None:
    names = {}
    for split in FOLDERS:
        paths = GqnRooms(Path("/data"), split)._paths()
        names[split] = (len(paths), str(paths[0]), str(paths[-1]))
    assert names == {
        "train": (2124, "/data/train/0001-of-2160.tfrecord", "/data/train/2124-of-2160.tfrecord"),
        "validation": (
            36,
            "/data/train/2125-of-2160.tfrecord",
            "/data/train/2160-of-2160.tfrecord",
        ),
        "test": (240, "/data/test/001-of-240.tfrecord", "/data/test/240-of-240.tfrecord"),
    }
    assert len(GqnRooms(Path("/data"), "train")) == 10_620_000
    assert len(GqnRooms(Path("/data"), "validation", frames="all")) == 1_800_000


def test_missing_files_are_told(tmp_path: Path, rooms: Callable[..., Path]) -> None:
    rooms("train")
    message = (
        r"0002-of-2160\.tfrecord is missing and 2,122 more files \(or set num_files .*"
        r"gs://gqn-dataset/rooms_ring_camera/train/0002-of-2160\.tfrecord.*set source"
    )
    with pytest.raises(FileNotFoundError, match=message):
        open_gqn(tmp_path, num_files=None)
    with pytest.raises(FileNotFoundError, match=r"root/gqn/original/test/001-of-240\.tfrecord "):
        open_dataset("gqn", "test", root=tmp_path / "root", num_files=1)


def test_damage_is_named_and_counted(tmp_path: Path, rooms: Callable[..., Path]) -> None:
    path = rooms("train")
    data = bytearray(path.read_bytes())
    place = data.index(jpeg(20 * 2 + 6))  # in room 2
    data[place + 100] ^= 1
    path.write_bytes(data[:-50])  # and truncate room 5
    with pytest.raises(DamagedRecord, match=r"tfrecord, record 2 .*checksum"):
        open_gqn(tmp_path)
    pack = open_gqn(tmp_path, on_damage="skip")
    assert pack.meta["damaged"] == 2
    assert [value // 20 for value in values(pack.images)] == [0, 1, 3, 4]
    everything = open_gqn(tmp_path, on_damage="skip", frames="all")
    assert len(everything) == 40 and everything.meta["damaged"] == 20


def test_other_records_are_named(
    tmp_path: Path, rooms: Callable[..., Path], write_records: Callable[..., Path], example: Any
) -> None:
    rooms("train", frames=9)
    with pytest.raises(DamagedRecord, match=r"record 0 .*10 frames"):
        open_gqn(tmp_path)
    path = tmp_path / "rooms_ring_camera/train/0001-of-2160.tfrecord"
    write_records(path, [example(frames=[b"no jpeg"] * 10, cameras=[0.0] * 50)])
    with pytest.raises(DamagedRecord, match=r"record 0 .*image"):
        open_gqn(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": "two"}, r"^frames "),
        ({"seed": -1}, r"^seed "),
        ({"num_files": 0}, r"^num_files "),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_gqn(tmp_path, **options)
    with pytest.raises(TypeError, match=r"GqnRooms.*'views'"):
        open_gqn(tmp_path, views=3)
