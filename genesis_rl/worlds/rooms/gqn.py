"""Rooms in the record layout of GQN's `rooms_ring_camera`.

`genesis_rl.data.readers.gqn` reads the files, and so does software written for the original.
"""

import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from genesis_rl.data.cache import check_split
from genesis_rl.data.readers.gqn import IMAGE_SIZE, VIEWS, record_files
from genesis_rl.data.readers.tfrecord import encode_example, write_records
from genesis_rl.utils.files import store_settings
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.offscreen import require_gl
from genesis_rl.worlds.rooms.dataset import RoomScenes, RoomViewRenderer
from genesis_rl.worlds.workers import Workers

_SETTINGS = "settings.json"
_QUALITY = 95  # of the JPEG files, in percent


class _RecordRenderer(RoomViewRenderer):
    """Renderer of serialised records by the number of the room."""

    def __call__(self, number: int) -> bytes:
        views = self.render(range(number * VIEWS, (number + 1) * VIEWS))
        options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        frames = [cv2.imencode(".jpg", image[..., ::-1], options)[1] for image in views.images]
        cameras = views.factors["camera_pose"].astype(np.float32)
        return encode_example({"frames": [bytes(frame) for frame in frames], "cameras": cameras})


def write_gqn(
    folder: Path,
    scenes: RoomScenes,
    split: str,
    *,
    num_files: int = 1,
    rooms_per_file: int = 5000,
    workers: int | None = None,
) -> list[Path]:
    """Render rooms as TFRecord files with the names of the original, the first ones of a split.

    A record has ten views of a room, as JPEG files of 64 pixels, and ten cameras x, y, z, yaw and
    pitch, in metres and radians (see `genesis_rl.worlds.rooms.rules`). Existing files are kept, so
    that an interrupted call is resumed at a file.

    Args:
        folder: output folder; the files are in its folder `rooms_ring_camera`.
        scenes: options of the rooms; `views` is always 10.
        split: "train", "validation" or "test".
        num_files: number of files, at most that of the original.
        rooms_per_file: number of records in a file; 5000 in the original.
        workers: rendering processes; None: one per processor.

    Returns:
        The paths of the files.

    Raises:
        ValueError: for an unknown split, another size than 64, too many files, or a folder that
            contains other rooms.
        OSError: if a file cannot be written.
        RuntimeError: if OpenGL is not available, or a process dies.
    """
    check_split(split)
    if scenes.image_size != IMAGE_SIZE:
        raise ValueError(
            f"image_size must be {IMAGE_SIZE} in GQN's layout, got {scenes.image_size}."
        )
    if rooms_per_file < 1:
        raise ValueError(f"rooms_per_file must be at least 1, got {rooms_per_file}.")
    paths = record_files(folder / "rooms_ring_camera", split)
    if not 1 <= num_files <= len(paths):
        raise ValueError(
            f"num_files must be from 1 to {len(paths):,} for {split}, got {num_files}."
        )
    scenes = replace(scenes, views=VIEWS)
    store_settings(folder, _SETTINGS, {"rooms_per_file": rooms_per_file, **asdict(scenes)})
    require_gl()
    make = partial(_RecordRenderer, scenes, split)
    with Workers(make, workers or os.cpu_count() or 1) as pool:
        for file, path in enumerate(paths[:num_files]):
            if not path.exists():
                rooms = range(file * rooms_per_file, (file + 1) * rooms_per_file)
                records = pool.map(rooms)
                bar = ProgressBar(records, total=rooms_per_file, desc=path.name, unit="room")
                write_records(path, bar)
    return paths[:num_files]
