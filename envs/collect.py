r"""Record frames and steps of an environment, for pretraining and world models.

    python envs/collect.py --env CarRacing-v3 --out data/cars
    python envs/collect.py --env minigrid:MiniGrid-FourRooms-v0 --out data/rooms \
        --wrappers minigrid.wrappers:RGBImgObsWrapper
    python envs/collect.py --env Reacher-v5 --render --crop auto --out data/reacher
    python envs/collect.py --agent runs/agent --steps 50000 --out data/skilled
    python pretrain/train.py --data data/cars --out runs/cars

The policy is random without --agent. The folder contains a pack per split, by episodes.
"""

import sys
from dataclasses import replace

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.recording.collect import CollectConfig, collect, find_crop
from genesis_rl.envs.recording.minari_data import check_new, collect_minari, write_minari
from genesis_rl.envs.recording.recorder import SplitCounts
from genesis_rl.utils.flags import program


def record_all(config: CollectConfig) -> dict[str, SplitCounts]:
    """Record the source of the settings, optionally also as a Minari dataset."""
    if config.minari is not None:
        check_new(config.minari)
    recorded = record(config)
    if config.minari is not None:
        print(write_minari(config.out, list(recorded), config.minari))
    return recorded


def record(config: CollectConfig) -> dict[str, SplitCounts]:
    """Record the source of the settings."""
    if config.from_minari is not None:
        return collect_minari(config)
    if config.agent is not None:
        # Stable-Baselines3 takes seconds to import.
        from genesis_rl.agents.collect import collect_with_agent

        return collect_with_agent(config)
    if config.crop == "auto":
        config = replace(config, crop=find_crop(config))
        region = "the whole frame" if config.crop is None else " ".join(map(str, config.crop))
        print(f"crop auto: {region}")
    return collect(config)


@program("collect.py", CollectConfig, __doc__, advice="nothing was written")
def main(config: CollectConfig) -> int:
    """Run the program; return the exit status."""
    recorded = record_all(config)
    for split, (images, steps, episodes) in recorded.items():
        print(f"{config.out / split}: {images} images, {steps} steps, {episodes} episodes")
    for split in config.shares.keys() - recorded.keys():
        print(f"{split} is empty: too few episodes. Increase --steps or --n-envs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
