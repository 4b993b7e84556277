"""Folders of images and videos: order, splits, kinds of pixels, damage."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.media import decode_image
from genesis_rl.data.sources import DamagedRecord

U8 = npt.NDArray[np.uint8]
RED = np.tile(np.array([200, 30, 10], np.uint8), (8, 8, 1))


def save(path: Path, value: int, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def opened(name: str, folder: Path, split: str = "train", **options: Any) -> Pack:
    options = {"image_size": 8, **options}
    return open_dataset(name, split, root=folder / "root", source=folder / "data", **options)


def values(pack: Pack) -> list[int]:
    return [int(value) for value in pack.images[:, 0, 0, 0]]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_images_are_taken_in_order_and_cut(tmp_path: Path) -> None:
    for n in range(20):
        save(tmp_path / "data" / f"part{n // 10}" / f"{n % 10}.png", n)
    (tmp_path / "data" / "notes.txt").write_text("no image")
    found = {split: values(opened("images", tmp_path, split)) for split in ("validation", "test")}
    assert found == {"validation": [16, 17], "test": [18, 19]}
    assert values(opened("images", tmp_path)) == list(range(16))
    pack = opened("images", tmp_path)
    assert pack.masks is None and pack.factors == {}


def test_folders_of_the_splits_are_taken_whole(tmp_path: Path) -> None:
    for split, value in (("train", 1), ("train", 2), ("test", 3)):
        save(tmp_path / "data" / split / f"{value}.png", value)
    assert values(opened("images", tmp_path)) == [1, 2]
    assert values(opened("images", tmp_path, "test")) == [3]
    with pytest.raises(FileNotFoundError, match=r"data/validation has no files of the types \.png"):
        opened("images", tmp_path, "validation")


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_colours_are_right(kind: str) -> None:
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(RED), kind)), RED)


def test_kinds_of_pixels() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(grey)))[..., 1], grey)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 7)
    np.testing.assert_array_equal(decode_image(encoded(deep))[..., 2], grey)
    palette = Image.fromarray(RED).quantize(4)
    np.testing.assert_array_equal(decode_image(encoded(palette)), RED)
    clear = np.dstack([RED, np.full((8, 8), 51, np.uint8)])  # a fifth, over black
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(clear))), RED // 5)


@pytest.mark.smoke
def test_cameras_orientation_is_followed() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, :8] = 255
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    Image.fromarray(image).save(file, "PNG", exif=exif)
    turned = decode_image(file.getvalue())
    assert turned.shape == (16, 8, 3) and turned[:8].min() == 255 and turned[8:].max() == 0


# A flipped byte shows in PNG alone: JPEG has no checksum.
@pytest.mark.parametrize(
    ("kind", "damage"),
    [("png", "flipped"), *((k, d) for k in ("png", "jpg") for d in ("cut", "empty", "other"))],
)
def test_damaged_images_are_named_and_counted(tmp_path: Path, kind: str, damage: str) -> None:
    rng = np.random.default_rng(0)
    for n in range(4):
        path = save(tmp_path / "data" / "train" / f"{n}.{kind}", n)
        if n == 2:
            Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(path)
            data = bytearray(path.read_bytes())
            data[-60] ^= 1
            cut = data[: len(data) // 2]
            path.write_bytes(
                {"cut": bytes(cut), "empty": b"", "other": b"GIF8 or so"}.get(damage, bytes(data))
            )
    with pytest.raises(DamagedRecord, match=rf"train/2\.{kind} is damaged: it cannot be decoded"):
        opened("images", tmp_path)
    pack = opened("images", tmp_path, on_damage="skip")
    assert len(pack) == 3 and pack.meta["damaged"] == 1


def test_mixed_sizes(tmp_path: Path) -> None:
    save(tmp_path / "data" / "train" / "a.png", 1)
    save(tmp_path / "data" / "train" / "b.png", 2, (8, 12))
    with pytest.raises(DamagedRecord, match=r"train/b\.png is damaged: 8 x 12 pixels, but the fir"):
        opened("images", tmp_path)
    assert values(opened("images", tmp_path, resize="crop")) == [1, 2]


# ---- videos --------------------------------------------------------------------------------------


def film(path: Path, first: int, count: int = 20, codec: str = "MJPG") -> Path:
    """A video whose frame i is all first + 8 i, and about that after coding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (48, 32))
    for n in range(count):
        writer.write(np.full((32, 48, 3), first + 8 * n, np.uint8))
    writer.release()
    return path


@pytest.mark.smoke
@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_videos_are_cut_one_by_one(tmp_path: Path, suffix: str, codec: str) -> None:
    film(tmp_path / "data" / f"a{suffix}", 0, codec=codec)
    film(tmp_path / "data" / f"b{suffix}", 50, codec=codec)
    frames = {"train": [*range(16)], "validation": [16, 17], "test": [18, 19]}
    for split, numbers in frames.items():
        pack = opened("videos", tmp_path, split)
        assert pack.factors["frame"].tolist() == numbers * 2
        assert pack.factors["video"].tolist() == [0] * len(numbers) + [1] * len(numbers)
        want = [50 * video + 8 * n for video in (0, 1) for n in numbers]
        np.testing.assert_allclose(values(pack), want, atol=6)


def test_every_nth_frame(tmp_path: Path) -> None:
    film(tmp_path / "data" / "train" / "a.avi", 0)
    pack = opened("videos", tmp_path, every=6)
    assert pack.factors["frame"].tolist() == [0, 6, 12, 18]
    np.testing.assert_allclose(values(pack), [0, 48, 96, 144], atol=6)
    with pytest.raises(ValueError, match="every is 0; wanted at least 1"):
        opened("videos", tmp_path, every=0)


def test_colours_of_videos_are_right(tmp_path: Path) -> None:
    path = tmp_path / "data" / "train" / "a.avi"
    path.parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (48, 32))
    writer.write(np.tile(RED[..., ::-1], (4, 6, 1)))
    writer.release()
    np.testing.assert_allclose(opened("videos", tmp_path).images[0], RED, atol=6)


def test_damaged_videos_are_named_and_counted(tmp_path: Path) -> None:
    cut = film(tmp_path / "data" / "train" / "a.avi", 0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    (tmp_path / "data" / "train" / "b.mp4").write_bytes(b"no video")
    film(tmp_path / "data" / "train" / "c.avi", 50)
    with pytest.raises(
        DamagedRecord, match=r"a\.avi, frame \d+ is damaged: the video ends, or can"
    ):
        opened("videos", tmp_path)
    pack = opened("videos", tmp_path, on_damage="skip")
    assert pack.meta["damaged"] == 2
    video = pack.factors["video"].tolist()
    assert video.count(2) == 20 and 0 < video.count(0) < 20
    with pytest.raises(FileNotFoundError, match=r"has no files of the types \.mp4"):
        open_dataset("videos", root=tmp_path)
