"""Worlds of the four relational tasks: object appearances and success conditions.

Follows Yoon et al. (ICML 2023, arXiv:2302.04419).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genesis_rl.worlds.sprites.drawing import RGB, Colour, Sprite, check_shapes, rgb
from genesis_rl.worlds.sprites.scenes import Appearance, Scene, distance, get_agent
from genesis_rl.worlds.sprites.world import SpriteWorld, TaskStatus, shifted

_TOLERANCE = 1e-6  # overlap below this is rounding error: positions are sums of steps


@dataclass(frozen=True)
class ObjectGoalWorld(SpriteWorld):
    """Object Goal: exactly one object has the target's colour and shape."""

    target_colour: Colour = "blue"
    """colour of the target"""
    target_shape: str = "square"
    """shape of the target"""

    def __post_init__(self) -> None:
        """Validate the target against the colours and shapes of the world."""
        check_shapes([self.target_shape])
        if rgb(self.target_colour) not in self.palette:
            raise ValueError(
                f"target_colour must be in colours {self.colours} (and, with unique_colours, not"
                f" agent_colour), got {self.target_colour!r}."
            )
        others = {(c, s) for c in self.palette for s in self.shapes} - {self.target_appearance}
        if self.num_objects > 1 and not others:
            raise ValueError(
                f"colours and shapes must have a combination for the other objects, got"
                f" {self.colours} and {self.shapes}."
            )
        super().__post_init__()

    @cached_property
    def target_appearance(self) -> tuple[RGB, str]:
        """Colour and shape of the target."""
        return rgb(self.target_colour), self.target_shape

    def sample_appearances(self, rng: np.random.Generator) -> tuple[list[Appearance], int | None]:
        """Sample the target, at a random index, and objects of other appearances."""
        target = self.target_appearance
        if self.unique_colours:
            rest = [c for c in self.palette if c != target[0]]
            chosen = rng.permutation(len(rest))[: self.num_objects - 1]
            kinds = rng.integers(len(self.shapes), size=self.num_objects - 1)
            pairs = [(rest[c], self.shapes[s]) for c, s in zip(chosen, kinds, strict=True)]
        else:
            others = [(c, s) for c in self.palette for s in self.shapes]
            others = [pair for pair in others if pair != target]
            chosen = rng.integers(max(len(others), 1), size=self.num_objects - 1)
            pairs = [others[i] for i in chosen]
        index = int(rng.integers(self.num_objects))
        pairs.insert(index, target)
        return self.with_scales(pairs, rng), index


@dataclass(frozen=True)
class ObjectInteractionWorld(ObjectGoalWorld):
    """Object Interaction: push the target onto the goal marker in the bottom-left corner.

    The marker has the target's appearance; its centre is one radius from both walls. An object is
    on the marker if their distance is below the sum of their radii. The target on the marker
    solves the task; another object on it ends the episode.
    """

    objects_move: ClassVar[bool] = True

    num_objects: int = 3
    shapes: tuple[str, ...] = ("square",)
    wall_margin: float = 0.15

    @property
    def num_sprites(self) -> int:
        """Number of sprites in a scene: the objects, the goal marker and the agent."""
        return self.num_objects + 2

    def goal(self, target: Appearance) -> Sprite | None:
        """Return the marker of the target's destination."""
        radius = target.scale / 2
        return Sprite(target.shape, target.colour, target.scale, radius, radius)

    def move(self, scene: Scene, shift: tuple[float, float]) -> Scene:
        """Return the scene after a move of the agent by (dx, dy) that pushes objects.

        The agent and the objects it collides with move as one body: as far as all of them stay
        inside the frame, and not at all if one of them would collide with another object.
        """
        agent = get_agent(scene)
        ahead = shifted(agent, shift)
        pushed = {i for i, sprite in enumerate(scene.objects) if _overlap(ahead, sprite)}
        if not pushed:
            return scene._replace(agent=ahead)
        for sprite in (agent, *(scene.objects[i] for i in pushed)):
            end = shifted(sprite, shift)
            shift = (end.x - sprite.x, end.y - sprite.y)
        objects = [
            shifted(sprite, shift) if i in pushed else sprite
            for i, sprite in enumerate(scene.objects)
        ]
        static = [sprite for i, sprite in enumerate(scene.objects) if i not in pushed]
        if any(_overlap(objects[i], other) for i in pushed for other in static):
            return scene
        return scene._replace(objects=objects, agent=shifted(agent, shift))

    def evaluate(self, scene: Scene) -> TaskStatus:
        """Return success if the target is on the marker, and termination if any object is."""
        goal = _get_goal(scene)
        arrived = [i for i, sprite in enumerate(scene.objects) if _overlap(sprite, goal)]
        return TaskStatus(scene.target in arrived, bool(arrived))

    def remaining_distance(self, scene: Scene) -> float:
        """Return the distance from agent to target plus that from target to marker."""
        if scene.target is None:
            return 0.0
        to_goal = distance(scene.objects[scene.target], _get_goal(scene))
        return super().remaining_distance(scene) + to_goal


def _overlap(a: Sprite, b: Sprite) -> bool:
    """Return whether the distance of two sprites is below the sum of their radii."""
    return distance(a, b) < (a.scale + b.scale) / 2 - _TOLERANCE


def _get_goal(scene: Scene) -> Sprite:
    if scene.goal is None:
        raise ValueError("scene must have a goal, got goal None.")
    return scene.goal


@dataclass(frozen=True)
class ObjectComparisonWorld(SpriteWorld):
    """Object Comparison: one object differs from the others, which are identical, in one property.

    The property is sampled from colour, shape and scale, except those with a single value. The
    target is the object that differs.
    """

    colours: tuple[Colour, ...] = ("blue", "green")
    shapes: tuple[str, ...] = ("square", "triangle")

    def __post_init__(self) -> None:
        """Validate the options of a comparison."""
        if self.unique_colours:
            raise ValueError("unique_colours must be False in a comparison, got True.")
        if self.num_objects < 3:
            raise ValueError(f"num_objects must be >= 3 in a comparison, got {self.num_objects}.")
        if all(len(values) < 2 for values in self._properties):
            raise ValueError(
                "colours, shapes or object_scale must have several values in a comparison, got one"
                f" each: {self.colours}, {self.shapes}, {self.object_scale}."
            )
        super().__post_init__()

    @cached_property
    def _properties(self) -> list[list[Any]]:
        """Values of colour, shape and scale, in the order of `Appearance`."""
        return [list(dict.fromkeys(v)) for v in (self.palette, self.shapes, self.object_scales)]

    def sample_appearances(self, rng: np.random.Generator) -> tuple[list[Appearance], int | None]:
        """Sample the objects, with the target at a random index."""
        property_ = int(rng.choice([i for i, v in enumerate(self._properties) if len(v) > 1]))
        target = int(rng.integers(self.num_objects))
        columns = []
        for i, values in enumerate(self._properties):
            if i == property_:
                unique = values[rng.integers(len(values))]
                column = self.sample_shared(
                    rng, [v for v in values if v != unique], self.num_objects - 1
                )
                column.insert(target, unique)
            else:
                column = self.sample_shared(rng, values, self.num_objects)
            columns.append(column)
        return [Appearance(*row) for row in zip(*columns, strict=True)], target

    def sample_shared(self, rng: np.random.Generator, values: list[Any], count: int) -> list[Any]:
        """Sample one value that `count` objects share."""
        return [values[rng.integers(len(values))]] * count


@dataclass(frozen=True)
class PropertyComparisonWorld(ObjectComparisonWorld):
    """Property Comparison: the target is the only object with its value of one property.

    Two or more objects share every other value in the scene, of that property and of the others.
    """

    def sample_shared(self, rng: np.random.Generator, values: list[Any], count: int) -> list[Any]:
        """Sample one property of `count` objects so that at least two share every value.

        As published: random values are assigned to groups of random size (two or more), in random
        order, until every object has one; a last single object joins the group before it.
        """
        column: list[Any] = []
        while len(column) < count:
            left = count - len(column)
            size = int(rng.integers(2, left + 1))
            size += left - size == 1
            column += [values[rng.integers(len(values))]] * size
        return [column[i] for i in rng.permutation(count)]
