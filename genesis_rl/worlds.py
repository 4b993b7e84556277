"""Worlds of sprites: what may stand in a scene, and where.

A world is plain data plus the rule that draws a scene from it. The environments and the scene
sampler that feeds pretraining share it, so an encoder sees in training what the agent sees later.
The rules follow the relational tasks of Yoon et al. (ICML 2023, arXiv:2302.04419).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import hypot
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from genesis_rl.sprites import OUTLINES, RGB, Colour, Sprite, check_shapes, rgb, scales, several

_TRIES = 200  # candidate positions for one object before the whole scene is started again
_RESTARTS = 500  # scenes started before the world is called impossible

T = TypeVar("T")


class Look(NamedTuple):
    """Colour (RGB in 0..255) and shape of a sprite."""

    colour: RGB
    shape: str


class Scene(NamedTuple):
    """One scene.

    Attributes:
        objects: every sprite but the agent, in painter's order.
        agent: the agent's sprite, drawn last, or None in a world without one.
        background: RGB in 0..255.
        target: index into `objects` of the one the task asks for, or None.
    """

    objects: list[Sprite]
    agent: Sprite | None
    background: RGB
    target: int | None

    @property
    def sprites(self) -> list[Sprite]:
        """All sprites in painter's order."""
        return [*self.objects, self.agent] if self.agent else self.objects


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


@dataclass(frozen=True)
class SpriteWorld:
    """Options that every world with an agent shares.

    A colour is a CSS name of `genesis_rl.sprites.COLOURS` or three integers in 0..255. Lengths
    are shares of the frame's width.
    """

    image_size: int = 64
    """side of the frames in pixels"""
    num_objects: int = 4
    """objects beside the agent"""
    colours: tuple[Colour, ...] = ("blue", "green", "yellow", "red")
    """colours of the objects"""
    shapes: tuple[str, ...] = ("square", "triangle", "star_4")
    """shapes of the objects"""
    object_scale: float | tuple[float, ...] = 0.15
    """width of the objects, or several to draw from"""
    agent_scale: float = 0.15
    """width of the agent"""
    agent_colour: Colour = "red"
    """colour of the agent"""
    agent_shape: str = "circle"
    """shape of the agent"""
    background: Colour | tuple[Colour, ...] = "black"
    """colour of the background, or several to draw from in every scene"""
    unique_colours: bool = False
    """give every object another colour, and none of them the agent's"""
    wall_margin: float = 0.08
    """least gap between an object and a wall"""
    object_margin: float = 0.08
    """least gap between two objects, and between an object and the agent's start"""
    random_start: bool = False
    """start the agent at a random place instead of the centre"""

    def __post_init__(self) -> None:
        """Check every option and that a scene can be placed."""
        check_frame(self.image_size, self.num_objects)
        check_shapes(self.shapes)
        check_shapes([self.agent_shape])
        scales(self.object_scale, "object_scale")
        scales([self.agent_scale], "agent_scale")
        for name in ("wall_margin", "object_margin"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be in [0, 0.5), got {getattr(self, name)}")
        sprites = {*self.palette, rgb(self.agent_colour)}
        for colour in several(self.background):
            if colour in sprites:
                raise ValueError(f"background {colour} would hide the sprites of that colour")
        if self.unique_colours and len(self.palette) < self.num_objects:
            raise ValueError(
                f"unique_colours needs {self.num_objects} colours that are not the agent's,"
                f" got {len(self.palette)} in {self.colours}"
            )
        self.sample(np.random.default_rng(0))

    @cached_property
    def palette(self) -> list[RGB]:
        """Colours that objects may have."""
        palette = several(self.colours)
        if self.unique_colours:
            palette = [c for c in dict.fromkeys(palette) if c != rgb(self.agent_colour)]
        return palette

    @cached_property
    def _backgrounds(self) -> list[RGB]:
        return several(self.background)

    @cached_property
    def _agent(self) -> Sprite:
        return Sprite(self.agent_shape, rgb(self.agent_colour), self.agent_scale, 0.5, 0.5)

    def looks(self, rng: np.random.Generator) -> tuple[list[Look], int | None]:
        """Draw the objects' colours and shapes, and the index of the target.

        A task overrides this with its own rule.
        """
        palette = self.palette
        order = (
            rng.permutation(len(palette))[: self.num_objects]
            if self.unique_colours
            else rng.integers(len(palette), size=self.num_objects)
        )
        kinds = rng.integers(len(self.shapes), size=self.num_objects)
        return [Look(palette[c], self.shapes[s]) for c, s in zip(order, kinds, strict=True)], None

    def sample(self, rng: np.random.Generator) -> Scene:
        """Draw a scene as an episode starts with it.

        Raises:
            ValueError: if the objects find no room.
        """
        looks, target = self.looks(rng)
        choices = scales(self.object_scale, "object_scale")
        sizes = [
            choices[0] if len(choices) == 1 else choices[rng.integers(len(choices))] for _ in looks
        ]
        radii = [size / 2 for size in sizes]
        start = self._start(rng)
        around = [self.agent_scale / 2, *radii]
        spacing = [[radius + other + self.object_margin for other in around] for radius in radii]
        for limits in spacing:  # a small object beside a large agent must not start as touched
            limits[0] = max(limits[0], self.agent_scale)
        places = scatter(rng, radii, wall_margin=self.wall_margin, spacing=spacing, fixed=[start])
        objects = [
            Sprite(look.shape, look.colour, size, x, y)
            for look, size, (x, y) in zip(looks, sizes, places, strict=True)
        ]
        agent = replace(self._agent, x=start[0], y=start[1])
        backgrounds = self._backgrounds
        chosen = 0 if len(backgrounds) == 1 else int(rng.integers(len(backgrounds)))
        return Scene(objects, agent, backgrounds[chosen], target)

    def _start(self, rng: np.random.Generator) -> tuple[float, float]:
        if not self.random_start:
            return 0.5, 0.5
        radius = self.agent_scale / 2
        x, y = radius + (1 - self.agent_scale) * rng.random(2)
        return float(x), float(y)


def check_frame(image_size: int, num_objects: int) -> None:
    """Refuse an image size or a number of objects that makes no scene.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(image_size, int) or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be an integer in 8..1024, got {image_size!r}")
    if not isinstance(num_objects, int) or not 1 <= num_objects <= 254:
        raise ValueError(f"num_objects must be an integer in 1..254, got {num_objects!r}")


@dataclass(frozen=True)
class ObjectGoalWorld(SpriteWorld):
    """Object Goal: exactly one object is the target; the others look any other way."""

    target_colour: Colour = "blue"
    """colour of the target"""
    target_shape: str = "square"
    """shape of the target"""

    def __post_init__(self) -> None:
        """Check the target against the world's colours and shapes."""
        check_shapes([self.target_shape])
        if rgb(self.target_colour) not in self.palette:
            raise ValueError(
                f"target_colour {self.target_colour!r} must be one of the objects' colours"
                f" {self.colours} (and not the agent's if unique_colours)"
            )
        others = {(c, s) for c in self.palette for s in self.shapes} - {self.target_look}
        if self.num_objects > 1 and not others:
            raise ValueError("Object Goal needs a second colour or shape for the other objects")
        super().__post_init__()

    @cached_property
    def target_look(self) -> Look:
        """Colour and shape of the target."""
        return Look(rgb(self.target_colour), self.target_shape)

    def looks(self, rng: np.random.Generator) -> tuple[list[Look], int | None]:
        """One target among other looks, at a random index so that its place tells nothing."""
        target = self.target_look
        if self.unique_colours:
            rest = [c for c in self.palette if c != target.colour]
            chosen = rng.permutation(len(rest))[: self.num_objects - 1]
            kinds = rng.integers(len(self.shapes), size=self.num_objects - 1)
            looks = [Look(rest[c], self.shapes[s]) for c, s in zip(chosen, kinds, strict=True)]
        else:
            others = [Look(c, s) for c in self.palette for s in self.shapes]
            others = [look for look in others if look != target]
            chosen = rng.integers(max(len(others), 1), size=self.num_objects - 1)
            looks = [others[i] for i in chosen]
        index = int(rng.integers(self.num_objects))
        looks.insert(index, target)
        return looks, index
