r"""Watch imagined scenes move, alone or below the real environment from the same start.

    python envs/imagine.py --model runs/eyes --world-model runs/world
    python envs/imagine.py --model runs/eyes --world-model runs/world \
        --env genesis_rl/ObjectGoal-v0 --options model_temperature 0.5 --out runs/dream.mp4
    python envs/imagine.py --model runs/eyes --world-model runs/world \
        --env genesis_rl/ObjectGoal-v0 --speed 1 64 1024

Each row shows a scene, the masks of its slots, and what is in each slot.
"""

import sys
from collections.abc import Sequence

import tyro

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.imagination_speed import dream_speeds
from genesis_rl.envs.imagine import ImagineConfig, film
from genesis_rl.envs.watch import present
from genesis_rl.process import report_stop


def report_speed(config: ImagineConfig) -> None:
    """Print steps per second of imagined environments, beside the real one's."""
    print("environments  dream steps/s  real, frames  real, slots")
    for speed in dream_speeds(
        config.dream_options,
        config.speed,
        env=config.env,
        env_options=config.real_options,
        steps=config.steps,
    ):
        real = "".join(
            f"{'-' if value is None else f'{value:,.0f}':>{width}}"
            for value, width in ((speed.frames, 14), (speed.slots, 13))
        )
        print(f"{speed.num_envs:>12,}{speed.dream:>15,.0f}{real}")


@report_stop("imagine.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Watch; return the exit status."""
    try:
        config = tyro.cli(ImagineConfig, args=argv, description=__doc__)
        if config.speed:
            report_speed(config)
            return 0
        title = "imagine" if config.window else None
        present(film(config), out=config.out, fps=config.fps, window=title)
        if not config.window:
            print(config.out)
    except (ValueError, TypeError, OSError) as error:
        print(f"imagine.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
