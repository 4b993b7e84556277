"""The four relational tasks: how their objects look, and what solves them.

After Yoon et al. (ICML 2023, arXiv:2302.04419).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from genesis_rl.sprites import RGB, Colour, Sprite, check_shapes, rgb
from genesis_rl.worlds.scenes import Look, Scene, agent_of, gap
from genesis_rl.worlds.world import Outcome, SpriteWorld, shifted

_SLACK = 1e-6  # sprites this much closer than touching do not overlap: positions are sums of steps


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
            raise ValueError(
                f"{type(self).__name__} needs a second colour or shape for the other objects"
            )
        super().__post_init__()

    @cached_property
    def target_look(self) -> tuple[RGB, str]:
        """Colour and shape of the target."""
        return rgb(self.target_colour), self.target_shape

    def looks(self, rng: np.random.Generator) -> tuple[list[Look], int | None]:
        """One target among other looks, at a random index so that its place tells nothing."""
        target = self.target_look
        if self.unique_colours:
            rest = [c for c in self.palette if c != target[0]]
            chosen = rng.permutation(len(rest))[: self.num_objects - 1]
            kinds = rng.integers(len(self.shapes), size=self.num_objects - 1)
            pairs = [(rest[c], self.shapes[s]) for c, s in zip(chosen, kinds, strict=True)]
        else:
            others = [(c, s) for c in self.palette for s in self.shapes]
            others = [look for look in others if look != target]
            chosen = rng.integers(max(len(others), 1), size=self.num_objects - 1)
            pairs = [others[i] for i in chosen]
        index = int(rng.integers(self.num_objects))
        pairs.insert(index, target)
        return self.with_sizes(pairs, rng), index


@dataclass(frozen=True)
class ObjectInteractionWorld(ObjectGoalWorld):
    """Object Interaction: push the target onto the goal's marker in the bottom-left corner.

    The marker is drawn like the target, its centre one radius from both walls. An object is there
    when it is nearer than the sum of the two radii: the target solves the task, another object
    ends the episode.
    """

    objects_move: ClassVar[bool] = True

    num_objects: int = 3
    shapes: tuple[str, ...] = ("square",)
    wall_margin: float = 0.15

    @property
    def num_sprites(self) -> int:
        """Sprites in a scene: the objects, the goal's marker and the agent."""
        return self.num_objects + 2

    def goal(self, target: Look) -> Sprite | None:
        """Return the marker of the place where the target has to go."""
        radius = target.scale / 2
        return Sprite(target.shape, target.colour, target.scale, radius, radius)

    def move(self, scene: Scene, shift: tuple[float, float]) -> Scene:
        """Return the scene after the agent has moved by (dx, dy) and pushed what is in its way.

        The agent and the objects that it would run into move as one: as far as the first of them
        can go inside the frame, and not at all if one of them would run into another object.
        """
        agent = agent_of(scene)
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
        still = [sprite for i, sprite in enumerate(scene.objects) if i not in pushed]
        if any(_overlap(objects[i], other) for i in pushed for other in still):
            return scene
        return scene._replace(objects=objects, agent=shifted(agent, shift))

    def outcome(self, scene: Scene) -> Outcome:
        """Judge a scene: an object on the marker ends the episode, the target with success."""
        goal = _goal_of(scene)
        there = [i for i, sprite in enumerate(scene.objects) if _overlap(sprite, goal)]
        return Outcome(scene.target in there, bool(there))

    def remaining(self, scene: Scene) -> float:
        """Return the way from the agent to the target plus that from the target to the marker."""
        if scene.target is None:
            return 0.0
        return super().remaining(scene) + gap(scene.objects[scene.target], _goal_of(scene))


def _overlap(a: Sprite, b: Sprite) -> bool:
    """Tell whether two sprites are nearer than the sum of their radii."""
    return gap(a, b) < (a.scale + b.scale) / 2 - _SLACK


def _goal_of(scene: Scene) -> Sprite:
    if scene.goal is None:
        raise ValueError("this scene has no goal")
    return scene.goal


@dataclass(frozen=True)
class ObjectComparisonWorld(SpriteWorld):
    """Object Comparison: one object differs from the rest, which look alike, in one property.

    The properties are those of colour, shape and scale of which the world has several. The target
    is the odd one out.
    """

    colours: tuple[Colour, ...] = ("blue", "green")
    shapes: tuple[str, ...] = ("square", "triangle")

    def __post_init__(self) -> None:
        """Check that one object can be told from the rest."""
        if self.unique_colours:
            raise ValueError("unique_colours would make every object of a comparison the odd one")
        if self.num_objects < 3:
            raise ValueError(f"a comparison needs num_objects >= 3, got {self.num_objects}")
        if all(len(values) < 2 for values in self._properties):
            raise ValueError("a comparison needs several colours, shapes or scales to tell apart")
        super().__post_init__()

    @cached_property
    def _properties(self) -> list[list[Any]]:
        """Values of colour, shape and scale, in the order of `Look`."""
        return [list(dict.fromkeys(v)) for v in (self.palette, self.shapes, self.sizes)]

    def looks(self, rng: np.random.Generator) -> tuple[list[Look], int | None]:
        """One odd object at a random index so that its place tells nothing."""
        odd = int(rng.choice([i for i, v in enumerate(self._properties) if len(v) > 1]))
        target = int(rng.integers(self.num_objects))
        columns = []
        for i, values in enumerate(self._properties):
            if i == odd:
                unique = values[rng.integers(len(values))]
                column = self.shared(rng, [v for v in values if v != unique], self.num_objects - 1)
                column.insert(target, unique)
            else:
                column = self.shared(rng, values, self.num_objects)
            columns.append(column)
        return [Look(*look) for look in zip(*columns, strict=True)], target

    def shared(self, rng: np.random.Generator, values: list[Any], count: int) -> list[Any]:
        """Draw one property of `count` objects, none of which may stand out by it: one value."""
        return [values[rng.integers(len(values))]] * count


@dataclass(frozen=True)
class PropertyComparisonWorld(ObjectComparisonWorld):
    """Property Comparison: one object alone has its value of one property.

    Every other value in the scene, of that property and of the others, is shared by two objects
    or more.
    """

    def shared(self, rng: np.random.Generator, values: list[Any], count: int) -> list[Any]:
        """Draw one property of `count` objects, none of which may stand out by it.

        As published: a random value goes to a random number (two or more) of the objects, in
        random order, until all have one; a last single object joins the group before it.
        """
        column: list[Any] = []
        while len(column) < count:
            left = count - len(column)
            size = int(rng.integers(2, left + 1))
            size += left - size == 1
            column += [values[rng.integers(len(values))]] * size
        return [column[i] for i in rng.permutation(count)]
