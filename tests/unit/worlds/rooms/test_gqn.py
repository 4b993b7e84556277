"""Rooms in GQN's layout, read back by this package's reader and by the `tfrecord` package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfrecord.reader import tfrecord_loader

from genesis_rl.data import open_dataset
from genesis_rl.data.readers.media import decode_image
from genesis_rl.worlds.rooms.dataset import RoomScenes, RoomViewRenderer
from genesis_rl.worlds.rooms.gqn import write_gqn

SCENES = RoomScenes(seed=5)
SMALL: dict[str, Any] = {"rooms_per_file": 3, "workers": 1}
NAMES = {
    "train": ["train/0001-of-2160.tfrecord", "train/0002-of-2160.tfrecord"],
    "validation": ["train/2125-of-2160.tfrecord", "train/2126-of-2160.tfrecord"],
    "test": ["test/001-of-240.tfrecord", "test/002-of-240.tfrecord"],
}


@pytest.fixture(scope="module")
def folder(opengl: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gqn")
    for split, names in NAMES.items():
        paths = write_gqn(folder, SCENES, split, num_files=2, **SMALL)
        assert paths == [folder / "rooms_ring_camera" / name for name in names]
    return folder


@pytest.mark.parametrize("split", NAMES)
def test_our_reader_reads_what_was_rendered(folder: Path, tmp_path: Path, split: str) -> None:
    options: dict[str, Any] = {"root": tmp_path, "source": folder, "num_files": 2}
    pack = open_dataset("gqn", split, frames="all", **options)
    assert pack.images.shape == (60, 64, 64, 3) and pack.masks is None
    views = RoomViewRenderer(replace(SCENES, views=10), split).render(range(60))
    np.testing.assert_array_equal(pack.factors["camera_pose"], views.factors["camera_pose"])
    errors = np.abs(pack.images.astype(int) - views.images).mean((1, 2, 3))
    assert errors.max() < 6  # JPEG
    assert len(open_dataset("gqn", split, frames="one", **options)) == 6


def test_another_reader_reads_the_format(folder: Path) -> None:
    path = folder / "rooms_ring_camera" / NAMES["test"][0]
    records = list(tfrecord_loader(str(path), None))
    assert len(records) == 3
    for record in records:
        assert np.asarray(record["cameras"], np.float32).shape == (50,)
        assert len(record["frames"]) == 10
        for frame in record["frames"]:
            assert bytes(frame[:2]) == b"\xff\xd8"  # JPEG
            assert decode_image(bytes(frame)).shape == (64, 64, 3)


def test_existing_files_are_kept(folder: Path) -> None:
    path = folder / "rooms_ring_camera" / NAMES["train"][1]
    before = path.stat().st_mtime_ns
    content = path.read_bytes()
    write_gqn(folder, SCENES, "train", num_files=2, **SMALL)
    assert path.stat().st_mtime_ns == before
    path.unlink()
    write_gqn(folder, SCENES, "train", num_files=2, **SMALL)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("split", "scenes", "options", "message"),
    [
        ("all", SCENES, {}, "split must be one of"),
        ("train", RoomScenes(image_size=32), {}, "image_size must be 64 in GQN's layout, got 32"),
        ("test", SCENES, {"num_files": 241}, "num_files must be from 1 to 240 for test, got 241"),
        ("train", SCENES, {"num_files": 0}, "num_files must be from 1 to 2,124 for train, got 0"),
        ("train", SCENES, {"rooms_per_file": 0}, "rooms_per_file must be at least 1, got 0"),
    ],
)
def test_invalid_options(
    tmp_path: Path, split: str, scenes: RoomScenes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_gqn(tmp_path, scenes, split, **options)
    assert not any(tmp_path.iterdir())


def test_a_folder_has_rooms_of_one_kind(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"empty must be False as in the dataset .*, got True"):
        write_gqn(folder, replace(SCENES, empty=True), "train", **SMALL)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="out must be a new folder or a rendered dataset"):
        write_gqn(tmp_path, SCENES, "train", **SMALL)
