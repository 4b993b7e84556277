"""Videos of an environment under a random policy."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TransformObservation

from genesis_rl.envs.make import check_wrappers, make_env, parse_options
from genesis_rl.envs.window import has_window
from genesis_rl.envs.wrappers.frame_source import find_frames
from genesis_rl.envs.wrappers.rendering import RenderedObs
from genesis_rl.perception.preprocessing import Crop, Layout, as_crop, as_nhwc_uint8
from genesis_rl.utils.checks import Count, Must, Positive, check_fields
from genesis_rl.visualization import save_animation

AnimationPath = Annotated[
    Path, Must("a .gif or .mp4 file", lambda path: path.suffix in (".gif", ".mp4"))
]
Window = Annotated[
    bool,
    Must(
        "False with an OpenCV without windows (install opencv-python instead of "
        "opencv-python-headless, or write a file)",
        lambda window: not window or has_window(),
    ),
]


@dataclass(frozen=True)
class WatchConfig:
    """Environment and output of a video."""

    env: str = "genesis_rl/ObjectGoal-v0"
    """id of a registered environment with rendering; module:id imports the module first"""
    options: dict[str, str] = field(default_factory=dict)
    """options of the environment, as name value pairs; values are parsed as JSON if possible"""
    env_options: str = "{}"
    """options of the environment as JSON, as of envs/collect.py; overridden by options"""
    wrappers: tuple[str, ...] = ()
    """wrappers of the environment, module:Class, innermost first"""
    render: bool = True
    """show rendered frames; --no-render: the frames of the observations, as envs/collect.py records
    them without --render"""
    image_key: str | None = None
    """with --no-render: entry of a Dict observation with the image, or its path in nested Dicts,
    e.g. camera/rgb; None: inferred from the space"""
    image_layout: Layout = "auto"
    """with --no-render: axis order of a frame, e.g. HWC; auto: inferred from its shape"""
    crop: Crop | None = None
    """region of interest of every frame in pixels: top, left, height and width"""
    out: AnimationPath = Path("runs/watch.gif")
    """video file to write, .gif or .mp4"""
    window: Window = False
    """show the video in a window instead of writing a file"""
    episodes: Count = 5
    """number of episodes"""
    max_steps: Count = 500
    """maximum number of steps in total"""
    fps: Positive = 10.0
    """steps per second of the video"""
    seed: int = 0
    """seed of the environment and the policy"""

    def __post_init__(self) -> None:
        """Validate every field."""
        check_fields(self)
        _ = self.all_options
        check_wrappers(self.wrappers)
        as_crop(self.crop)
        if self.render and (self.image_key is not None or self.image_layout != "auto"):
            raise ValueError(
                "image_key and image_layout must not be set with render, got "
                f"{self.image_key!r} and {self.image_layout!r}. Use --no-render."
            )

    @property
    def all_options(self) -> dict[str, Any]:
        """Options of the environment."""
        return {**parse_options(self.env_options), **read_options(self.options)}


def read_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Parse command-line options: values that are JSON as JSON, others as strings."""
    parsed: dict[str, Any] = {}
    for name, value in options.items():
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed


def make_watched(config: WatchConfig) -> gym.Env[Any, Any]:
    """Make the environment of the settings, with frames (H, W, 3) uint8 as observations.

    Raises:
        ValueError: if it cannot be created, or has no frames.
    """
    mode = {"render_mode": "rgb_array"} if config.render else {}
    env = make_env(config.env, {**config.all_options, **mode}, config.wrappers)
    if config.render:
        env = RenderedObs(env)
    source = find_frames(
        env.observation_space,
        key=config.image_key,
        layout="HWC" if config.render else config.image_layout,
        crop=config.crop,
    )
    layout, white = source.layout, source.white
    return TransformObservation(
        env,
        lambda entries: as_nhwc_uint8(source.frames(entries), layout=layout, white=white)[0],
        gym.spaces.Box(0, 255, (*source.size, 3), np.uint8),
    )


def random_frames(
    env: gym.Env[Any, Any], *, episodes: int, max_steps: int, seed: int = 0
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frame after every reset and step of a random policy.

    Args:
        env: environment of `make_watched`.
        episodes: number of episodes.
        max_steps: maximum number of steps in total.
        seed: seed of the first reset and of the actions.

    Yields:
        (H, W, 3) uint8 frames.
    """
    env.action_space.seed(seed)
    yield env.reset(seed=seed)[0]
    for _ in range(max_steps):
        frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
        yield frame
        if terminated or truncated:
            episodes -= 1
            if not episodes:
                return
            yield env.reset()[0]


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
