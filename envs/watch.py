"""Show the frames of an environment under a random policy, as a video file or in a window.

python envs/watch.py
python envs/watch.py --options num_objects 3 object_scale 0.25 --out runs/watch.mp4
python envs/watch.py --env CartPole-v1 --window
python envs/watch.py --env minigrid:MiniGrid-FourRooms-v0 --no-render
    --wrappers minigrid.wrappers:RGBImgObsWrapper
"""

import sys

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.watch import (
    WatchConfig,
    make_watched,
    random_frames,
    save_or_show,
)
from genesis_rl.utils.flags import program


@program("watch.py", WatchConfig, __doc__, errors=(ValueError, OSError))
def main(config: WatchConfig) -> int:
    """Run the program; return the exit status."""
    env = make_watched(config)
    frames = random_frames(
        env, episodes=config.episodes, max_steps=config.max_steps, seed=config.seed
    )
    title = "watch" if config.window else None
    save_or_show(frames, out=config.out, fps=config.fps, window=title)
    if not config.window:
        print(config.out)
    env.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
