"""Show the frames of an environment under a random policy, as a video file or in a window.

python envs/watch.py
python envs/watch.py --options num_objects 3 object_scale 0.25 --out runs/watch.mp4
python envs/watch.py --env CartPole-v1 --window
python envs/watch.py --env minigrid:MiniGrid-FourRooms-v0 --no-render
    --wrappers minigrid.wrappers:RGBImgObsWrapper
"""

import sys
from collections.abc import Sequence

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.watch import (
    WatchConfig,
    make_watched,
    random_frames,
    save_or_show,
)
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("watch.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return the exit status."""
    try:
        config = parse_flags(WatchConfig, argv, __doc__)
        env = make_watched(config)
        frames = random_frames(
            env, episodes=config.episodes, max_steps=config.max_steps, seed=config.seed
        )
        title = "watch" if config.window else None
        save_or_show(frames, out=config.out, fps=config.fps, window=title)
        if not config.window:
            print(config.out)
        env.close()
    except (ValueError, OSError) as error:
        report_error("watch.py", error, WatchConfig)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
