import errno
import json
import multiprocessing
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.data import open_dataset
from genesis_rl.data.cache import data_root, open_or_make
from genesis_rl.data.pack import Pack, PackWriter

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(5, 6, 7, 3), dtype=np.uint8)
MASKS = RNG.integers(4, size=(5, 6, 7), dtype=np.uint8)
FACTORS = {"x": np.arange(5.0), "colour": np.arange(15, dtype=np.uint8).reshape(5, 3)}


def write(folder: Path, masks: bool = True) -> Path:
    with PackWriter(folder, 5, (6, 7), masks=masks, meta={"note": "hello"}) as writer:
        for rows in (slice(0, 2), slice(2, 5)):
            factors = {name: values[rows] for name, values in FACTORS.items()}
            writer.write(IMAGES[rows], MASKS[rows] if masks else None, **factors)
    return folder


def make(folder: Path) -> None:
    write(folder)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pack = Pack.open(write(tmp_path / "new" / "pack"))
    assert len(pack) == 5 and pack.meta["note"] == "hello" and pack.meta["image_size"] == [6, 7]
    assert isinstance(pack.images, np.memmap) and not pack.images.flags.writeable
    np.testing.assert_array_equal(pack.images, IMAGES)
    np.testing.assert_array_equal(pack.masks, MASKS)
    assert pack.factors.keys() == FACTORS.keys()
    for name, values in FACTORS.items():
        np.testing.assert_array_equal(pack.factors[name], values)
    assert "5 images of 6x7, with masks" in repr(pack)
    assert [path.name for path in pack.folder.parent.iterdir()] == ["pack"]


def test_masks_and_factors_are_optional(tmp_path: Path) -> None:
    with PackWriter(tmp_path / "pack", 5, (6, 7), masks=False) as writer:
        writer.write(IMAGES)
    pack = Pack.open(tmp_path / "pack")
    assert pack.masks is None and pack.factors == {}


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        PackWriter(tmp_path / "pack", 5, (6, 7), masks=False) as writer,
    ):
        writer.write(IMAGES[:2])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_leave_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"^num_images "),
        PackWriter(tmp_path / "pack", 5, (6, 7), masks=False) as writer,
    ):
        writer.write(IMAGES[:2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "masks", "factors", "message"),
    [
        (IMAGES[..., :2], MASKS, {}, r"^images "),
        (IMAGES.astype(float), MASKS, {}, r"^images "),
        (IMAGES, MASKS[:3], {}, r"^masks "),
        (IMAGES, None, {}, r"^masks "),
        (IMAGES, MASKS, {"x": np.zeros(4)}, r"^factor x "),
        (np.concatenate([IMAGES] * 2), np.concatenate([MASKS] * 2), {}, r"^num_images "),
    ],
)
def test_writer_refuses_what_does_not_fit(
    tmp_path: Path,
    images: npt.NDArray[Any],
    masks: npt.NDArray[np.uint8] | None,
    factors: dict[str, Any],
    message: str,
) -> None:
    with (
        pytest.raises(ValueError, match=message),
        PackWriter(tmp_path / "pack", 5, (6, 7)) as writer,
    ):
        writer.write(images, masks, **factors)


def test_writer_refuses_other_factors_in_a_later_batch(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"^factors "),
        PackWriter(tmp_path / "pack", 5, (6, 7), masks=False) as writer,
    ):
        writer.write(IMAGES[:2], x=np.zeros(2))
        writer.write(IMAGES[2:])


def test_writer_refuses_a_folder_in_use_and_bad_sizes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="empty"):
        PackWriter(tmp_path, 5, 8)
    size: Any
    for n, size in ((0, 8), (5, 0), (5, (8, 8, 3))):
        with pytest.raises(ValueError, match=r"^num_images\ and\ image_size "):
            PackWriter(tmp_path / "pack", n, size)


def test_a_full_disk_is_told_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with (
        pytest.raises(OSError, match=r"pack: .* MB") as caught,
        PackWriter(tmp_path / "pack", 5, (6, 7)),
    ):
        pass
    assert caught.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"pack: .*GENESIS_RL_DATA") as caught,
        PackWriter(tmp_path / "pack", 5, (6, 7), masks=False) as writer,
    ):
        writer._files["images.npy"].close()
        with open("/dev/full", "wb", buffering=0) as full:
            writer._files["images.npy"] = full
            writer.write(IMAGES)
    assert caught.value.errno == errno.ENOSPC and list(tmp_path.iterdir()) == []


def test_folders_without_meta_are_not_packs(tmp_path: Path) -> None:
    folder = write(tmp_path / "pack")
    (folder / "meta.json").unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"pack.*meta\.json"):
            Pack.open(path)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("damage", ["cut", "missing", "empty"])
def test_damaged_arrays_are_named(tmp_path: Path, name: str, damage: str) -> None:
    path = write(tmp_path / "pack") / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-1] if damage == "cut" else b"")
    with pytest.raises(ValueError, match=name):
        Pack.open(path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_images": 6}, r"images\.npy .*meta\.json"),
        ({"image_size": [7, 6]}, r"images\.npy .*meta\.json"),
        ({"image_size": 6}, r"meta\.json "),
        ({"num_images": None}, r"meta\.json "),
        ({"format": 99}, "'format' 1"),
    ],
)
def test_meta_is_checked_against_the_files(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "pack") / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        Pack.open(path.parent)


def test_damaged_meta_and_factors_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "pack")
    (folder / "factors.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"factors\.npz"):
        _ = Pack.open(folder).factors
    np.savez(folder / "factors.npz", x=np.zeros(4), colour=np.zeros(5))
    with pytest.raises(ValueError, match=r"factors\.npz .*x .*4"):
        _ = Pack.open(folder).factors
    (folder / "meta.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match=r"meta\.json"):
        Pack.open(folder)


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_factors_cut_short_are_named(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "pack") / "factors.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"factors\.npz "):
        _ = Pack.open(path.parent).factors


def test_remains_of_killed_processes_are_removed(tmp_path: Path) -> None:
    remains = tmp_path / ".pack.genesis_rl"
    (remains / "new").mkdir(parents=True)
    (remains / "new" / "images.npy").write_bytes(b"half")
    (remains / "owner.json").write_text('{"made_by": "genesis_rl"}')
    assert len(open_or_make(tmp_path / "pack", make)) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    folder = write(tmp_path / "pack")
    np.save(folder / "images.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"images\.npy"):
        Pack.open(folder)


def test_data_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "other") == tmp_path / "other"
    monkeypatch.delenv("GENESIS_RL_DATA")
    assert data_root().parts[-2:] == (".cache", "genesis_rl")


def test_a_root_without_a_home_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("GENESIS_RL_DATA", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ValueError, match="GENESIS_RL_DATA"):
        data_root()
    monkeypatch.setenv("GENESIS_RL_DATA", "/data")
    assert data_root() == Path("/data")


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="GENESIS_RL_DATA"):
        open_dataset("object_goal", num_images=1, image_size=8, root=tmp_path / "file")


def _make_once(folder: Path, log: Path) -> None:
    def logged(path: Path) -> None:
        with open(log, "a") as file:
            file.write("made\n")
        make(path)

    assert len(open_or_make(folder, logged)) == 5


def test_two_processes_make_a_pack_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [context.Process(target=_make_once, args=(tmp_path / "pack", log)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert log.read_text() == "made\n"


def test_open_dataset_takes_folders(tmp_path: Path) -> None:
    write(tmp_path / "data" / "test")
    assert len(open_dataset(tmp_path / "data", "test")) == 5
    assert len(open_dataset(str(tmp_path / "data" / "test"))) == 5
    with pytest.raises(TypeError, match=r"^options .*seed"):
        open_dataset(tmp_path / "data", "test", seed=1)


def test_open_dataset_refuses_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data .*'cats'"):
        open_dataset("cats")
    with pytest.raises(ValueError, match=r"^split "):
        open_dataset("object_goal", "val")
    with pytest.raises(TypeError, match=r"ObjectGoalWorld.*'size'"):
        open_dataset("object_goal", root=tmp_path, size=3)
