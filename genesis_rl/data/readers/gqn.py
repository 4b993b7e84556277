"""Reader of `rooms_ring_camera` of the Generative Query Network (Eslami et al., Science 2018).

A record contains ten views of a room from cameras on a ring, as JPEG files of 64 x 64 pixels, and
the camera poses. There are no masks. The GENESIS paper trains on one random view of every room.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genesis_rl.data.cache import Split
from genesis_rl.data.readers import DamagedRecord, Record, missing_files
from genesis_rl.data.readers.media import decode_image
from genesis_rl.data.readers.tfrecord import Payload, floats, parse_example, read_records, strings
from genesis_rl.utils.checks import Checked, Count, Natural

_NAME = "rooms_ring_camera"
_ORIGIN = f"gs://gqn-dataset/{_NAME}"
IMAGE_SIZE = 64
VIEWS = 10  # of a room
_RECORDS = 5000  # per file
# Folder, number of its files, first and last file of the split; validation is part of training.
_FILES = {
    "train": ("train", 2160, 1, 2124),
    "validation": ("train", 2160, 2125, 2160),
    "test": ("test", 240, 1, 240),
}


def record_files(folder: Path, split: str) -> list[Path]:
    """Return the paths of a split's files.

    Args:
        folder: folder with `rooms_ring_camera`, or with `train` and `test`.
        split: "train" (2,124 files), "validation" (36, of the folder `train`) or "test" (240).
    """
    inner = folder / _NAME
    name, count, first, last = _FILES[split]
    directory, digits = (inner if inner.is_dir() else folder) / name, len(str(count))
    numbers = range(first, last + 1)
    return [directory / f"{number:0{digits}}-of-{count}.tfrecord" for number in numbers]


@dataclass(frozen=True)
class GqnRooms(Checked):
    """Views of rooms, with the factor `camera_pose`: x, y, z, yaw and pitch."""

    folder: Path
    """folder with `rooms_ring_camera`, as written by `gsutil -m cp -r`, or with `train` and
    `test`"""
    split: Split
    """train (2,124 files of 5,000 rooms), validation (36) or test (240)"""
    frames: Literal["one", "all"] = "one"
    """one random view of every room, or all ten"""
    seed: Natural = 0
    """seed of the random views; a room's view depends only on (seed, file, room)"""
    num_files: Count | None = None
    """number of the split's files to use, the first ones; None: all (250 GB)"""

    @property
    def meta(self) -> dict[str, Any]:
        """Settings that determine the content, see `genesis_rl.data.readers.RecordReader`."""
        return {
            "dataset": "gqn",
            "split": self.split,
            "frames": self.frames,
            "seed": self.seed,
            "num_files": self.num_files,
        }

    @property
    def masks(self) -> bool:
        """Whether the records have masks: no."""
        return False

    def __len__(self) -> int:
        """Return the number of images for 5,000 rooms per file."""
        return len(self._paths()) * _RECORDS * self._views

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the views from number ``start`` on; a damaged room counts as all of its views.

        Raises:
            FileNotFoundError: if files are missing.
        """
        paths = self._paths()
        lacking = [path for path in paths if not path.is_file()]
        if lacking:
            count = "" if len(lacking) == 1 else f" and {len(lacking) - 1:,} more files"
            only = "" if self.num_files else " (or set num_files to use only the first ones)"
            first = lacking[0]
            raise missing_files(first, f"{_ORIGIN}/{first.parent.name}/{first.name}", count + only)
        room, view = divmod(start, self._views)
        for payload in read_records(paths, room):
            for number in range(view, self._views):
                if isinstance(payload, DamagedRecord):
                    yield payload
                else:
                    yield self._view(payload, number)
            view = 0

    @property
    def _views(self) -> int:
        return VIEWS if self.frames == "all" else 1

    def _paths(self) -> list[Path]:
        return record_files(self.folder, self.split)[: self.num_files]

    def _view(self, payload: Payload, number: int) -> Record | DamagedRecord:
        if self.frames == "one":
            file = int(payload.path.name.split("-")[0])
            key = (self.seed, self.split == "test", file, payload.number)
            number = int(np.random.default_rng(key).integers(VIEWS))
        try:
            example = parse_example(payload.data)
            cameras = floats(example, "cameras", (VIEWS, 5))
            frames = strings(example, "frames")
            if len(frames) != VIEWS:
                raise ValueError(f"it must have {VIEWS} frames, got {len(frames)}")
            image = decode_image(frames[number])
        except ValueError as error:
            return DamagedRecord(payload.name, error)
        return Record(image, None, {"camera_pose": cameras[number]}, payload.name)
