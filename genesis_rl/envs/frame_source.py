"""Where an observation holds its frame: which entry, which axes, which value is white."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from genesis_rl.frames import LAYOUTS, Layout, White, infer_layout

_NAMES = ("image", "pixels", "rgb", "screen", "frame", "observation.image")
_PREFIX = "observation.image"  # LeRobot's observation.images.<camera>
_MIN_SIDE = 16
# MiniGrid's symbolic grids grow to 25 x 25 cells. They come with a mission, or are square.
_MIN_SIDE_GRID = 32
_ADVICE = (
    "An environment that shows pixels only when rendered takes "
    "gymnasium.wrappers.AddRenderObservation around each environment, or GenesisObs(render=True)."
)


@dataclass(frozen=True)
class FrameSource:
    """The place and form of the frames within an observation.

    Attributes:
        key: entry of a Dict observation; None if the observation is the frame.
        layout: axes of one frame, never "auto".
        white: what white is, 1 or 255.
        shape: of one frame as delivered.
    """

    key: str | None
    layout: Layout
    white: White
    shape: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return self.shape[self.layout.index("H")], self.shape[self.layout.index("W")]

    def frames(self, observation: Any) -> Any:
        """Take the frames out of an observation, or a batch of them."""
        return observation if self.key is None else observation[self.key]


def find_frames(space: spaces.Space[Any], *, key: str | None, layout: Layout) -> FrameSource:
    """Find the frames in an observation space.

    Args:
        space: of one environment.
        key: entry of a Dict; None looks for the one entry of a common name (image, pixels, rgb,
            screen, frame, observation.image*) that holds pixels, or else the one entry that does.
        layout: axes of one frame, "auto" to tell them from the shape.

    Raises:
        ValueError: if there are no frames, more than one entry could be meant, or the layout
            cannot be told; the message lists what there is.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"frame_layout is {layout!r}; wanted one of {LAYOUTS}.")
    if not isinstance(space, spaces.Dict):
        if key is not None:
            raise ValueError(f"key is {key!r}, but the observation is {space}; wanted no key.")
        return _source(space, None, layout, "the observation", _MIN_SIDE)
    min_side = _MIN_SIDE_GRID if "mission" in space.spaces else _MIN_SIDE
    if key is not None:
        if key not in space.spaces:
            raise ValueError(f"key is {key!r}; wanted an entry of the observation: {_list(space)}.")
        return _source(space[key], key, layout, f"entry {key!r}", min_side)
    found: dict[str, FrameSource] = {}
    problems: dict[str, str] = {}
    for name, entry in space.spaces.items():
        try:
            found[name] = _source(entry, name, layout, f"entry {name!r}", min_side)
        except ValueError as error:
            problems[name] = str(error)
    candidates = [name for name in found if _is_common(name)] or list(found)
    if len(candidates) == 1:
        return found[candidates[0]]
    if candidates:
        raise ValueError(
            f"the entries {', '.join(candidates)} all hold pixels; wanted key= to name one of them."
        )
    common = [name for name in problems if _is_common(name)]
    if common:
        raise ValueError(problems[common[0]])
    raise ValueError(f"no entry of the observation holds pixels: {_list(space)}. {_ADVICE}")


def _is_common(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIX)


def _list(space: spaces.Dict) -> str:
    return ", ".join(f"{name}: {entry}" for name, entry in space.spaces.items())


def _source(
    space: spaces.Space[Any], key: str | None, layout: Layout, what: str, min_side: int
) -> FrameSource:
    """Read a space as frames, or raise ValueError saying why it holds none."""
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{what} is {space}; wanted a Box of pixels. {_ADVICE}")
    if len(space.shape) < 2:
        raise ValueError(f"{what} is {space}, not an image; wanted pixels. {_ADVICE}")
    named = layout != "auto"
    if layout == "auto":
        layout = _infer(space.shape, what)
    if len(space.shape) != len(layout):
        raise ValueError(
            f"{what} has shape {space.shape}; wanted {len(layout)} axes for frame_layout "
            f"{layout!r}, or another frame_layout."
        )
    channels = space.shape[layout.index("C")] if "C" in layout else 1
    if channels not in (1, 3, 4):
        raise ValueError(
            f"{what} has shape {space.shape}, so {channels} channels as {layout}; wanted 1, 3 or "
            "4. Stack frames after encoding them, or name the stacked axis S in frame_layout."
        )
    source = FrameSource(key, layout, _white(space, what), space.shape)
    if min(source.size) < min_side:
        raise ValueError(
            f"{what} has shape {space.shape}: {source.size[0]} x {source.size[1]} is a symbolic "
            "grid rather than pixels; wanted an image, for MiniGrid by "
            "minigrid.wrappers.RGBImgObsWrapper or RGBImgPartialObsWrapper."
        )
    height, width = source.size
    if not named and height == width < _MIN_SIDE_GRID:
        raise ValueError(
            f"{what} has shape {space.shape}: {height} x {width} may be a symbolic grid (for "
            "MiniGrid use minigrid.wrappers.RGBImgObsWrapper) or a small image; wanted "
            f'frame_layout="{layout}" to be named if it is an image.'
        )
    return source


def _infer(shape: tuple[int, ...], what: str) -> Layout:
    """Tell the layout; four channels may as well be four stacked grey frames."""
    if len(shape) == 3 and shape[-1] == 4:
        raise ValueError(
            f"{what} has shape {shape}, RGBA or a stack of 4 grey frames; wanted frame_layout="
            '"HWC" or frame_layout="HWS" to be named.'
        )
    try:
        return infer_layout(shape)
    except ValueError as error:
        text = str(error).replace('layout="', 'frame_layout="')
        raise ValueError(f"{what}: {text} Name it by frame_layout=.") from None


def _white(space: spaces.Box, what: str) -> White:
    """Tell from the bounds whether frames are in [0, 1] or 0..255."""
    low, high = float(np.min(space.low)), float(np.max(space.high))
    kind = space.dtype.kind if space.dtype is not None else "?"
    if kind == "f" and low >= 0 and high <= 1:
        return 1
    if kind in "iuf" and low >= 0 and 1 < high <= 255:
        return 255
    raise ValueError(
        f"{what} is {space} with values from {low:g} to {high:g}; wanted pixels in 0..255, or "
        "floats in [0, 1] or [0, 255]: declare them with gymnasium.wrappers.TransformObservation."
    )
