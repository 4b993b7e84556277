"""Sprite scenes: data classes, ground-truth state and rejection sampling of positions."""

from collections.abc import Sequence
from dataclasses import fields
from math import hypot
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from genesis_rl.worlds.sprites.drawing import OUTLINES, RGB, Sprite, render, stamp

_TRIES = 200  # candidate positions of one object before the scene is restarted
_RESTARTS = 500  # scene restarts before the sampling fails

T = TypeVar("T")
#: Columns of `scene_state`.
STATE_COLUMNS = ("x", "y", "scale", "red", "green", "blue", "is_agent", *OUTLINES)
_MARGIN = 3  # largest extent of a sprite beyond the frame, in pixels


class Appearance(NamedTuple):
    """Colour (RGB in 0..255), shape and scale (width as a fraction of the frame) of a sprite."""

    colour: RGB
    shape: str
    scale: float


class Scene(NamedTuple):
    """One scene, immutable: a step returns a new scene.

    Attributes:
        objects: the sprites without the goal marker and the agent, in painter's order.
        agent: the agent's sprite, drawn last; None in a world without an agent.
        background: RGB in 0..255.
        target: index of the task's target in `objects`, or None.
        goal: marker of the target's destination, drawn over the objects; None in a task without
            one.
    """

    objects: list[Sprite]
    agent: Sprite | None
    background: RGB
    target: int | None
    goal: Sprite | None = None

    @property
    def sprites(self) -> list[Sprite]:
        """All sprites in painter's order."""
        above = [sprite for sprite in (self.goal, self.agent) if sprite is not None]
        return [*self.objects, *above]


def distance(a: Sprite, b: Sprite) -> float:
    """Return the distance between two sprites' centres, as a fraction of the frame's width."""
    return hypot(a.x - b.x, a.y - b.y)


def touched_object(scene: Scene) -> int | None:
    """Return the index of the nearest object that the agent touches, or None.

    The agent touches an object if the distance between their centres is below the agent's scale.

    Raises:
        ValueError: if the scene has no agent.
    """
    agent = get_agent(scene)
    distances = [distance(agent, sprite) for sprite in scene.objects]
    nearest = min(range(len(distances)), key=distances.__getitem__)
    return nearest if distances[nearest] < agent.scale else None


def get_agent(scene: Scene) -> Sprite:
    """Return the agent's sprite.

    Raises:
        ValueError: if the scene has no agent.
    """
    if scene.agent is None:
        raise ValueError("scene must have an agent, got agent None.")
    return scene.agent


def scene_state(scene: Scene) -> npt.NDArray[np.float32]:
    """Return the ground-truth state of a scene.

    Returns:
        (N, F) float32, one row per sprite in painter's order: row i has label i + 1 in the masks,
        and the agent is the last row. Columns as in `STATE_COLUMNS`: position and scale as
        fractions of the frame, colour in [0, 1], 1 for the agent, and the shape as one-hot.
    """
    shapes = list(OUTLINES)
    state = np.zeros((len(scene.sprites), len(STATE_COLUMNS)), np.float32)
    for row, sprite in zip(state, scene.sprites, strict=True):
        red, green, blue = sprite.colour
        row[:6] = sprite.x, sprite.y, sprite.scale, red / 255, green / 255, blue / 255
        row[7 + shapes.index(sprite.shape)] = 1
    if scene.agent is not None:
        state[-1, 6] = 1
    return state


def from_options(cls: type[T], options: dict[str, Any]) -> T:
    """Build a config dataclass from keyword options.

    Raises:
        TypeError: for an unknown option; the message lists the known ones.
    """
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = [name for name in options if name not in names]
    if unknown:
        raise TypeError(
            f"options of {cls.__name__} must be among {', '.join(names)}, got {unknown[0]!r}."
        )
    return cls(**options)


def sample_positions(
    rng: np.random.Generator,
    radii: Sequence[float],
    *,
    wall_margin: float,
    spacing: Sequence[Sequence[float]],
    fixed: Sequence[tuple[float, float]] = (),
) -> list[tuple[float, float]]:
    """Sample the centres of objects one by one, uniformly, by rejection sampling.

    The whole scene is restarted if 200 candidates of one centre are rejected.

    Args:
        rng: random generator.
        radii: radius of every object, as a fraction of the frame.
        wall_margin: minimum gap between an object and every wall.
        spacing: `spacing[i][j]` is the minimum distance between the centre of object i and point
            j, where the points are `fixed` followed by the objects.
        fixed: occupied positions.

    Returns:
        One (x, y) per radius.

    Raises:
        ValueError: if the objects do not fit, or 500 restarts fail.
    """
    lows = [radius + wall_margin for radius in radii]
    if any(low > 0.5 for low in lows):
        raise ValueError(
            f"object_scale must leave room for a wall_margin of {wall_margin:g}, got"
            f" {2 * max(radii):g}. Use smaller objects or a smaller margin."
        )
    for _ in range(_RESTARTS):
        points = list(fixed)
        for low, limits in zip(lows, spacing, strict=True):
            width = 1 - 2 * low
            # In blocks: one call of the generator costs as much as testing ten points.
            for block in (16, _TRIES - 16):
                point = _first_free((low + width * rng.random((block, 2))).tolist(), points, limits)
                if point:
                    points.append(point)
                    break
            else:
                break
        else:
            return points[len(fixed) :]
    raise ValueError(
        f"num_objects must fit into the frame, got {len(radii)} of scale {2 * max(radii):g}. Use"
        " fewer or smaller objects, or smaller margins."
    )


def _first_free(
    candidates: list[list[float]],
    points: Sequence[tuple[float, float]],
    limits: Sequence[float],
) -> tuple[float, float] | None:
    """Return the first candidate at the minimum distance from every point, or None."""
    for x, y in candidates:
        for (u, v), limit in zip(points, limits, strict=False):
            if hypot(x - u, y - v) < limit:
                break
        else:
            return x, y
    return None


def check_scene_size(image_size: int, num_objects: int) -> None:
    """Validate the image size and the number of objects.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be an integer in 8..1024, got {image_size!r}.")
    if not isinstance(num_objects, int) or not 1 <= num_objects <= 254:
        raise ValueError(f"num_objects must be an integer in 1..254, got {num_objects!r}.")


class BatchRenderer:
    """Renderer of the scenes of many environments, equal to `drawing.render`.

    The frame without the agent is cached until the objects of a scene change, so most calls draw
    the agents alone, in one vectorised operation.
    """

    def __init__(self, num_scenes: int, size: int) -> None:
        """Allocate the frames.

        Args:
            num_scenes: number of cached scenes.
            size: side of the frames in pixels.
        """
        side = size + 2 * _MARGIN
        self._canvases = np.empty((num_scenes, side, side, 3), np.uint8)
        self._inside = slice(_MARGIN, -_MARGIN)
        self._cached: list[list[Sprite] | None] = [None] * num_scenes
        self._size = size

    def draw(self, scenes: Sequence[Scene], indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Render scenes whose agents share one scale and are inside the frame.

        Args:
            scenes: n scenes.
            indices: cache index of each scene, in 0..num_scenes - 1.

        Returns:
            (n, size, size, 3) uint8, a new array.
        """
        for i, scene in zip(indices, scenes, strict=True):
            # Lists of objects are never modified in place, so identity implies equality.
            if self._cached[i] is not scene.objects:
                static = scene._replace(agent=None).sprites
                image = self._canvases[i, self._inside, self._inside]
                render(static, self._size, scene.background, image=image)
                self._cached[i] = scene.objects
        agents = [get_agent(scene) for scene in scenes]
        stamps = [stamp(agent, self._size) for agent in agents]
        alpha = np.stack([sprite.alpha for sprite in stamps])
        corners = np.array([(sprite.top, sprite.left) for sprite in stamps]) + _MARGIN
        windows = sliding_window_view(
            self._canvases, alpha.shape[1:3], axis=(1, 2), writeable=True
        ).transpose(0, 1, 2, 4, 5, 3)
        places = (np.asarray(indices), corners[:, 0], corners[:, 1])
        background = windows[places]
        colours = np.array([agent.colour for agent in agents], np.float32)
        blend = colours[:, None, None] - background
        blend *= alpha
        blend += background
        blend += 0.5  # round: the assignment to uint8 truncates
        windows[places] = blend
        frames = self._canvases[indices, self._inside, self._inside]
        windows[places] = background
        return frames
