"""Render rooms as in GQN's rooms_ring_camera: images, instance masks, factors and camera poses.

    python envs/render_rooms.py --out data/rooms
    python envs/render_rooms.py --out data/rooms --split train --num-images 20000
    python envs/render_rooms.py --out data/empty --split train --num-images 2000 --empty
    python envs/render_rooms.py --out data/new_textures --split test --textures test
    python pretrain/train.py --data data/rooms

Writes a pack per split. The same command resumes an interrupted run. `pretrain/generate.py rooms`
writes the same packs in shards, on several machines.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from genesis_rl.data.cache import Split
from genesis_rl.data.generated import DEFAULT_SIZES, generated_dataset, write_split
from genesis_rl.utils.checks import DIFFERENT, NOT_EMPTY, Count
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop
from genesis_rl.worlds.rooms.dataset import RoomScenes


@dataclass(frozen=True, kw_only=True)
class RenderRoomsConfig(RoomScenes):
    """Rooms to render, and the output format."""

    out: Path
    """output folder, with a pack per split"""
    split: Annotated[tuple[Split, ...], NOT_EMPTY, DIFFERENT] = ("train", "validation", "test")
    """splits to render"""
    num_images: Count | None = None
    """images per split; None: 50,000 for training and 10,000 otherwise"""
    workers: Count | None = None
    """rendering processes; None: one per processor"""

    @property
    def scenes(self) -> dict[str, Any]:
        """Options of the rooms."""
        return {entry.name: getattr(self, entry.name) for entry in fields(RoomScenes)}


@report_stop("render_rooms.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return the exit status."""
    try:
        config = parse_flags(RenderRoomsConfig, argv, __doc__)
        data = generated_dataset("rooms", workers=config.workers, **config.scenes)
        for split in config.split:
            count = config.num_images or DEFAULT_SIZES[split]
            print(write_split(data, config.out, split, count))
    except (ValueError, OSError, RuntimeError) as error:
        report_error("render_rooms.py", error, RenderRoomsConfig)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
