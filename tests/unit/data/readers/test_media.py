"""Folders of images and videos: order, splits, kinds of pixels, damage."""

import io
import os
import runpy
import subprocess
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.readers import DamagedRecord
from genesis_rl.data.readers.media import VideoFolder, decode_image

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
    with pytest.raises(FileNotFoundError, match=r"data/validation .*\.png"):
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
    with pytest.raises(DamagedRecord, match=rf"train/2\.{kind} "):
        opened("images", tmp_path)
    pack = opened("images", tmp_path, on_damage="skip")
    assert len(pack) == 3 and pack.meta["damaged"] == 1


def test_mixed_sizes(tmp_path: Path) -> None:
    save(tmp_path / "data" / "train" / "a.png", 1)
    save(tmp_path / "data" / "train" / "b.png", 2, (8, 12))
    with pytest.raises(DamagedRecord, match=r"train/b\.png .*8 x 12"):
        opened("images", tmp_path)
    assert values(opened("images", tmp_path, resize="crop")) == [1, 2]


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "1", "LA", "I;16", "F"])
def test_colours_of_every_mode_are_right(mode: str) -> None:
    grey = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 4, axis=1))
    image = Image.fromarray(RED)
    if mode == "P":
        image = image.quantize(4)
    elif mode in ("CMYK", "YCbCr"):
        image = image.convert(mode)
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    else:
        image = grey.convert(mode)
    kinds = {"CMYK": "TIFF", "YCbCr": "JPEG", "F": "TIFF"}
    found = decode_image(encoded(image, kinds.get(mode, "PNG")))
    want = RED if mode in ("P", "CMYK", "YCbCr") else np.asarray(grey.convert("RGB"))
    np.testing.assert_allclose(found.astype(int), want, atol=3)


@pytest.mark.parametrize("maxval", [1023, 65535])
def test_grey_maps_of_16_bits_are_scaled(maxval: int) -> None:
    values = (np.arange(64).reshape(8, 8) * maxval // 63).astype(">u2")
    found = decode_image(b"P5 8 8 %d\n" % maxval + values.tobytes())
    np.testing.assert_allclose(found[..., 0], values.astype(int) * 255 / maxval, atol=0.51)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 8), 200, np.int32), r"32-bit .* 200"),
        (np.full((8, 8), 70_000, np.int32), r"32-bit .* 70000"),
        (np.full((8, 8), 200, np.float32), r"frames .*\[0, 1\]"),
        (np.full((8, 8), np.nan, np.float32), "NaN"),
    ],
)
def test_pixels_whose_white_is_unknown_are_refused(
    tmp_path: Path, values: npt.NDArray[Any], message: str
) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    Image.fromarray(values).save(tmp_path / "data" / "train" / "deep.tiff")
    with pytest.raises(DamagedRecord, match=rf"train/deep\.tiff .*{message}"):
        opened("images", tmp_path)


def test_tiffs_of_twelve_bits_or_white_as_zero_are_refused() -> None:
    deep = Image.fromarray(np.full((8, 8), 4000, np.uint16))
    file = io.BytesIO()
    deep.save(file, "TIFF", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="PhotometricInterpretation 0"):
        decode_image(file.getvalue())


# ---- content of folders --------------------------------------------------------------------------


def test_hidden_files_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data" / "train"
    save(data / "a.png", 1)
    save(data / "sub" / "b.png", 2)
    for name in (".ipynb_checkpoints/a.png", ".thumbnails/large/a.png", "sub/.b.png"):
        save(data / name, 9)
    (data / "._a.png").write_bytes(b"Mac OS X        ")
    (data / ".DS_Store").write_bytes(b"no image")
    pack = opened("images", tmp_path)
    assert values(pack) == [1, 2] and pack.meta["hidden"] == 4
    convert = runpy.run_path(str(Path(__file__).parents[4] / "pretrain" / "convert.py"))["main"]
    flags = ["--split", "train", "--out", str(tmp_path / "out"), "--image-size", "8"]
    assert convert(["images", "--source", str(tmp_path / "data"), *flags]) == 0
    assert "2 images, hidden files skipped: 4" in capsys.readouterr().out
    save(tmp_path / "other" / "data" / "train" / ".a.png", 9)
    with pytest.raises(FileNotFoundError, match="1 hidden"):
        opened("images", tmp_path / "other")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    data = tmp_path / "data" / "train"
    save(data / "b" / "1.png", 1)
    save(tmp_path / "elsewhere" / "2.png", 2)
    save(tmp_path / "elsewhere" / "deep" / "3.png", 3)
    (data / "a").symlink_to(data / "b")  # also reachable by its own path
    (data / "c").symlink_to(tmp_path / "elsewhere")
    (data / "d").symlink_to(tmp_path / "elsewhere")
    (data / "b" / "loop").symlink_to(data)
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(tmp_path / "elsewhere")
    (data / "self").symlink_to(data / "self")
    assert values(opened("images", tmp_path)) == [1, 2, 3]


def test_a_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "data" / "train" / "1.png", 1)
    (tmp_path / "data" / "train" / "up").symlink_to(tmp_path / "data")
    with pytest.raises(ValueError, match="train/up "):
        opened("images", tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "suffix"), [("images", ".png"), ("videos", ".mp4")])
@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
def test_what_is_no_file_is_refused_before_it_is_opened(
    tmp_path: Path, name: str, suffix: str, kind: str
) -> None:
    path = tmp_path / "data" / "train" / f"a{suffix}"
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate((1 << 40) + 1)  # sparse
    message = "bytes" if kind == "huge" else "regular"
    with pytest.raises(DamagedRecord, match=rf"train/a\{suffix} .*{message}"):
        opened(name, tmp_path)


# ---- videos --------------------------------------------------------------------------------------


def film(path: Path, first: int, count: int = 20, codec: str = "MJPG") -> Path:
    """Write a video whose frame i has the constant value first + 8 i, up to coding errors."""
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
    with pytest.raises(ValueError, match=r"^every "):
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
    with pytest.raises(DamagedRecord, match=r"a\.avi, frame \d+ "):
        opened("videos", tmp_path)
    pack = opened("videos", tmp_path, on_damage="skip")
    assert pack.meta["damaged"] == 2
    video = pack.factors["video"].tolist()
    assert video.count(2) == 20 and 0 < video.count(0) < 20
    with pytest.raises(FileNotFoundError, match=r"\.mp4"):
        open_dataset("videos", root=tmp_path)


def ffmpeg(*arguments: str | Path, rate: int = 25, count: int = 40) -> bytes:
    """Encode a moving test picture; return the output of a pipe."""
    source = f"testsrc=size=48x32:rate={rate}:duration={count / rate}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source]
    return subprocess.run([*command, *arguments], check=True, capture_output=True).stdout


def frames(folder: Path) -> dict[str, list[int]]:
    splits = ("train", "validation", "test")
    return {split: opened("videos", folder, split).factors["frame"].tolist() for split in splits}


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".webm", "-c:v libvpx -f webm"), (".mkv", "-c:v mpeg4 -f matroska")],
)
def test_videos_without_a_number_of_frames_are_counted(
    tmp_path: Path, suffix: str, options: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"a{suffix}").write_bytes(ffmpeg(*options.split(), "-"))
    assert frames(tmp_path) == {
        "train": [*range(32)],
        "validation": [*range(32, 36)],
        "test": [*range(36, 40)],
    }
    assert len(VideoFolder(tmp_path / "data", "train")) >= 1


def test_concatenated_parts_are_counted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    part = ffmpeg("-c:v", "mpeg1video", "-f", "mpeg", "-")
    (tmp_path / "data" / "a.mpg").write_bytes(part * 3)
    assert frames(tmp_path) == {
        "train": [*range(96)],
        "validation": [*range(96, 108)],
        "test": [*range(108, 120)],
    }


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_variable_frame_rates_leave_no_split_empty(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "data").mkdir()
    # 10 frames in a row, then one of ten.
    kept = "select='lt(n,10)+not(mod(n,10))'"
    path = tmp_path / "data" / f"a{suffix}"
    ffmpeg("-vf", kept, "-fps_mode", "vfr", "-c:v", "mpeg4", path, count=110)
    found = frames(tmp_path)
    assert found == {"train": [*range(16)], "validation": [16, 17], "test": [18, 19]}


def test_splits_of_a_cut_video_are_those_of_its_frames(tmp_path: Path) -> None:
    cut = film(tmp_path / "data" / "a.avi", 0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    for split in ("train", "validation", "test"):
        with pytest.raises(DamagedRecord, match="20 frames"):
            opened("videos", tmp_path, split)
    numbers: list[int] = []
    for split in ("train", "test"):
        pack = opened("videos", tmp_path, split, on_damage="skip")
        assert pack.meta["damaged"] == 1
        numbers += pack.factors["frame"].tolist()
    assert numbers[0] == 0 and 2 < numbers[-1] < 19
