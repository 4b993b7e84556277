"""Scenes of sprites: what they hold, their ground truth, and how sprites find their places."""

from collections.abc import Sequence
from dataclasses import fields
from math import hypot
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from genesis_rl.sprites import OUTLINES, RGB, Sprite

_TRIES = 200  # candidate positions for one object before the whole scene is started again
_RESTARTS = 500  # scenes started before the world is called impossible

T = TypeVar("T")


class Look(NamedTuple):
    """Colour (RGB in 0..255), shape and scale (width as a share of the frame's) of a sprite."""

    colour: RGB
    shape: str
    scale: float


class Scene(NamedTuple):
    """One scene. No list of it is ever changed: a step makes a new scene.

    Attributes:
        objects: every sprite but the goal's marker and the agent, in painter's order.
        agent: the agent's sprite, drawn last, or None in a world without one.
        background: RGB in 0..255.
        target: index into `objects` of the one the task asks for, or None.
        goal: the marker of the place where the target has to go, drawn over the objects, or None
            in a task without one.
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


def gap(a: Sprite, b: Sprite) -> float:
    """Distance between the centres of two sprites, as a share of the frame's width."""
    return hypot(a.x - b.x, a.y - b.y)


def touched(scene: Scene) -> int | None:
    """Return the index of the object that the agent touches, the nearest one if there are several.

    A touch: the distance between the centres is below the agent's scale.

    Raises:
        ValueError: if the scene has no agent.
    """
    agent = agent_of(scene)
    distances = [gap(agent, sprite) for sprite in scene.objects]
    nearest = min(range(len(distances)), key=distances.__getitem__)
    return nearest if distances[nearest] < agent.scale else None


def agent_of(scene: Scene) -> Sprite:
    """Return the agent's sprite.

    Raises:
        ValueError: if the scene has no agent.
    """
    if scene.agent is None:
        raise ValueError("this world has no agent")
    return scene.agent


#: Meaning of the columns of `scene_state`.
STATE_COLUMNS = ("x", "y", "scale", "red", "green", "blue", "is_agent", *OUTLINES)


def scene_state(scene: Scene) -> npt.NDArray[np.float32]:
    """Ground truth of a scene as vectors.

    Args:
        scene: the scene.

    Returns:
        (N, F) float32, one row per sprite in painter's order (so row i is label i + 1 of the
        masks, and the agent is last). Columns as in `STATE_COLUMNS`: position and scale as shares
        of the frame, colour in [0, 1], 1 for the agent, and the shape as one-hot.
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
        TypeError: naming an option that the class does not have, and those that it has.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}: {cls.__name__} takes {', '.join(known)}")
    return cls(**options)


def scatter(
    rng: np.random.Generator,
    radii: Sequence[float],
    *,
    wall_margin: float,
    spacing: Sequence[Sequence[float]],
    fixed: Sequence[tuple[float, float]] = (),
) -> list[tuple[float, float]]:
    """Place centres one by one, uniformly where they are allowed, by rejection sampling.

    A centre that finds no place in 200 tries starts the whole scene again.

    Args:
        rng: source of the positions.
        radii: radius of every object to place, as a share of the frame.
        wall_margin: least gap between an object and every wall.
        spacing: `spacing[i][j]` is the least distance between the centre of object i and point j,
            where the points are `fixed` followed by the objects.
        fixed: positions that are already taken.

    Returns:
        One (x, y) for every radius.

    Raises:
        ValueError: if the objects do not fit, or find no place in 500 scenes.
    """
    lows = [radius + wall_margin for radius in radii]
    if any(low > 0.5 for low in lows):
        raise ValueError(
            f"an object of scale {2 * max(radii):g} with a wall margin of {wall_margin:g} does not"
            " fit into the frame: use smaller objects or a smaller margin"
        )
    for _ in range(_RESTARTS):
        points = list(fixed)
        for low, limits in zip(lows, spacing, strict=True):
            width = 1 - 2 * low
            # In blocks, because one call of the generator costs as much as testing ten points.
            for block in (16, _TRIES - 16):
                place = _first_free((low + width * rng.random((block, 2))).tolist(), points, limits)
                if place:
                    points.append(place)
                    break
            else:
                break
        else:
            return points[len(fixed) :]
    raise ValueError(
        f"found no room for {len(radii)} objects of scale {2 * max(radii):g}: use fewer or smaller"
        " objects, or smaller margins"
    )


def _first_free(
    candidates: list[list[float]],
    points: Sequence[tuple[float, float]],
    limits: Sequence[float],
) -> tuple[float, float] | None:
    """First candidate that keeps its distance from every point."""
    for x, y in candidates:
        for (u, v), limit in zip(points, limits, strict=False):
            if hypot(x - u, y - v) < limit:
                break
        else:
            return x, y
    return None


def check_frame(image_size: int, num_objects: int) -> None:
    """Refuse an image size or a number of objects that makes no scene.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be an integer in 8..1024, got {image_size!r}")
    if not isinstance(num_objects, int) or not 1 <= num_objects <= 254:
        raise ValueError(f"num_objects must be an integer in 1..254, got {num_objects!r}")
