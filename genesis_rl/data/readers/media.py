"""Readers of folders of images and videos."""

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from genesis_rl.data.cache import SPLITS
from genesis_rl.data.readers import DamagedRecord, FileReader, Record
from genesis_rl.perception.preprocessing import as_nhwc_uint8
from genesis_rl.utils.checks import Count

IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEO_TYPES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")

#: Start and end of the splits, as shares, in folders without subfolders named after splits.
SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


# Size limits of files in bytes.
_LARGEST_IMAGE = 1 << 30
_LARGEST_VIDEO = 1 << 40


def read_image_file(path: Path) -> bytes:
    """Read an image file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not a regular file, or larger than 1 GiB; contains the path.
    """
    _check_file(path, _LARGEST_IMAGE)
    return path.read_bytes()


def _check_file(path: Path, largest: int) -> os.stat_result:
    """Raise for pipes, devices and too large files, without opening them."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} must be a regular file, got {stat.filemode(status.st_mode)}.")
    if status.st_size > largest:
        raise ValueError(f"{path} must have at most {largest:,} bytes, got {status.st_size:,}.")
    return status


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) uint8; modes as `pil_pixels`.

    Raises:
        ValueError: if the bytes are not an image, or it is damaged or has an unknown white level.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.verify()  # the checksums of a PNG, which decoding ignores
        image = Image.open(io.BytesIO(data))
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded as an image ({error})") from error
    rgb: npt.NDArray[np.uint8] = as_nhwc_uint8(image)[0]
    return rgb


@dataclass(frozen=True)
class ImageFolder(FileReader):
    """Images in a folder and its subfolders, sorted by name."""

    folder: Path
    """folder of the images, with subfolders named after the splits. Without them, the first 80 % of
    the images are for training, the next 10 % for validation, the rest for the test: contiguous, as
    neighbours may be frames of one scene"""

    name = "images"

    @property
    def masks(self) -> bool:
        """Whether the records have masks: no."""
        return False

    def __len__(self) -> int:
        """Return the number of image files."""
        return max(1, len(self._paths()))

    @property
    def hidden_files(self) -> int:
        """Number of skipped images: hidden, or in a hidden folder."""
        return _find(self.folder, self.split, IMAGE_TYPES).hidden

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the images from number ``start`` on.

        Raises:
            FileNotFoundError: if there are none.
        """
        for path in self._paths()[start:]:
            try:
                yield Record(decode_image(read_image_file(path)), None, {}, str(path))
            except (OSError, ValueError) as error:
                yield DamagedRecord(str(path), error)

    def _paths(self) -> list[Path]:
        paths, in_split_folder, _ = _find(self.folder, self.split, IMAGE_TYPES)
        return paths if in_split_folder else paths[_share(self.split, len(paths))]


@dataclass(frozen=True)
class VideoFolder(FileReader):
    """Frames of the videos in a folder and its subfolders, sorted by name.

    Factors: `video`, index of the file, and `frame`, index of the frame in it, both from 0.
    """

    folder: Path
    """folder of the videos, with subfolders named after the splits. Without them, the first 80 % of
    every video are for training, the next 10 % for validation, the rest for the test"""
    every: Count = 1
    """use every n-th frame"""

    name = "videos"

    @property
    def masks(self) -> bool:
        """Whether the records have masks: no."""
        return False

    def __len__(self) -> int:
        """Return the number of frames according to the files' headers."""
        paths, in_split_folder, _ = _find(self.folder, self.split, VIDEO_TYPES)
        counts = [_header_count(path) for path in paths]
        share = 1.0 if in_split_folder else SHARES[self.split][1] - SHARES[self.split][0]
        return max(1, round(share * sum(counts) / self.every))

    @property
    def hidden_files(self) -> int:
        """Number of skipped videos: hidden, or in a hidden folder."""
        return _find(self.folder, self.split, VIDEO_TYPES).hidden

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the frames from number ``start`` on.

        Every video is decoded once before to count its frames, as the number in the header may be
        missing, wrong or estimated.

        Raises:
            FileNotFoundError: if there are no videos.
        """
        paths, in_split_folder, _ = _find(self.folder, self.split, VIDEO_TYPES)
        number = 0
        for video, path in enumerate(paths):
            for record in self._frames(video, path, in_split_folder):
                if number >= start:
                    yield record
                number += 1

    def _frames(
        self, video: int, path: Path, in_split_folder: bool
    ) -> Iterator[Record | DamagedRecord]:
        """Yield the split's frames of one video."""
        try:
            status = _check_file(path, _LARGEST_VIDEO)
            count, damage = _count_frames(path, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError) as error:
            yield DamagedRecord(str(path), error)
            return
        if not count:
            yield DamagedRecord(str(path), "it cannot be opened as a video, or has no frames")
            return
        part = slice(0, count) if in_split_folder else _share(self.split, count)
        capture = cv2.VideoCapture(str(path))
        try:
            for frame in range(part.stop):
                if not capture.grab():
                    reason = f"it had {count} frames when counted"
                    yield DamagedRecord(f"{path}, frame {frame}", reason)
                    return
                if frame < part.start or (frame - part.start) % self.every:
                    continue
                _, bgr = capture.retrieve()
                image = cast("npt.NDArray[np.uint8]", cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
                factors = {"video": video, "frame": frame}
                yield Record(image, None, factors, f"{path}, frame {frame}")
        finally:
            capture.release()
        if damage:
            yield DamagedRecord(f"{path}, frame {count}", damage)


def _header_count(path: Path) -> int:
    """Return the number of frames in, or estimated from, a video's header; 0 if unknown."""
    try:
        _check_file(path, _LARGEST_VIDEO)
    except (OSError, ValueError):
        return 0
    return max(0, int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)))


@cache
def _count_frames(path: Path, size: int, changed: int) -> tuple[int, str]:
    """Count the frames of a video by decoding them; cached for all splits.

    Args:
        path: path of the file.
        size: size of the file in bytes, for the cache's key.
        changed: time of its last change, for the cache's key.

    Returns:
        The number of frames, and the evidence for missing ones or "".
    """
    capture = cv2.VideoCapture(str(path))
    try:
        declared, rate = (capture.get(i) for i in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        count, last, longest = 0, 0.0, 0.0
        while capture.grab():
            count += 1
            at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            longest, last = max(longest, at - last), max(last, at)
    finally:
        capture.release()
    # With a variable frame rate, few frames for the duration are no damage. An early end is: the
    # last frame lasts no longer than the longest other one, plus two frames for rounding.
    if declared - 2 > count and rate > 0 and last + longest + 2 / rate < declared / rate:
        return count, (
            f"the video ends or cannot be decoded after {count} frames, {last:.2f} s; its header"
            f" has {declared:.0f} frames, {declared / rate:.2f} s"
        )
    return count, ""


class _Files(NamedTuple):
    """The files of a split.

    Attributes:
        paths: sorted paths.
        in_split_folder: whether they are those of a folder of the split, not of all splits.
        hidden: number of skipped files: hidden, or in a hidden folder.
    """

    paths: list[Path]
    in_split_folder: bool
    hidden: int


def _find(folder: Path, split: str, types: tuple[str, ...]) -> _Files:
    """Find files by suffix in a folder and its subfolders, linked ones included."""
    in_split_folder = any((folder / name).is_dir() for name in SPLITS)
    directory = folder / split if in_split_folder else folder
    files = [(path, hidden) for path, hidden in _walk(directory) if path.suffix.lower() in types]
    paths = sorted(path for path, hidden in files if not hidden)
    count = len(files) - len(paths)
    if not paths:
        skipped = f" ({count} hidden files skipped)" if count else ""
        raise FileNotFoundError(
            f"{directory} has no files of the types {', '.join(types)}{skipped}: copy files there,"
            " or set source to their folder"
        )
    return _Files(paths, in_split_folder, count)


def _walk(directory: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the files below a folder, and whether their relative path has a hidden part.

    Links to folders are followed, but every folder is visited once: by its own path if it has one
    below ``directory``, otherwise by the first link to it.

    Raises:
        ValueError: for a link to a parent of ``directory``.
    """
    above = {_identity(folder) for folder in directory.resolve().parents}
    visited: set[tuple[int, int]] = set()
    folders = [(directory, False)] if directory.is_dir() else []
    links: list[Path] = []
    while folders or links:
        folder, hidden = folders.pop() if folders else (links.pop(0), False)
        identity = _identity(folder)
        if identity in above:
            raise ValueError(
                f"{folder} must not link to {folder.resolve()}, a parent of {directory}. Remove the"
                " link, or set source to another folder."
            )
        if identity in visited:
            continue
        if not hidden:  # otherwise a visible link to it would be skipped
            visited.add(identity)
        for path in sorted(folder.iterdir()):
            dotted = hidden or path.name.startswith(".")
            if not path.is_dir():
                yield path, dotted
            elif not path.is_symlink():
                folders.append((path, dotted))
            elif not dotted:
                links.append(path)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _share(split: str, count: int) -> slice:
    first, last = SHARES[split]
    return slice(round(first * count), round(last * count))
