"""Render rooms as in GQN's rooms_ring_camera: images, instance masks, factors and camera poses.

    python envs/render_rooms.py --out data/rooms
    python envs/render_rooms.py --out data/rooms --split train --num-images 20000
    python envs/render_rooms.py --out data/empty --split train --num-images 2000 --empty
    python envs/render_rooms.py --out data/new_textures --split test --textures test
    python pretrain/train.py --data data/rooms

    python envs/render_rooms.py --out data/gqn --layout gqn --num-files 4

Writes a pack per split, or TFRecord files as GQN's, for `open_dataset("gqn", source=...)` and
other readers. The same command resumes an interrupted run. `pretrain/generate.py rooms` writes the
same packs in shards, on several machines.
"""

import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from genesis_rl.data.cache import Split
from genesis_rl.data.generated import DEFAULT_SIZES, generated_dataset, write_split
from genesis_rl.utils.checks import DIFFERENT, NOT_EMPTY, Count
from genesis_rl.utils.flags import program
from genesis_rl.worlds.rooms.dataset import RoomScenes
from genesis_rl.worlds.rooms.gqn import write_gqn


@dataclass(frozen=True, kw_only=True)
class RenderRoomsConfig(RoomScenes):
    """Rooms to render, and the output format."""

    out: Path
    """output folder"""
    layout: Literal["pack", "gqn"] = "pack"
    """a pack per split, or GQN's TFRecord files: ten views of every room and the camera poses,
    without masks and factors"""
    split: Annotated[tuple[Split, ...], NOT_EMPTY, DIFFERENT] = ("train", "validation", "test")
    """splits to render"""
    num_images: Count | None = None
    """images per split of packs; None: 50,000 for training and 10,000 otherwise"""
    num_files: Count = 1
    """files per split in GQN's layout; the original has 2,124, 36 and 240"""
    rooms_per_file: Count = 5000
    """rooms per file in GQN's layout"""
    workers: Count | None = None
    """rendering processes; None: one per processor"""

    @property
    def scenes(self) -> RoomScenes:
        """Options of the rooms."""
        return RoomScenes(**{entry.name: getattr(self, entry.name) for entry in fields(RoomScenes)})


@program(
    "render_rooms.py",
    RenderRoomsConfig,
    __doc__,
    advice="the same command resumes",
    errors=(ValueError, OSError, RuntimeError),
)
def main(config: RenderRoomsConfig) -> int:
    """Run the program; return the exit status."""
    for split in config.split:
        for path in render(config, split):
            print(path)
    return 0


def render(config: RenderRoomsConfig, split: str) -> list[Path]:
    """Render a split; return its pack, or its files in GQN's layout."""
    if config.layout == "gqn":
        return write_gqn(
            config.out,
            config.scenes,
            split,
            num_files=config.num_files,
            rooms_per_file=config.rooms_per_file,
            workers=config.workers,
        )
    data = generated_dataset("rooms", workers=config.workers, **asdict(config.scenes))
    count = config.num_images or DEFAULT_SIZES[split]
    return [write_split(data, config.out, split, count)]


if __name__ == "__main__":
    sys.exit(main())
