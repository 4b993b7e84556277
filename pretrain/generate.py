"""Generate a dataset, whole or in shards on several machines.

    python pretrain/generate.py multi_dsprites data/multi --num-images 1000000
    python pretrain/generate.py multi_dsprites data/multi --num-images 1000000 --shards 20 --shard 7
    python pretrain/generate.py multi_dsprites data/multi --join
    python pretrain/train.py --data data/multi

Joined shards equal the dataset generated whole: an image depends only on the options, the split and
its index. Existing packs are kept. docs/guides/scale.md has an example of a job array.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from genesis_rl.data.convert import parse_options
from genesis_rl.data.generated import (
    DEFAULT_SIZES,
    generated_dataset,
    join_shards,
    write_shard,
    write_split,
)
from genesis_rl.utils.checks import Checked, Count
from genesis_rl.utils.flags import program


@dataclass(frozen=True)
class GenerateConfig(Checked):
    """Settings of a generated dataset."""

    data: str
    """name of the dataset"""
    out: Path
    """folder of the packs, one per split"""
    options: str = "{}"
    """options of the dataset as JSON, e.g. '{"image_size": 32}'"""
    split: tuple[str, ...] = field(default=("train", "validation", "test"))
    """splits to generate or join"""
    num_images: Count | None = None
    """images per split; None: 50,000 for training and 10,000 otherwise"""
    shards: Count = 1
    """number of shards per split"""
    shard: int | None = None
    """index of the shard to generate, from 0; None: $SLURM_ARRAY_TASK_ID if set, otherwise the
    whole split"""
    join: bool = False
    """join existing shards; generates nothing"""


@program(
    "generate.py",
    tyro.conf.PositionalRequiredArgs[GenerateConfig],
    __doc__,
    advice="the same command resumes",
)
def main(config: GenerateConfig) -> int:
    """Generate or join packs; return the exit status."""
    data = generated_dataset(config.data, **parse_options(config.options))
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
