"""The world that every task shares: options, how a scene is drawn, how the agent moves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from genesis_rl.sprites import RGB, Colour, Sprite, check_shapes, rgb, scales, several
from genesis_rl.worlds.scenes import Look, Scene, agent_of, check_frame, gap, scatter, touched

_DRAWS = 1000  # sets of looks drawn before the held-out ones are called impossible to obey


class Outcome(NamedTuple):
    """Whether a scene solves the task, and whether it ends the episode."""

    success: bool
    ended: bool


@dataclass(frozen=True)
class SpriteWorld:
    """Options and rules that every world with an agent shares.

    A colour is a CSS name of `genesis_rl.sprites.COLOURS` or three integers in 0..255. Lengths
    are shares of the frame's width. A task overrides `looks`, and where it differs `move` and
    `outcome`.

    Generalisation tests: `held_out` names looks as (colour, shape), with "*" for any, for example
    `[("blue", "square"), ("red", "*")]`. No scene shows them, unless `show_held_out` is set: then
    every scene shows at least one.
    """

    objects_move: ClassVar[bool] = False
    """whether the agent can change the objects' places"""

    image_size: int = 64
    """side of the frames in pixels"""
    num_objects: int = 4
    """objects beside the agent (and the goal's marker)"""
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
    held_out: tuple[tuple[Colour, str], ...] = ()
    """looks kept for tests of generalisation, as (colour, shape); "*" stands for any"""
    show_held_out: bool = False
    """show a held-out look in every scene instead of in none"""

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
        if self.show_held_out and not self.held_out:
            raise ValueError("show_held_out needs held_out, the looks to show")
        self.sample(np.random.default_rng(0))

    @cached_property
    def palette(self) -> list[RGB]:
        """Colours that objects may have."""
        palette = several(self.colours)
        if self.unique_colours:
            palette = [c for c in dict.fromkeys(palette) if c != rgb(self.agent_colour)]
        return palette

    @cached_property
    def sizes(self) -> list[float]:
        """Scales that objects may have."""
        return scales(self.object_scale, "object_scale")

    @property
    def num_sprites(self) -> int:
        """Sprites in a scene: the objects and the agent."""
        return self.num_objects + 1

    @cached_property
    def _backgrounds(self) -> list[RGB]:
        return several(self.background)

    @cached_property
    def _agent(self) -> Sprite:
        return Sprite(self.agent_shape, rgb(self.agent_colour), self.agent_scale, 0.5, 0.5)

    @cached_property
    def _held_out(self) -> frozenset[tuple[RGB, str]]:
        pairs = set()
        for entry in self.held_out:
            if isinstance(entry, str) or len(entry) != 2:
                raise ValueError(f"held_out must hold pairs (colour, shape), got {entry!r}")
            colour, shape = entry
            if shape != "*":
                check_shapes([shape])
            colours = self.palette if colour == "*" else [rgb(colour)]
            pairs |= {(c, s) for c in colours for s in (self.shapes if shape == "*" else [shape])}
        return frozenset(pairs)

    def looks(self, rng: np.random.Generator) -> tuple[list[Look], int | None]:
        """Draw how the objects look, and the index of the target.

        A task overrides this with its own rule.
        """
        palette = self.palette
        order = (
            rng.permutation(len(palette))[: self.num_objects]
            if self.unique_colours
            else rng.integers(len(palette), size=self.num_objects)
        )
        kinds = rng.integers(len(self.shapes), size=self.num_objects)
        pairs = [(palette[c], self.shapes[s]) for c, s in zip(order, kinds, strict=True)]
        return self.with_sizes(pairs, rng), None

    def with_sizes(self, pairs: Sequence[tuple[RGB, str]], rng: np.random.Generator) -> list[Look]:
        """Give every (colour, shape) a scale of its own."""
        sizes = self.sizes
        return [
            Look(*pair, sizes[0] if len(sizes) == 1 else sizes[rng.integers(len(sizes))])
            for pair in pairs
        ]

    def goal(self, target: Look) -> Sprite | None:
        """Return the marker of the place where the target has to go, in a task that has one."""
        return None

    def sample(self, rng: np.random.Generator, *, midway: bool = False) -> Scene:
        """Draw a scene as an episode starts with it.

        Args:
            rng: source of randomness.
            midway: let objects that can be moved stand wherever they may get to.

        Raises:
            ValueError: if the objects find no room, or no draw obeys `held_out`.
        """
        looks, target = self._allowed_looks(rng)
        free = midway and self.objects_move
        margin, wall_margin = (0.0, 0.0) if free else (self.object_margin, self.wall_margin)
        radii = [look.scale / 2 for look in looks]
        start = self._start(rng)
        spacing = [
            # A small object beside a large agent must not start as touched.
            [max(radius + self.agent_scale / 2 + margin, self.agent_scale)]
            + [radius + other + margin for other in radii]
            for radius in radii
        ]
        fixed = [start]
        goal = None if target is None else self.goal(looks[target])
        if goal is not None:
            fixed.append((goal.x, goal.y))
            for radius, limits in zip(radii, spacing, strict=True):
                limits.insert(1, radius + goal.scale / 2)
        places = scatter(rng, radii, wall_margin=wall_margin, spacing=spacing, fixed=fixed)
        objects = [
            Sprite(look.shape, look.colour, look.scale, x, y)
            for look, (x, y) in zip(looks, places, strict=True)
        ]
        agent = replace(self._agent, x=start[0], y=start[1])
        backgrounds = self._backgrounds
        chosen = 0 if len(backgrounds) == 1 else int(rng.integers(len(backgrounds)))
        return Scene(objects, agent, backgrounds[chosen], target, goal)

    def _allowed_looks(self, rng: np.random.Generator) -> tuple[list[Look], int | None]:
        for _ in range(_DRAWS):
            looks, target = self.looks(rng)
            shown = any((look.colour, look.shape) in self._held_out for look in looks)
            if shown == self.show_held_out:
                return looks, target
        raise ValueError(
            f"no scene {'shows any' if self.show_held_out else 'avoids all'} of the held_out looks"
            f" {self.held_out}: keep some looks for either side of the test"
        )

    def _start(self, rng: np.random.Generator) -> tuple[float, float]:
        if not self.random_start:
            return 0.5, 0.5
        radius = self.agent_scale / 2
        x, y = radius + (1 - self.agent_scale) * rng.random(2)
        return float(x), float(y)

    def move(self, scene: Scene, shift: tuple[float, float]) -> Scene:
        """Return the scene after the agent has moved by (dx, dy), inside the frame."""
        agent = agent_of(scene)
        return scene._replace(agent=shifted(agent, shift))

    def outcome(self, scene: Scene) -> Outcome:
        """Judge a scene: touching the target solves the task, touching anything ends it."""
        index = touched(scene)
        return Outcome(index is not None and index == scene.target, index is not None)

    def remaining(self, scene: Scene) -> float:
        """Return the distance that the dense reward pays for bringing down."""
        if scene.target is None:
            return 0.0
        return gap(agent_of(scene), scene.objects[scene.target])


def shifted(sprite: Sprite, shift: tuple[float, float]) -> Sprite:
    """Return a sprite moved by (dx, dy) and kept inside the frame."""
    low, high = sprite.scale / 2, 1 - sprite.scale / 2
    x = min(max(sprite.x + shift[0], low), high)
    y = min(max(sprite.y + shift[1], low), high)
    return Sprite(sprite.shape, sprite.colour, sprite.scale, x, y)
