"""Base world of the relational tasks: options, scene sampling and the agent's motion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from genesis_rl.worlds.sprites.drawing import (
    RGB,
    Colour,
    Sprite,
    check_shapes,
    rgb,
    scales,
    several,
)
from genesis_rl.worlds.sprites.scenes import (
    Appearance,
    Scene,
    check_scene_size,
    distance,
    get_agent,
    sample_positions,
    touched_object,
)

_DRAWS = 1000  # sets of appearances sampled before `held_out` is reported as impossible


class TaskStatus(NamedTuple):
    """Whether a scene solves the task, and whether it ends the episode."""

    success: bool
    ended: bool


@dataclass(frozen=True)
class SpriteWorld:
    """Options and rules of every world with an agent.

    A colour is a CSS name of `genesis_rl.worlds.sprites.drawing.COLOURS` or three integers in
    0..255. Lengths are fractions of the frame's width. A task overrides `sample_appearances` and,
    if its rules differ, `move` and `evaluate`.

    Generalisation tests: `held_out` lists combinations (colour, shape), with "*" for any, for
    example `[("blue", "square"), ("red", "*")]`. No scene contains one of them; with
    `show_held_out`, every scene contains at least one.
    """

    objects_move: ClassVar[bool] = False
    """whether the agent can move objects"""

    image_size: int = 64
    """side of the frames in pixels"""
    num_objects: int = 4
    """number of objects, without the agent and the goal marker"""
    colours: tuple[Colour, ...] = ("blue", "green", "yellow", "red")
    """colours of the objects"""
    shapes: tuple[str, ...] = ("square", "triangle", "star_4")
    """shapes of the objects"""
    object_scale: float | tuple[float, ...] = 0.15
    """width of the objects, or several to sample from"""
    agent_scale: float = 0.15
    """width of the agent"""
    agent_colour: Colour = "red"
    """colour of the agent"""
    agent_shape: str = "circle"
    """shape of the agent"""
    background: Colour | tuple[Colour, ...] = "black"
    """colour of the background, or several to sample from in every scene"""
    unique_colours: bool = False
    """whether all objects differ in colour from each other and from the agent"""
    wall_margin: float = 0.08
    """minimum gap between an object and a wall"""
    object_margin: float = 0.08
    """minimum gap between two objects, and between an object and the agent's start"""
    random_start: bool = False
    """whether the agent starts at a random position instead of the centre"""
    held_out: tuple[tuple[Colour, str], ...] = ()
    """held-out combinations (colour, shape) for generalisation tests; "*" is any"""
    show_held_out: bool = False
    """whether every scene contains a held-out combination, instead of none"""

    def __post_init__(self) -> None:
        """Validate every option, and that a scene can be sampled."""
        check_scene_size(self.image_size, self.num_objects)
        check_shapes(self.shapes)
        check_shapes([self.agent_shape])
        scales(self.object_scale, "object_scale")
        scales([self.agent_scale], "agent_scale")
        for name in ("wall_margin", "object_margin"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name} must be in [0, 0.5), got {getattr(self, name)}.")
        sprites = {*self.palette, rgb(self.agent_colour)}
        for colour in several(self.background):
            if colour in sprites:
                raise ValueError(f"background must differ from the sprites' colours, got {colour}.")
        if self.unique_colours and len(self.palette) < self.num_objects:
            raise ValueError(
                f"colours must have {self.num_objects} values other than agent_colour with"
                f" unique_colours, got {len(self.palette)} in {self.colours}."
            )
        if self.show_held_out and not self.held_out:
            raise ValueError("held_out must not be empty with show_held_out, got ().")
        self.sample(np.random.default_rng(0))

    @cached_property
    def palette(self) -> list[RGB]:
        """Possible colours of the objects."""
        palette = several(self.colours)
        if self.unique_colours:
            palette = [c for c in dict.fromkeys(palette) if c != rgb(self.agent_colour)]
        return palette

    @cached_property
    def object_scales(self) -> list[float]:
        """Possible scales of the objects."""
        return scales(self.object_scale, "object_scale")

    @property
    def num_sprites(self) -> int:
        """Number of sprites in a scene: the objects and the agent."""
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
                raise ValueError(f"held_out must be pairs (colour, shape), got {entry!r}.")
            colour, shape = entry
            if shape != "*":
                check_shapes([shape])
            colours = self.palette if colour == "*" else [rgb(colour)]
            pairs |= {(c, s) for c in colours for s in (self.shapes if shape == "*" else [shape])}
        return frozenset(pairs)

    def sample_appearances(self, rng: np.random.Generator) -> tuple[list[Appearance], int | None]:
        """Sample the objects' appearances and the target's index; tasks override this."""
        palette = self.palette
        order = (
            rng.permutation(len(palette))[: self.num_objects]
            if self.unique_colours
            else rng.integers(len(palette), size=self.num_objects)
        )
        kinds = rng.integers(len(self.shapes), size=self.num_objects)
        pairs = [(palette[c], self.shapes[s]) for c, s in zip(order, kinds, strict=True)]
        return self.with_scales(pairs, rng), None

    def with_scales(
        self, pairs: Sequence[tuple[RGB, str]], rng: np.random.Generator
    ) -> list[Appearance]:
        """Sample a scale for every (colour, shape)."""
        sizes = self.object_scales
        return [
            Appearance(*pair, sizes[0] if len(sizes) == 1 else sizes[rng.integers(len(sizes))])
            for pair in pairs
        ]

    def goal(self, target: Appearance) -> Sprite | None:
        """Return the marker of the target's destination; None in a task without one."""
        return None

    def sample(self, rng: np.random.Generator, *, free_placement: bool = False) -> Scene:
        """Sample the first scene of an episode.

        Args:
            rng: random generator.
            free_placement: place movable objects without margins, as later in an episode.

        Raises:
            ValueError: if the objects do not fit, or no sample satisfies `held_out`.
        """
        appearances, target = self._sample_allowed(rng)
        free = free_placement and self.objects_move
        margin, wall_margin = (0.0, 0.0) if free else (self.object_margin, self.wall_margin)
        radii = [appearance.scale / 2 for appearance in appearances]
        start = self._start(rng)
        spacing = [
            # A large agent must not touch a small object at the start.
            [max(radius + self.agent_scale / 2 + margin, self.agent_scale)]
            + [radius + other + margin for other in radii]
            for radius in radii
        ]
        fixed = [start]
        goal = None if target is None else self.goal(appearances[target])
        if goal is not None:
            fixed.append((goal.x, goal.y))
            for radius, limits in zip(radii, spacing, strict=True):
                limits.insert(1, radius + goal.scale / 2)
        positions = sample_positions(
            rng, radii, wall_margin=wall_margin, spacing=spacing, fixed=fixed
        )
        objects = [
            Sprite(appearance.shape, appearance.colour, appearance.scale, x, y)
            for appearance, (x, y) in zip(appearances, positions, strict=True)
        ]
        agent = replace(self._agent, x=start[0], y=start[1])
        backgrounds = self._backgrounds
        chosen = 0 if len(backgrounds) == 1 else int(rng.integers(len(backgrounds)))
        return Scene(objects, agent, backgrounds[chosen], target, goal)

    def _sample_allowed(self, rng: np.random.Generator) -> tuple[list[Appearance], int | None]:
        for _ in range(_DRAWS):
            appearances, target = self.sample_appearances(rng)
            shown = any((one.colour, one.shape) in self._held_out for one in appearances)
            if shown == self.show_held_out:
                return appearances, target
        raise ValueError(
            f"held_out must allow scenes with {'one' if self.show_held_out else 'none'} of its"
            f" combinations, got {self.held_out}. Leave combinations for training and test."
        )

    def _start(self, rng: np.random.Generator) -> tuple[float, float]:
        if not self.random_start:
            return 0.5, 0.5
        radius = self.agent_scale / 2
        x, y = radius + (1 - self.agent_scale) * rng.random(2)
        return float(x), float(y)

    def move(self, scene: Scene, shift: tuple[float, float]) -> Scene:
        """Return the scene after a move of the agent by (dx, dy), clipped to the frame."""
        agent = get_agent(scene)
        return scene._replace(agent=shifted(agent, shift))

    def evaluate(self, scene: Scene) -> TaskStatus:
        """Return success if the agent touches the target, and the end if it touches any object."""
        index = touched_object(scene)
        return TaskStatus(index is not None and index == scene.target, index is not None)

    def remaining_distance(self, scene: Scene) -> float:
        """Return the distance to success; the dense reward is the sign of its decrease."""
        if scene.target is None:
            return 0.0
        return distance(get_agent(scene), scene.objects[scene.target])


def shifted(sprite: Sprite, shift: tuple[float, float]) -> Sprite:
    """Return a sprite moved by (dx, dy), clipped to the frame."""
    low, high = sprite.scale / 2, 1 - sprite.scale / 2
    x = min(max(sprite.x + shift[0], low), high)
    y = min(max(sprite.y + shift[1], low), high)
    return Sprite(sprite.shape, sprite.colour, sprite.scale, x, y)
