"""Watch an environment under a random policy, as a film or in a window.

python envs/watch.py
python envs/watch.py --options num_objects 3 object_scale 0.25 --out runs/watch.mp4
python envs/watch.py --env CartPole-v1 --window
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy.typing as npt
import tyro

import genesis_rl  # noqa: F401 (registers the environment ids)
from genesis_rl.envs.watch import WatchConfig, make_rendering, random_frames, read_options
from genesis_rl.visualize import save_gif, save_mp4


def show(frames: Iterable[npt.NDArray[Any]], fps: float) -> None:
    """Show frames in a window until they end or a key is pressed."""
    for frame in frames:
        cv2.imshow("watch", frame[..., ::-1])
        if cv2.waitKey(max(1, round(1000 / fps))) >= 0:
            break
    cv2.destroyAllWindows()


def main(argv: Sequence[str] | None = None) -> int:
    """Watch; return the exit status."""
    try:
        config = tyro.cli(WatchConfig, args=argv, description=__doc__)
        env = make_rendering(config.env, read_options(config.options))
        frames = random_frames(
            env, episodes=config.episodes, max_steps=config.max_steps, seed=config.seed
        )
        if config.window:
            show(frames, config.fps)
        else:
            config.out.parent.mkdir(parents=True, exist_ok=True)
            save = save_gif if config.out.suffix == ".gif" else save_mp4
            save(config.out, frames, fps=config.fps)
            print(config.out)
        env.close()
    except (ValueError, OSError) as error:
        print(f"watch.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
