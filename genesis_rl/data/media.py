"""Folders of images and of videos: frames of a robot's camera, of a game, of anything."""

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from genesis_rl.data.cache import SPLITS, check_split
from genesis_rl.data.sources import DamagedRecord, Record
from genesis_rl.frames import as_nhwc_uint8

IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEO_TYPES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")

#: Where the splits begin and end when a folder has no subfolders of their names.
SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


# Bytes of the largest files that are read: more than any that is meant.
_LARGEST_IMAGE = 1 << 30
_LARGEST_VIDEO = 1 << 40


def read_image_file(path: Path) -> bytes:
    """Read an image file, without waiting for a pipe or filling the memory.

    Raises:
        OSError: if it cannot be read.
        ValueError: naming the file, if it is not a regular file, or larger than 1 GiB.
    """
    _check_file(path, _LARGEST_IMAGE)
    return path.read_bytes()


def _check_file(path: Path, largest: int) -> os.stat_result:
    """Refuse pipes, devices and files that are too large before they are opened."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} must be a regular file, got {stat.filemode(found.st_mode)}")
    if found.st_size > largest:
        raise ValueError(f"{path} must have at most {largest:,} bytes, got {found.st_size:,}")
    return found


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) uint8; see `genesis_rl.frames.pil_pixels` for its modes.

    Raises:
        ValueError: if the bytes are no image, a damaged one, or one whose white is unknown.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.verify()  # the checksums of a PNG, which decoding alone does not look at
        image = Image.open(io.BytesIO(data))
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded as an image ({error})") from error
    rgb: npt.NDArray[np.uint8] = as_nhwc_uint8(image)[0]
    return rgb


@dataclass(frozen=True)
class ImageFolder:
    """The images in a folder and its subfolders, in the order of their names."""

    folder: Path
    """folder of the images; if it has a subfolder named after the split, that one's alone.
    Otherwise the first 80 % of the images are for training, the next 10 % for validation, the rest
    for the test: in one piece, as neighbours may be frames of one scene"""
    split: str
    """train, validation or test"""

    def __post_init__(self) -> None:
        """Check the split."""
        check_split(self.split)

    @property
    def meta(self) -> dict[str, Any]:
        """What decides the content, see `genesis_rl.data.sources.Source`."""
        return {"dataset": "images", "split": self.split}

    @property
    def masks(self) -> bool:
        """None."""
        return False

    def __len__(self) -> int:
        """Return the number of image files."""
        return max(1, len(self._paths()))

    @property
    def hidden_files(self) -> int:
        """Number of images that are left out because they, or a folder of theirs, are hidden."""
        return _find(self.folder, self.split, IMAGE_TYPES).hidden

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Read the images from number ``start`` on.

        Raises:
            FileNotFoundError: if there are none.
        """
        for path in self._paths()[start:]:
            try:
                yield Record(decode_image(read_image_file(path)), None, {}, str(path))
            except (OSError, ValueError) as error:
                yield DamagedRecord(str(path), error)

    def _paths(self) -> list[Path]:
        paths, whole, _ = _find(self.folder, self.split, IMAGE_TYPES)
        return paths if whole else paths[_share(self.split, len(paths))]


@dataclass(frozen=True)
class VideoFolder:
    """Frames of the videos in a folder and its subfolders, in the order of their names.

    Factors: `video`, the number of the file, and `frame`, the place in it, both from 0.
    """

    folder: Path
    """folder of the videos; if it has a subfolder named after the split, that one's alone.
    Otherwise the first 80 % of every video are for training, the next 10 % for validation, the rest
    for the test"""
    split: str
    """train, validation or test"""
    every: int = 1
    """take every n-th frame"""

    def __post_init__(self) -> None:
        """Check values."""
        check_split(self.split)
        if self.every < 1:
            raise ValueError(f"every is {self.every}; wanted at least 1.")

    @property
    def meta(self) -> dict[str, Any]:
        """What decides the content, see `genesis_rl.data.sources.Source`."""
        return {"dataset": "videos", "split": self.split, "every": self.every}

    @property
    def masks(self) -> bool:
        """None."""
        return False

    def __len__(self) -> int:
        """Return the number of frames as far as the files' headers give it."""
        paths, whole, _ = _find(self.folder, self.split, VIDEO_TYPES)
        counts = [_header_count(path) for path in paths]
        share = 1.0 if whole else SHARES[self.split][1] - SHARES[self.split][0]
        return max(1, round(share * sum(counts) / self.every))

    @property
    def hidden_files(self) -> int:
        """Number of videos that are left out because they, or a folder of theirs, are hidden."""
        return _find(self.folder, self.split, VIDEO_TYPES).hidden

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Read the frames from number ``start`` on.

        Every video is decoded once before to count its frames: headers give none, a wrong or an
        estimated number.

        Raises:
            FileNotFoundError: if there are no videos.
        """
        paths, whole, _ = _find(self.folder, self.split, VIDEO_TYPES)
        number = 0
        for video, path in enumerate(paths):
            for record in self._frames(video, path, whole):
                if number >= start:
                    yield record
                number += 1

    def _frames(self, video: int, path: Path, whole: bool) -> Iterator[Record | DamagedRecord]:
        """The frames of one video that are the split's."""
        try:
            found = _check_file(path, _LARGEST_VIDEO)
            count, damage = _count_frames(path, found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            yield DamagedRecord(str(path), error)
            return
        if not count:
            yield DamagedRecord(str(path), "it cannot be opened as a video, or has no frames")
            return
        part = slice(0, count) if whole else _share(self.split, count)
        capture = cv2.VideoCapture(str(path))
        try:
            for frame in range(part.stop):
                if not capture.grab():
                    yield DamagedRecord(f"{path}, frame {frame}", f"it had {count} frames before")
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
    """The number of frames in a video's header, or what is estimated by it; 0 if there is none."""
    try:
        _check_file(path, _LARGEST_VIDEO)
    except (OSError, ValueError):
        return 0
    return max(0, int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)))


@cache
def _count_frames(path: Path, size: int, changed: int) -> tuple[int, str]:
    """Count the frames of a video by decoding them, once for all splits.

    Args:
        path: of the file.
        size: of the file in bytes.
        changed: time of its last change; these two tell another content.

    Returns:
        The number of frames, and what tells that there should be more, if anything does.
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
    # Few frames for the duration are no damage where the frame rate varies. An early end is: the
    # last frame is shown for no longer than any other, with two frames' time for rounding.
    if declared - 2 > count and rate > 0 and last + longest + 2 / rate < declared / rate:
        return count, (
            f"the video ends, or cannot be decoded, after {count} frames, {last:.2f} s; its header"
            f" has {declared:.0f} frames, {declared / rate:.2f} s"
        )
    return count, ""


class _Found(NamedTuple):
    """The files of a split.

    Attributes:
        paths: in order.
        whole: whether all of them are the split's.
        hidden: number of files that are left out because they, or a folder of theirs, are hidden.
    """

    paths: list[Path]
    whole: bool
    hidden: int


def _find(folder: Path, split: str, types: tuple[str, ...]) -> _Found:
    """Files of these types in a folder and its subfolders, linked ones included."""
    whole = any((folder / name).is_dir() for name in SPLITS)
    place = folder / split if whole else folder
    files = [(path, hidden) for path, hidden in _walk(place) if path.suffix.lower() in types]
    paths = sorted(path for path, hidden in files if not hidden)
    count = len(files) - len(paths)
    if not paths:
        left_out = f" ({count} hidden ones are left out)" if count else ""
        raise FileNotFoundError(
            f"{place} has no files of the types {', '.join(types)}{left_out}: put yours there, or"
            " name their folder (option source)"
        )
    return _Found(paths, whole, count)


def _walk(place: Path) -> Iterator[tuple[Path, bool]]:
    """Files below a folder, and whether a name on the way begins with a dot.

    Links to folders are followed, but every folder is read once: first by its own name, otherwise
    by the first link to it.

    Raises:
        ValueError: for a link to a folder that contains ``place``.
    """
    above = {_identity(folder) for folder in place.resolve().parents}
    seen: set[tuple[int, int]] = set()
    folders = [(place, False)] if place.is_dir() else []
    links: list[Path] = []
    while folders or links:
        folder, hidden = folders.pop() if folders else (links.pop(0), False)
        identity = _identity(folder)
        if identity in above:
            raise ValueError(
                f"{folder} must not link to {folder.resolve()}, which contains {place}. Remove the"
                " link, or name another folder (option source)."
            )
        if identity in seen:
            continue
        if not hidden:  # else a link to it, which is not hidden, would be left out
            seen.add(identity)
        for path in sorted(folder.iterdir()):
            dotted = hidden or path.name.startswith(".")
            if not path.is_dir():
                yield path, dotted
            elif not path.is_symlink():
                folders.append((path, dotted))
            elif not dotted:
                links.append(path)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _share(split: str, count: int) -> slice:
    first, last = SHARES[split]
    return slice(round(first * count), round(last * count))
