"""The reader of the object-centric library on small HDF5 files."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from genesis_rl.data import Pack, convert, open_dataset
from genesis_rl.data.readers import DamagedRecord
from genesis_rl.data.readers.hdf5 import ObjectCentricHdf5

N, E = 10, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(N, 16, 16, 3), dtype=np.uint8)
MASKS = RNG.integers(E, size=(N, 16, 16, 1), dtype=np.int32)
X = RNG.random((N, E, 1), dtype=np.float32)
COLOUR = RNG.random((N, E, 3), dtype=np.float32)


def write(folder: Path, name: str = "clevr_10", **options: Any) -> Path:
    path = folder / f"{name}-full.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=IMAGES, **options)
        file.create_dataset("mask", data=MASKS, **options)
        file["num_actual_objects"] = np.arange(N, dtype=np.uint8)[:, None]
        file["visibility"] = np.ones((N, E), np.uint8)
        file["x"] = X
        file["color"] = COLOUR
        file["scene"] = np.arange(N * 5.0).reshape(N, 5)
        file["names"] = np.array([b"a"] * N)  # not numeric
        file["sizes"] = np.arange(3)  # not one row per image
        file.create_group("more")
    return path


def opened(folder: Path, split: str = "train", **options: Any) -> Pack:
    options = {"image_size": 16, **options}
    root = folder / "root"
    return open_dataset("object_centric_library", split, root=root, source=folder, **options)


@pytest.mark.smoke
@pytest.mark.parametrize("options", [{}, {"chunks": (2, 16, 16, 3)}])
def test_what_is_in_the_file_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path)
    if options:
        with h5py.File(path, "a") as file:
            del file["image"]
            file.create_dataset("image", data=IMAGES, compression="gzip", **options)
    pack = opened(tmp_path)
    np.testing.assert_array_equal(pack.images, IMAGES)
    np.testing.assert_array_equal(pack.masks, MASKS[..., 0])
    factors = pack.factors
    assert factors.keys() == {"count", "visibility", "x", "colour", "scene"}
    np.testing.assert_array_equal(factors["count"], np.arange(N))
    # Row i belongs to label i + 1.
    np.testing.assert_array_equal(factors["x"], X[:, 1:, 0])
    np.testing.assert_array_equal(factors["colour"], COLOUR[:, 1:])
    np.testing.assert_array_equal(factors["scene"], np.arange(N * 5).reshape(N, 5))


def test_objects_room_has_four_backgrounds(tmp_path: Path) -> None:
    write(tmp_path, "objects_room_train")
    pack = opened(tmp_path, data="objects_room")
    assert pack.masks is not None and not pack.masks.any()
    assert pack.factors["x"].shape == (N, 0)


def replace(path: Path, name: str, values: Any) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, data=values)


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_entities_above_255_never_merge(tmp_path: Path, dtype: Any) -> None:
    masks = MASKS.astype(dtype)
    masks[0, :3, 0, 0] = [300, 301, 1000]
    replace(write(tmp_path), "mask", masks)
    pack = opened(tmp_path)
    assert pack.masks is not None
    # Labels 1 to 3 have a row of factors.
    assert pack.masks[0, :3, 0].tolist() == [4, 5, 6]
    np.testing.assert_array_equal(pack.masks[1:], MASKS[1:, ..., 0])


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1, r"ids .*-1"), (0.5, r"ids .*float64")],
)
def test_what_is_no_entity_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    masks = MASKS.astype(np.asarray(value).dtype)
    masks[2, 5, 5] = value
    replace(write(tmp_path), "mask", masks)
    with pytest.raises(DamagedRecord, match=rf"record \d .*{message}"):
        opened(tmp_path)


def test_too_many_entities_are_counted(tmp_path: Path) -> None:
    masks = MASKS.astype(np.int32)
    masks[0, ..., 0] = np.arange(256, 512).reshape(16, 16)
    replace(write(tmp_path), "mask", masks)
    with pytest.raises(DamagedRecord, match=r"record 0 .*256 "):
        opened(tmp_path)


def test_floats_of_unknown_white_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    replace(path, "image", IMAGES / 255)
    np.testing.assert_array_equal(opened(tmp_path).images, IMAGES)
    replace(path, "image", IMAGES.astype(np.float32))
    with pytest.raises(DamagedRecord, match=r"record 0 .*\[0, 1\]"):
        opened(tmp_path, num_train=N)


def test_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setattr("genesis_rl.data.readers.hdf5._HELD_OUT", 3)
    for split, rows in (("train", range(4)), ("validation", range(4, 7)), ("test", range(7, 10))):
        pack = opened(tmp_path, split, num_train=4)
        np.testing.assert_array_equal(pack.images, IMAGES[rows.start : rows.stop])
    source = ObjectCentricHdf5(tmp_path, "validation", num_train=4)
    assert [len(list(source.records(start))) for start in (0, 2, 3, 9)] == [3, 1, 0, 0]
    assert len(ObjectCentricHdf5(tmp_path, "train", "clevrtex")) == 40_000
    with pytest.raises(ValueError, match="object_centric_library, test"):
        opened(tmp_path, "test", num_train=20)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_cut_file_is_named(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DamagedRecord, match=r"clevr_10-full\.hdf5 .*truncated"):
        opened(tmp_path)
    with pytest.raises(ValueError, match=" 1 records"):
        opened(tmp_path, on_damage="skip")


def test_a_damaged_chunk_costs_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path, chunks=True)
    with h5py.File(path, "a") as file:
        del file["image"]
        array = file.create_dataset("image", data=IMAGES, chunks=(2, 16, 16, 3), fletcher32=True)
        place = array.id.get_chunk_info_by_coord((4, 0, 0, 0)).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 100] ^= 255
    path.write_bytes(data)
    with pytest.raises(DamagedRecord, match=r"clevr_10-full\.hdf5, record 4 "):
        opened(tmp_path)
    pack = opened(tmp_path, on_damage="skip")
    assert pack.meta["damaged"] == 2
    np.testing.assert_array_equal(pack.images, np.delete(IMAGES, (4, 5), axis=0))


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "clevr_10-full.hdf5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(DamagedRecord, match=r"clevr_10-full\.hdf5 .*signature"):
        opened(tmp_path)
    for arrays, message in (
        ({}, r"arrays .*'image'"),
        ({"image": IMAGES}, r"arrays .*mask .*10"),
        ({"image": IMAGES, "mask": MASKS[:, :8]}, r"record 0 .*reshape"),
        ({"image": IMAGES[..., :2], "mask": MASKS}, r"record 0 .*frames "),
    ):
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
        with pytest.raises(DamagedRecord, match=message):
            opened(tmp_path)


def test_bad_options_and_missing_files(tmp_path: Path) -> None:
    message = (
        r"tetrominoes-full\.hdf5 is missing: download it from"
        r" https://data-download\.compute\.dtu\.dk/multi_object_datasets/tetrominoes-full\.hdf5"
    )
    with pytest.raises(FileNotFoundError, match=message):
        opened(tmp_path, data="tetrominoes")
    with pytest.raises(ValueError, match=r"^data "):
        opened(tmp_path, data="cats")
    with pytest.raises(ValueError, match=r"^num_train "):
        opened(tmp_path, num_train=0)


def test_every_reader_is_a_data_set() -> None:
    assert convert.ORIGINALS.keys() == convert.READERS.keys()
