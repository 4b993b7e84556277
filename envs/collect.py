r"""Record frames and steps of an environment, to pretrain on and to learn its dynamics from.

    python envs/collect.py --env CarRacing-v3 --out data/cars
    python envs/collect.py --env minigrid:MiniGrid-FourRooms-v0 --out data/rooms \
        --wrappers minigrid.wrappers:RGBImgObsWrapper
    python envs/collect.py --agent runs/agent --steps 50000 --out data/skilled
    python pretrain/train.py --preset multi-dsprites-small --data data/cars

A random policy acts unless there is an agent. The folder holds a pack for each split, by episodes.
"""

import sys
from collections.abc import Sequence

import tyro

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.collect import CollectConfig, collect
from genesis_rl.envs.minari_data import check_new, collect_minari, write_minari
from genesis_rl.envs.recorder import Recorded
from genesis_rl.process import report_stop


def record_all(config: CollectConfig) -> dict[str, Recorded]:
    """Record from where the settings say, and to Minari if they do."""
    if config.minari is not None:
        check_new(config.minari)
    recorded = record(config)
    if config.minari is not None:
        print(write_minari(config.out, list(recorded), config.minari))
    return recorded


def record(config: CollectConfig) -> dict[str, Recorded]:
    """Record from where the settings say."""
    if config.from_minari is not None:
        return collect_minari(config)
    if config.agent is not None:
        # Stable-Baselines3 takes seconds to import.
        from genesis_rl.agents.collect import collect_with_agent

        return collect_with_agent(config)
    return collect(config)


@report_stop("collect.py", "nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Record; return the exit status."""
    try:
        config = tyro.cli(CollectConfig, args=argv, description=__doc__)
        recorded = record_all(config)
        for split, (images, steps, episodes) in recorded.items():
            print(f"{config.out / split}: {images} images, {steps} steps, {episodes} episodes")
        for split in config.shares.keys() - recorded.keys():
            print(f"no episode was left for {split}: record more steps, or more num_envs")
    except (ValueError, TypeError, OSError) as error:
        print(f"collect.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
