"""Frames within observations: entry of a Dict, axis order and value range."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from genesis_rl.perception.preprocessing import (
    LAYOUTS,
    Crop,
    Layout,
    Preprocessing,
    White,
    crop_frames,
    infer_layout,
)

_NAMES = ("image", "pixels", "rgb", "screen", "frame", "observation.image")
_PREFIX = "observation.image"  # LeRobot's observation.images.<camera>
_MIN_SIDE = 16
# MiniGrid's symbolic grids have up to 25 x 25 cells. They have a mission, or are square.
_MIN_SIDE_GRID = 32
_ADVICE = (
    "For pixels from rendering, use gymnasium.wrappers.AddRenderObservation around each "
    "environment, or GenesisObs(render=True)."
)
_DEPTH = (
    "Encoders have no depth channel: set image_key to an RGB image, or split RGB-D images with "
    "gymnasium.wrappers.TransformObservation."
)
# Frames whose highest value is at most this share of white are almost black.
_BLACK = 10 / 255
_FIRST_FRAMES = 50


@dataclass(frozen=True)
class FrameSource:
    """Location and format of the frames within an observation.

    Attributes:
        key: entry of a Dict observation, or its path in nested Dicts, such as "camera/rgb"; None
            if the observation is the frame.
        route: keys of the nested entries.
        layout: axis order of one frame, never "auto".
        white: value of white, 1 or 255.
        space: space of one frame.
        crop: region of interest of the frames, (top, left, height, width) in pixels; None: the
            whole frame.
    """

    key: str | None
    route: tuple[str, ...]
    layout: Layout
    white: White
    space: spaces.Box
    crop: Crop | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame in the observation, before cropping."""
        return self.space.shape

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels, before cropping."""
        return self.shape[self.layout.index("H")], self.shape[self.layout.index("W")]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels, after cropping."""
        return self.full_size if self.crop is None else self.crop[2:]

    def frames(self, observation: Any) -> npt.NDArray[Any]:
        """Return the cropped frames of an observation, or of a batch of them.

        Raises:
            ValueError: if their shape is not that of the space, or they are integers in a float
                space in [0, 1].
        """
        frames = np.asarray(follow(observation, self.route))
        shape = frames.shape[frames.ndim > len(self.shape) :]
        if shape != self.shape or (self.white == 1 and frames.dtype.kind in "iu"):
            label = "the observation" if self.key is None else f"entry {self.key!r}"
            raise ValueError(
                f"{label} must be in its space {self.space}, got {frames.dtype}{frames.shape}. "
                "Correct the environment's observation_space, or its frames."
            )
        return crop_frames(frames, self.layout, self.crop)


class BlackFrameCheck:
    """Warns if the first frames are almost black, a sign of values outside the assumed range."""

    def __init__(self) -> None:
        self._left = _FIRST_FRAMES

    def __call__(self, frames: npt.NDArray[Any], white: White = 255) -> None:
        """Check frames of the first steps; do nothing afterwards.

        Args:
            frames: frames of any shape.
            white: value of white in them.
        """
        if not self._left:
            return
        self._left -= 1
        highest = frames.max(initial=0)
        if highest == 0 and self._left:  # episodes may start with a black frame
            return
        self._left = 0
        if highest <= _BLACK * white:
            warnings.warn(
                f"frames should have values up to {white} (white), got at most {highest:g} in the "
                "first steps: they are almost black. If their white is another value, as in depth "
                "images or floats in [0, 1], correct the environment's observation_space or scale "
                "them with gymnasium.wrappers.TransformObservation.",
                stacklevel=2,
            )


def follow(observation: Any, route: tuple[str, ...]) -> Any:
    """Return the entry at a route of nested Dict observations or spaces."""
    for name in route:
        observation = observation[name]
    return observation


def find_entry(space: spaces.Dict, key: str) -> tuple[str, ...] | None:
    """Resolve the path of an entry in nested Dict spaces, such as "camera/rgb".

    Keys that contain slashes themselves take precedence.

    Returns:
        The keys of the nested entries; None if there is no such entry.
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


def find_kept(space: spaces.Space[Any], keep: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Find the entries of a Dict observation to keep beside the slots.

    Args:
        space: observation space of one environment.
        keep: entries, or their paths in nested Dicts, such as "robot/joints".

    Returns:
        The keys of the nested entries, by the names in ``keep``.

    Raises:
        ValueError: if an entry is missing, or the space is no Dict; the message lists the entries.
    """
    if not keep:
        return {}
    if not isinstance(space, spaces.Dict):
        raise ValueError(
            f"keep must be empty for the observation {space}, which is not a Dict, got {keep}. "
            "gymnasium.wrappers.AddRenderObservation(env, render_only=False) returns a Dict."
        )
    routes = {name: find_entry(space, name) for name in keep}
    missing = [name for name, route in routes.items() if route is None]
    if missing:
        raise ValueError(
            f"keep must be among {[path for path, _ in _leaves(space)]}, got {missing}."
        )
    return {name: route for name, route in routes.items() if route is not None}


def find_frames(
    space: spaces.Space[Any],
    *,
    key: str | None,
    layout: Layout,
    crop: Sequence[int] | None = None,
    preprocessing: Preprocessing | None = None,
) -> FrameSource:
    """Find the frames in an observation space.

    Args:
        space: observation space of one environment.
        key: `image_key`: entry of a Dict, or its path in nested Dicts, such as "camera/rgb"; None
            selects the only entry with pixels under a common name (image, pixels, rgb, screen,
            frame, observation.image*), or else the only entry with pixels, not nested.
        layout: `image_layout`: axis order of one frame; "auto" infers it from the shape.
        crop: region of interest, (top, left, height, width) in pixels; None: that of
            ``preprocessing``, or else the whole frame.
        preprocessing: of an encoder of the frames.

    Raises:
        TypeError: if ``crop`` is no sequence of integers.
        ValueError: if there are no frames, several candidates, an ambiguous layout, or a ``crop``
            outside of the frame; the message lists the entries. If the frames have another size
            than those recorded for a ``preprocessing`` that crops.
    """
    source = _find(space, key, layout)
    region = (preprocessing or Preprocessing()).region(crop, source.full_size)
    return replace(source, crop=region)


def _find(space: spaces.Space[Any], key: str | None, layout: Layout) -> FrameSource:
    """Find the whole frames; see `find_frames`."""
    if layout not in LAYOUTS:
        raise ValueError(f"image_layout must be one of {LAYOUTS}, got {layout!r}.")
    if not isinstance(space, spaces.Dict):
        if key is not None:
            raise ValueError(f"image_key must be None for the observation {space}, got {key!r}.")
        return _source(space, (), layout, "the observation", _MIN_SIDE)
    min_side = _MIN_SIDE_GRID if "mission" in space.spaces else _MIN_SIDE
    if key is not None:
        route = find_entry(space, key)
        if route is None:
            raise ValueError(f"image_key must be one of {_list(space)}, got {key!r}.")
        return _source(follow(space, route), route, layout, f"entry {key!r}", min_side)
    sources: dict[str, FrameSource] = {}
    problems: dict[str, str] = {}
    for name, entry in space.spaces.items():
        try:
            sources[name] = _source(entry, (name,), layout, f"entry {name!r}", min_side)
        except ValueError as error:
            problems[name] = str(error)
    candidates = [name for name in sources if _is_common(name)] or list(sources)
    if len(candidates) == 1:
        return sources[candidates[0]]
    if candidates:
        raise ValueError(
            f"image_key must be one of {', '.join(candidates)}, which all have pixels, got None."
        )
    common = [name for name in problems if _is_common(name)]
    if common:
        raise ValueError(problems[common[0]])
    raise ValueError(
        f"the observation must have an entry with pixels, got {_list(space)}. For an entry of "
        f"nested Dicts, set image_key to its path. {_ADVICE}"
    )


def _is_common(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIX)


def _list(space: spaces.Dict) -> str:
    return ", ".join(f"{path}: {entry}" for path, entry in _leaves(space))


def _leaves(space: spaces.Dict, prefix: str = "") -> Iterator[tuple[str, spaces.Space[Any]]]:
    """Yield the entries of nested Dicts with their paths."""
    for name, entry in space.spaces.items():
        if isinstance(entry, spaces.Dict):
            yield from _leaves(entry, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", entry


def _source(
    space: spaces.Space[Any], route: tuple[str, ...], layout: Layout, label: str, min_side: int
) -> FrameSource:
    """Return the frame source of a space.

    Raises:
        ValueError: if the space is not one of frames.
    """
    if not isinstance(space, spaces.Box):
        raise ValueError(f"{label} must be a Box of pixels, got {space}. {_ADVICE}")
    if len(space.shape) < 2:
        raise ValueError(f"{label} must be an image, got {space}. {_ADVICE}")
    named = layout != "auto"
    if not named and _is_depth(space, route):
        raise ValueError(
            f"{label} must be a colour or grey image, got the depth map {space}. {_DEPTH} To "
            'encode it as a grey image, set image_layout, such as "HW" or "HWC".'
        )
    if layout == "auto":
        layout = _infer(space.shape, label)
    if len(space.shape) != len(layout):
        raise ValueError(
            f"{label} must have {len(layout)} axes for image_layout {layout!r}, got shape "
            f"{space.shape}."
        )
    channels = space.shape[layout.index("C")] if "C" in layout else 1
    if layout in ("HWC", "CHW", "CWH"):
        _check_colour_stack(space.shape, layout, label)
    if channels not in (1, 3, 4):
        raise ValueError(
            f"{label} must have 1, 3 or 4 channels, got {channels} in shape {space.shape} as "
            f"{layout}. Stack slots instead of frames, or name the stacked axis S in image_layout."
        )
    key = "/".join(route) or None
    source = FrameSource(key, route, layout, _white(space, label), space)
    if min(source.size) < min_side:
        raise ValueError(
            f"{label} must be an image, got a symbolic grid of shape {space.shape}. For MiniGrid "
            "use minigrid.wrappers.RGBImgObsWrapper or RGBImgPartialObsWrapper."
        )
    height, width = source.size
    if not named and height == width < _MIN_SIDE_GRID:
        raise ValueError(
            f"{label} must be an image, got shape {space.shape}, which may be a symbolic grid. For "
            "MiniGrid use minigrid.wrappers.RGBImgObsWrapper; for a small image set "
            f'image_layout="{layout}".'
        )
    return source


def _infer(shape: tuple[int, ...], label: str) -> Layout:
    """Infer the layout; four channels are ambiguous: RGBA or four stacked grey frames."""
    if len(shape) == 3 and shape[-1] == 4:
        raise ValueError(
            f'{label} must have image_layout="HWC" (RGBA, the fourth channel is opacity) or '
            f'image_layout="HWS" (4 stacked grey frames) with shape {shape}, got "auto". {_DEPTH}'
        )
    if len(shape) == 4 and 3 in shape[1::2]:
        layout = "SHWC" if shape[-1] == 3 else "SCHW"
        raise ValueError(
            f'{label} must have image_layout="{layout}" with shape {shape}, {shape[0]} stacked '
            'RGB frames, got "auto". Only the newest frame is encoded: stack after encoding.'
        )
    if len(shape) == 3:
        _check_colour_stack(shape, "HWC", label)
        _check_colour_stack(shape, "CHW", label)
    try:
        return infer_layout(shape)
    except ValueError as error:
        text = re.sub(r'\blayout(?= must|=")', "image_layout", str(error))
        depth = f" {_DEPTH}" if len(shape) == 3 and shape[0] == 4 else ""
        raise ValueError(f"{label}: {text} Set image_layout.{depth}") from None


def _is_depth(space: spaces.Box, route: tuple[str, ...]) -> bool:
    """Whether an entry is a depth map by its name and its single channel."""
    return bool(route) and "depth" in route[-1].lower() and _has_one_channel(space)


def _has_one_channel(space: spaces.Box) -> bool:
    return len(space.shape) == 2 or 1 in (space.shape[0], space.shape[-1])


def _check_colour_stack(shape: tuple[int, ...], layout: str, label: str) -> None:
    """Raise ValueError if the channels may be those of several RGB frames (VecFrameStack)."""
    axis = layout.index("C")
    channels, count = shape[axis], shape[axis] // 3
    others = min(*shape[:axis], *shape[axis + 1 :])
    if 4 < channels < others and channels % 3 == 0:
        raise ValueError(
            f"{label} must be one frame, got {count} stacked RGB frames with shape {shape}. Stack "
            f"after encoding: VecFrameStack(VecGenesisObs(venv, encoder), n_stack={count}). For "
            f'{channels} stacked grey frames, set image_layout="{layout.replace("C", "S")}".'
        )


def _white(space: spaces.Box, label: str) -> White:
    """Infer from the bounds whether frames are in [0, 1] or 0..255."""
    low, high = float(np.min(space.low)), float(np.max(space.high))
    kind = space.dtype.kind if space.dtype is not None else "?"
    if kind == "f" and low >= 0 and high == 1:
        return 1
    if kind in "iuf" and low >= 0 and high == 255:
        return 255
    raise ValueError(
        f"{label} must have pixels in 0..255, or floats in [0, 1] or [0, 255], got {space} with "
        f"values from {low:g} to {high:g}. Use gymnasium.wrappers.TransformObservation."
        f"{f' For a depth map: {_DEPTH}' if _has_one_channel(space) else ''}"
    )
