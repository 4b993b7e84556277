"""Folders of images and of videos: frames of a robot's camera, of a game, of anything."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

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


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) uint8; alpha is as over black, 16-bit grey is scaled.

    Raises:
        ValueError: if the bytes are no image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.verify()  # the checksums of a PNG, which decoding alone does not look at
        with Image.open(io.BytesIO(data)) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits, which PIL would clip
                pixels = (np.asarray(image) >> 8).astype(np.uint8)[..., None]
            else:
                mode = "RGBA" if image.has_transparency_data else "RGB"
                pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded as an image ({error})") from error
    rgb: npt.NDArray[np.uint8] = as_nhwc_uint8(pixels, layout="HWC")[0]
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

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Read the images from number ``start`` on.

        Raises:
            FileNotFoundError: if there are none.
        """
        for path in self._paths()[start:]:
            try:
                yield Record(decode_image(path.read_bytes()), None, {}, str(path))
            except (OSError, ValueError) as error:
                yield DamagedRecord(str(path), error)

    def _paths(self) -> list[Path]:
        paths, whole = _find(self.folder, self.split, IMAGE_TYPES)
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
        """Return the number of frames as the files tell it."""
        paths, whole = _find(self.folder, self.split, VIDEO_TYPES)
        counts = [int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) for path in paths]
        share = 1.0 if whole else SHARES[self.split][1] - SHARES[self.split][0]
        return max(1, round(share * sum(counts) / self.every))

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Read the frames from number ``start`` on.

        Raises:
            FileNotFoundError: if there are no videos.
        """
        paths, whole = _find(self.folder, self.split, VIDEO_TYPES)
        number = 0
        for video, path in enumerate(paths):
            for record in self._frames(video, path, whole):
                if number >= start:
                    yield record
                number += 1

    def _frames(self, video: int, path: Path, whole: bool) -> Iterator[Record | DamagedRecord]:
        """The frames of one video that are the split's."""
        capture = cv2.VideoCapture(str(path))
        try:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if count < 1:
                yield DamagedRecord(str(path), "it cannot be opened as a video")
                return
            part = slice(0, count) if whole else _share(self.split, count)
            for frame in range(part.stop):
                if not capture.grab():
                    # The number of frames that a file tells may be off by one or two.
                    if frame < part.stop - 2:
                        yield DamagedRecord(
                            f"{path}, frame {frame}",
                            f"the video ends, or cannot be decoded, before its {count} frames",
                        )
                    return
                if frame < part.start or (frame - part.start) % self.every:
                    continue
                _, bgr = capture.retrieve()
                image = cast("npt.NDArray[np.uint8]", cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
                factors = {"video": video, "frame": frame}
                yield Record(image, None, factors, f"{path}, frame {frame}")
        finally:
            capture.release()


def _find(folder: Path, split: str, types: tuple[str, ...]) -> tuple[list[Path], bool]:
    """Files of these types in order, and whether all of them are the split's."""
    whole = any((folder / name).is_dir() for name in SPLITS)
    place = folder / split if whole else folder
    paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in types)
    if not paths:
        raise FileNotFoundError(
            f"{place} has no files of the types {', '.join(types)}: put yours there, or name their"
            " folder (option source)"
        )
    return paths, whole


def _share(split: str, count: int) -> slice:
    first, last = SHARES[split]
    return slice(round(first * count), round(last * count))
