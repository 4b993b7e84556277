"""Views of rooms as a generated dataset, rendered in parallel and resumable.

An image depends only on the options, the split and its index.
"""

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import SPLITS, check_split
from genesis_rl.data.generated import GeneratedDataset
from genesis_rl.data.pack import ResumablePackWriter
from genesis_rl.utils.checks import Checked, Count, Natural, within
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.offscreen import require_gl
from genesis_rl.worlds.rooms.rendering import RoomRenderer
from genesis_rl.worlds.rooms.rules import (
    MAX_OBJECTS,
    RING_RADIUS,
    SHAPES,
    CameraPose,
    NumObjects,
    Room,
    in_camera_frame,
    room_state,
    sample_ring_pose,
    sample_room,
)
from genesis_rl.worlds.rooms.textures import TEXTURES, TextureSet
from genesis_rl.worlds.sprites import from_options
from genesis_rl.worlds.workers import Workers

_BATCH = 32  # images of one task of a process


@dataclass(frozen=True)
class RoomScenes(Checked):
    """Rooms, and cameras on a ring that face inwards."""

    image_size: Annotated[int, within(8, 1024)] = 64
    """side of the images in pixels"""
    num_objects: NumObjects = (1, MAX_OBJECTS)
    """smallest and largest number of objects in a room, 1 to 3; uniformly distributed"""
    textures: TextureSet = "train"
    """set of textures of walls and floors: train (5 and 3, as many as in the original), test (3
    and 2 others) or all"""
    empty: bool = False
    """rooms without objects, to train a background"""
    views: Count = 1
    """views of each room, consecutive images"""
    camera_radius: Annotated[float, within(2.5, 3.2)] = RING_RADIUS
    """radius of the cameras' ring in metres; the room has 7 x 7 m"""
    yaw_jitter: Annotated[float, within(0, 90)] = 0.0
    """largest angle between a camera's heading and the direction to the room's centre, in
    degrees; 0 as in the original"""
    seed: Natural = 0
    """random seed"""

    def room(self, split: str, number: int) -> Room:
        """Sample a room of a split; it depends on the options, the split and its number only."""
        rng = np.random.default_rng([self.seed, SPLITS.index(split), number])
        least, most = (0, 0) if self.empty else self.num_objects
        return sample_room(rng, int(rng.integers(least, most + 1)), self.textures)

    def pose(self, split: str, index: int) -> CameraPose:
        """Sample the camera of an image of a split; it depends on the same and its index."""
        number, view = divmod(index, self.views)
        # From 1, because seeds that differ by a final 0 are the same.
        rng = np.random.default_rng([self.seed, SPLITS.index(split), number, view + 1])
        return sample_ring_pose(rng, self.camera_radius, self.yaw_jitter)


class RoomViews(NamedTuple):
    """Views of rooms.

    Attributes:
        images: (n, H, W, 3) uint8.
        masks: (n, H, W) uint8: 0 = background, i + 1 = i-th object.
        factors: ground truth by name, n rows each, see `write_rooms`.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    factors: dict[str, npt.NDArray[Any]]


class RoomViewRenderer:
    """Renderer of the views of a split by index; one per process."""

    def __init__(self, scenes: RoomScenes, split: str) -> None:
        """Create an OpenGL context."""
        self._scenes, self._split = scenes, split
        self._renderer = RoomRenderer(scenes.image_size)

    def render(self, indices: range) -> RoomViews:
        """Render some views."""
        images, masks, factors = [], [], []
        for index in indices:
            room = self._scenes.room(self._split, index // self._scenes.views)
            pose = self._scenes.pose(self._split, index)
            self._renderer.load(room)
            image, labels = self._renderer.render(pose)
            images.append(image)
            masks.append(labels)
            factors.append(_factors(room, pose, labels))
        joined = {name: np.stack([row[name] for row in factors]) for name in factors[0]}
        return RoomViews(np.stack(images), np.stack(masks), joined)


class _Batches(RoomViewRenderer):
    """Renderer of batches of consecutive views by number."""

    def __init__(self, scenes: RoomScenes, split: str, indices: range) -> None:
        super().__init__(scenes, split)
        self._indices = indices

    def __call__(self, number: int) -> RoomViews:
        return self.render(self._indices[number * _BATCH : (number + 1) * _BATCH])


def _factors(
    room: Room, pose: CameraPose, labels: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[Any]]:
    """Return the factors of one view."""
    state = room_state(room.objects, MAX_OBJECTS)
    seen = in_camera_frame(state[:, :3].astype(float), pose).astype(np.float32)
    seen[len(room.objects) :] = 0
    pixels = np.bincount(labels.ravel(), minlength=MAX_OBJECTS + 1)[1:]
    return {
        "state": state,
        **{name: seen[:, axis] for axis, name in enumerate("xyz")},
        "colour": state[:, -3:],
        "shape": state[:, 6 : 6 + len(SHAPES)].argmax(1),
        "scale": state[:, 5],
        "in_view": pixels > 0,
        "num_objects": np.array(len(room.objects)),
        "camera_pose": np.array(pose, np.float32),
        "wall": np.array(TEXTURES["all"]["wall"].index(room.wall)),
        "floor": np.array(TEXTURES["all"]["floor"].index(room.floor)),
        "light": np.array(room.light, np.float32),
    }


def rooms_dataset(*, workers: int | None = None, **options: Any) -> GeneratedDataset:
    """Return the dataset of rooms, see `genesis_rl.data.generated`.

    Args:
        workers: rendering processes; None: one per processor.
        **options: options of `RoomScenes`.

    Raises:
        ValueError: for an invalid value of an option.
        TypeError: for an unknown option.
    """
    scenes = from_options(RoomScenes, options)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")

    def meta(split: str, count: int) -> dict[str, Any]:
        return {"dataset": "rooms", "split": split, "num_images": count, **asdict(scenes)}

    def write(folder: Path, split: str, first: int, count: int) -> None:
        write_rooms(folder, scenes, split, first, count, meta(split, count), workers)

    return GeneratedDataset("rooms", meta, write)


def write_rooms(
    folder: Path,
    scenes: RoomScenes,
    split: str,
    first: int,
    count: int,
    meta: dict[str, Any],
    workers: int | None = None,
) -> None:
    """Render views of a split as a pack; an interrupted call is resumed.

    Factors with a row per object: "state", see `genesis_rl.worlds.rooms.STATE_COLUMNS`; "x", "y"
    and "z", the position in the camera's frame (metres ahead, to the left and above the camera,
    because an image does not show the room's axes); "colour" (RGB in 0..1); "shape" (index into
    `SHAPES`); "scale" (half of the height in metres); and "in_view" (has a pixel in the mask).
    Factors of the image: "num_objects"; "camera_pose" (x, y, z, yaw, pitch); "wall" and "floor"
    (index into `TEXTURES["all"]`); and "light" (direction to the light).

    Args:
        folder: destination.
        scenes: options of the rooms.
        split: "train", "validation" or "test".
        first: index of the first image in the split.
        count: number of images.
        meta: JSON data for meta.json.
        workers: rendering processes; None: one per processor.

    Raises:
        ValueError: for an unknown split.
        OSError: if the pack cannot be written.
        RuntimeError: if OpenGL is not available, or a process dies.
    """
    check_split(split)
    require_gl()
    make = partial(_Batches, scenes, split, range(first, first + count))
    # Batches are always written whole, so an interrupted writer stopped at the start of one.
    writer = ResumablePackWriter(folder, count, scenes.image_size, meta=meta)
    bar = ProgressBar(total=count, desc=f"rooms, {split}", unit="img")
    with writer, bar, Workers(make, workers or os.cpu_count() or 1) as pool:
        bar.update(writer.written)
        for views in pool.map(range(writer.written // _BATCH, -(-count // _BATCH))):
            writer.write(views.images, views.masks, **views.factors)
            bar.update(len(views.images))
            writer.checkpoint_regularly()
