r"""Render imagined rollouts to a video, alone or below the real environment.

    python envs/imagine.py --encoder sprites-fast --world-model object-comparison
    python envs/imagine.py --encoder runs/encoder --world-model runs/world \
        --env genesis_rl/ObjectGoal-v0 --options model_temperature 0.5 --out runs/imagine.mp4
    python envs/imagine.py --encoder runs/encoder --world-model runs/world \
        --env genesis_rl/ObjectGoal-v0 --speed 1 64 1024

Each row shows a scene, its masks and the content of each slot.
"""

import sys

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.imagination.imagine import ImagineConfig, imagination_speeds, video_frames
from genesis_rl.envs.watch import save_or_show
from genesis_rl.utils.flags import program


def report_speed(config: ImagineConfig) -> None:
    """Print steps per second of imagined environments and of the real one."""
    print("environments  imagined steps/s  real, frames  real, slots")
    for speed in imagination_speeds(
        config.imagination_options,
        config.speed,
        env=config.env,
        env_options=config.real_options,
        steps=config.steps,
    ):
        real = "".join(
            f"{'-' if value is None else f'{value:,.0f}':>{width}}"
            for value, width in ((speed.real_frames, 14), (speed.real_slots, 13))
        )
        print(f"{speed.num_envs:>12,}{speed.imagined:>18,.0f}{real}")


@program("imagine.py", ImagineConfig, __doc__)
def main(config: ImagineConfig) -> int:
    """Run the program; return the exit status."""
    if config.speed:
        report_speed(config)
        return 0
    title = "imagine" if config.window else None
    save_or_show(video_frames(config), out=config.out, fps=config.fps, window=title)
    if not config.window:
        print(config.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
