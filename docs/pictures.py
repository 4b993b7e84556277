"""Draw the pictures of the environment pages: `python docs/pictures.py`."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

import genesis_rl  # noqa: F401 (registers the environments)
from genesis_rl.envs import TASKS
from genesis_rl.visualize import mosaic, save_png

FOLDER = Path(__file__).parent / "environments"


def frames(name: str, seed: int, **options: Any) -> list[npt.NDArray[np.uint8]]:
    """Render an episode of random actions, the frame after the reset first."""
    env = gym.make(f"genesis_rl/{name}-v0", render_mode="rgb_array", **options)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    rendered, ended = [np.asarray(env.render())], False
    while not ended and len(rendered) < 10:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        ended = terminated or truncated
        rendered.append(np.asarray(env.render()))
    env.close()
    return rendered


def main() -> None:
    """Write the pictures."""
    first = [frames(name, 1, render_size=160)[0] for name in TASKS]
    save_png(FOLDER / "relational-tasks.png", mosaic(np.stack(first)[None], captions=TASKS))
    episode = frames("ShapeStacks", 4, height=4, hover_offset=0.1, reach=0.1, render_size=160)
    captions = ["reset", *(f"step {i}" for i in range(1, len(episode)))]
    save_png(FOLDER / "shapestacks.png", mosaic(np.stack(episode)[None], captions=captions))
    episode = frames("Compose", 1, encoder="multi-dsprites-sharp", reward="objects")
    captions = ["reset", *(f"step {i}" for i in range(1, len(episode)))]
    save_png(FOLDER / "compose.png", mosaic(np.stack(episode)[None], captions=captions, scale=4))


if __name__ == "__main__":
    main()
