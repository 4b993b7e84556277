"""Draw a data set to a folder, whole or in shards that many machines draw side by side.

    python pretrain/generate.py multi_dsprites data/multi --num-images 1000000
    python pretrain/generate.py multi_dsprites data/multi --num-images 1000000 --shards 20 --shard 7
    python pretrain/generate.py multi_dsprites data/multi --join
    python pretrain/train.py --data data/multi

Shards joined in order are the same bytes as the whole: an image depends on the options, the split
and its number alone. What is there is not drawn again. docs/guides/scale.md has a cluster's job
array.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from genesis_rl.data.generated import (
    DEFAULT_SIZES,
    generated,
    join_shards,
    write_shard,
    write_split,
)
from genesis_rl.data.originals import parse_options
from genesis_rl.process import report_stop


@dataclass(frozen=True)
class GenerateConfig:
    """What to draw."""

    data: str
    """name of the data set"""
    out: Path
    """folder of the packs, one for each split"""
    options: str = "{}"
    """options of the data set as JSON, e.g. '{"image_size": 32}'"""
    split: tuple[str, ...] = field(default=("train", "validation", "test"))
    """splits to draw or join"""
    num_images: int | None = None
    """images of each split; None: 50,000 for training and 10,000 otherwise"""
    shards: int = 1
    """into how many parts a split is cut"""
    shard: int | None = None
    """number of the part to draw, from 0; None: $SLURM_ARRAY_TASK_ID where there is one, and else
    the whole"""
    join: bool = False
    """put the parts together that are there; draws nothing"""

    def __post_init__(self) -> None:
        """Check values."""
        for name in ("num_images", "shards"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; wanted at least 1.")


@report_stop("generate.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Draw, or join; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[GenerateConfig]
        config = tyro.cli(settings, args=argv, description=__doc__)
        data = generated(config.data, **parse_options(config.options))
        shard = config.shard
        if shard is None and config.shards > 1 and "SLURM_ARRAY_TASK_ID" in os.environ:
            shard = int(os.environ["SLURM_ARRAY_TASK_ID"])
        for split in config.split:
            if config.join:
                print(join_shards(config.out, split))
                continue
            count = config.num_images
            if count is None:
                count = DEFAULT_SIZES.get(split, 1)
            if shard is None:
                print(write_split(data, config.out, split, count))
            else:
                print(write_shard(data, config.out, split, count, shard, config.shards))
    except (ValueError, TypeError, OSError) as error:
        print(f"generate.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
