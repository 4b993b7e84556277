"""Where an observation holds its frame: which entry, which axes, which value is white."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
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
        key: entry of a Dict observation, or the path of one in nested Dicts, such as "camera/rgb";
            None if the observation is the frame.
        route: names of the entries on the way to it.
        layout: axes of one frame, never "auto".
        white: what white is, 1 or 255.
        space: of one frame.
    """

    key: str | None
    route: tuple[str, ...]
    layout: Layout
    white: White
    space: spaces.Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame as delivered."""
        return self.space.shape

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return self.shape[self.layout.index("H")], self.shape[self.layout.index("W")]

    def frames(self, observation: Any) -> npt.NDArray[Any]:
        """Return the frames of an observation, or of a batch of them.

        Raises:
            ValueError: if their shape is not that of the space, or they are integers where the
                space has floats in [0, 1].
        """
        frames = np.asarray(follow(observation, self.route))
        shape = frames.shape[frames.ndim > len(self.shape) :]
        if shape != self.shape or (self.white == 1 and frames.dtype.kind in "iu"):
            what = "the observation" if self.key is None else f"entry {self.key!r}"
            raise ValueError(
                f"{what} must be as its space {self.space}, got {frames.dtype}{frames.shape}. "
                "Correct the environment's observation_space, or its frames."
            )
        return frames


def follow(observation: Any, route: tuple[str, ...]) -> Any:
    """Return the entry of nested Dict observations, or of their spaces, at the end of a route."""
    for name in route:
        observation = observation[name]
    return observation


def find_entry(space: spaces.Dict, key: str) -> tuple[str, ...] | None:
    """Resolve the path of an entry in nested Dict spaces, such as "camera/rgb".

    An entry whose own name is the path, or a longer part of it, comes first.

    Returns:
        The names on the way to the entry; None if there is none.
    """
    parts = key.split("/")
    for length in range(len(parts), 0, -1):
        name, rest = "/".join(parts[:length]), "/".join(parts[length:])
        entry = space.spaces.get(name)
        if entry is not None and not rest:
            return (name,)
        if isinstance(entry, spaces.Dict):
            route = find_entry(entry, rest)
            if route is not None:
                return name, *route
    return None


def find_frames(space: spaces.Space[Any], *, key: str | None, layout: Layout) -> FrameSource:
    """Find the frames in an observation space.

    Args:
        space: of one environment.
        key: entry of a Dict, or the path of one in nested Dicts, such as "camera/rgb"; None looks
            for the one entry of a common name (image, pixels, rgb, screen, frame,
            observation.image*) that holds pixels, or else the one entry that does, not nested.
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
        return _source(space, (), layout, "the observation", _MIN_SIDE)
    min_side = _MIN_SIDE_GRID if "mission" in space.spaces else _MIN_SIDE
    if key is not None:
        route = find_entry(space, key)
        if route is None:
            raise ValueError(f"key is {key!r}; wanted an entry of the observation: {_list(space)}.")
        return _source(follow(space, route), route, layout, f"entry {key!r}", min_side)
    found: dict[str, FrameSource] = {}
    problems: dict[str, str] = {}
    for name, entry in space.spaces.items():
        try:
            found[name] = _source(entry, (name,), layout, f"entry {name!r}", min_side)
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
    raise ValueError(
        f"no entry of the observation holds pixels: {_list(space)}. One in nested Dicts has to be "
        f"named by its path, key=. {_ADVICE}"
    )


def _is_common(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIX)


def _list(space: spaces.Dict) -> str:
    return ", ".join(f"{path}: {entry}" for path, entry in _leaves(space))


def _leaves(space: spaces.Dict, prefix: str = "") -> Iterator[tuple[str, spaces.Space[Any]]]:
    """The entries of nested Dicts with their paths."""
    for name, entry in space.spaces.items():
        if isinstance(entry, spaces.Dict):
            yield from _leaves(entry, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", entry


def _source(
    space: spaces.Space[Any], route: tuple[str, ...], layout: Layout, what: str, min_side: int
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
    key = "/".join(route) or None
    source = FrameSource(key, route, layout, _white(space, what), space)
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
    if kind == "f" and low >= 0 and high == 1:
        return 1
    if kind in "iuf" and low >= 0 and high == 255:
        return 255
    raise ValueError(
        f"{what} is {space} with values from {low:g} to {high:g}; wanted pixels in 0..255, or "
        "floats in [0, 1] or [0, 255]: declare them with gymnasium.wrappers.TransformObservation."
    )
