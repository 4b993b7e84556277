"""Videos of an environment under a random policy."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt

from genesis_rl.envs.window import has_window
from genesis_rl.frames import as_nhwc_uint8
from genesis_rl.visualize import save_animation


@dataclass(frozen=True)
class WatchConfig:
    """Environment and output of a video."""

    env: str = "genesis_rl/ObjectGoal-v0"
    """id of a registered environment with rendering; module:id imports the module first"""
    options: dict[str, str] = field(default_factory=dict)
    """options of the environment, as name value pairs; values are parsed as JSON if possible"""
    out: Path = Path("runs/watch.gif")
    """video file to write, .gif or .mp4"""
    window: bool = False
    """show the video in a window instead of writing a file"""
    episodes: int = 5
    """number of episodes"""
    max_steps: int = 500
    """maximum number of steps in total"""
    fps: float = 10.0
    """steps per second of the video"""
    seed: int = 0
    """seed of the environment and the policy"""

    def __post_init__(self) -> None:
        """Validate every field."""
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")
        if not self.fps > 0:
            raise ValueError(f"fps must be > 0, got {self.fps}.")
        if self.out.suffix not in (".gif", ".mp4"):
            raise ValueError(f"out must end in .gif or .mp4, got {self.out}.")
        if self.window and not has_window():
            raise ValueError(
                "window must be False with an OpenCV without windows (opencv-python-headless), got"
                " True. Install opencv-python instead, or write a file."
            )


def read_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Parse command-line options: values that are JSON as JSON, others as strings."""
    parsed: dict[str, Any] = {}
    for name, value in options.items():
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed


def make_rendering(env_id: str, options: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make an environment with render_mode "rgb_array".

    Raises:
        ValueError: for an unknown id or unknown options.
    """
    try:
        return gym.make(env_id, render_mode="rgb_array", **options)
    except (gym.error.Error, ModuleNotFoundError, TypeError) as error:
        raise ValueError(f"env {env_id!r} cannot be made: {error}") from error


def random_frames(
    env: gym.Env[Any, Any], *, episodes: int, max_steps: int, seed: int = 0
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the rendered frame after every reset and step of a random policy.

    Args:
        env: environment with render_mode="rgb_array".
        episodes: number of episodes.
        max_steps: maximum number of steps in total.
        seed: seed of the first reset and of the actions.

    Yields:
        (H, W, 3) uint8 frames.

    Raises:
        ValueError: if the environment does not render (H, W, 3) integer frames.
    """
    env.action_space.seed(seed)
    env.reset(seed=seed)
    yield _frame(env)
    for _ in range(max_steps):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        yield _frame(env)
        if terminated or truncated:
            episodes -= 1
            if not episodes:
                return
            env.reset()
            yield _frame(env)


def save_or_show(
    frames: Iterable[npt.NDArray[np.uint8]], *, out: Path, fps: float, window: str | None = None
) -> None:
    """Write frames of one size (H, W, 3) to a video file, or show them in a window.

    Args:
        frames: frames of the video.
        out: output file, .gif or .mp4; its folder is created if missing.
        fps: frames per second.
        window: title of a window to show the frames in until a key is pressed; no file is written.

    Raises:
        ValueError: if there are no frames or their sizes differ.
    """
    if window is None:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_animation(out, frames, fps=fps)
        return
    for frame in frames:
        cv2.imshow(window, frame[..., ::-1])
        if cv2.waitKey(max(1, round(1000 / fps))) >= 0:
            break
    cv2.destroyAllWindows()


def _frame(env: gym.Env[Any, Any]) -> npt.NDArray[np.uint8]:
    frame: Any = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[-1] != 3:
        shape = getattr(frame, "shape", type(frame).__name__)
        raise ValueError(f"render() must return an (H, W, 3) frame, got {shape}.")
    if frame.dtype.kind not in "iu":
        raise ValueError(f"render() must return integers in 0..255, got {frame.dtype}.")
    image: npt.NDArray[np.uint8] = as_nhwc_uint8(frame, layout="HWC")[0]
    return image
