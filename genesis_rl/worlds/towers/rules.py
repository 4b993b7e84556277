"""Sampling of ShapeStacks towers (Groth et al., ECCV 2018).

Lengths are in metres, angles in degrees, z is up. A tower is built from top to bottom: each shape
is placed below the common centre of mass of all shapes above it, its load, with an offset that
determines its stability.

At most one shape, numbered from the bottom (1 = the lowest), has one of two violations:

- `vcom`, of the centre-of-mass rule: the load's centre of mass is outside the shape's upper face;
- `vpsf`, of the planar-surface rule: a shape below the top is a sphere or a lying cylinder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import cos, pi, radians, sin

import numpy as np
import numpy.typing as npt

RGB = tuple[int, int, int]
Point = tuple[float, float, float]

KINDS = ("cuboid", "cylinder", "sphere")
FAMILIES = ("blocks", "ccs")  # cuboids; cuboids, cylinders and spheres
RULES = ("original", "corrected")
HEIGHTS = (2, 3, 4, 5, 6)

#: Colours of the shapes: pure and opaque.
COLOURS: dict[str, RGB] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
}

_HALF_SIZES = (0.25, 0.5)  # edges, heights and diameters are 0.5 to 1
_STABLE_SHARE = 0.5  # largest stable offset, as a share of half the upper face's edge
_BEYOND_EDGE = 0.05  # distance of a violating load's centre of mass from the edge, in metres
_SHIFT = 2.0  # maximum shift of the tower from the origin, in x and y
_SIZES = {"cuboid": 3, "cylinder": 2, "sphere": 1}  # lengths of `Shape.size`


@dataclass(frozen=True)
class Shape:
    """A cuboid, a cylinder or a sphere of a scene."""

    kind: str
    """one of KINDS"""
    size: tuple[float, ...]
    """half sizes as in MuJoCo: (x, y, z), (radius, half height) or (radius,)"""
    position: Point
    """centre"""
    yaw: float = 0.0
    """rotation about the vertical axis, in degrees"""
    lying: bool = False
    """whether a cylinder lies on its side; its axis is then the y axis, before the yaw"""
    colour: RGB = (255, 0, 0)
    """red, green, blue in 0..255"""

    def __post_init__(self) -> None:
        """Validate the fields."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}.")
        if len(self.size) != _SIZES[self.kind] or not all(0 < s < 100 for s in self.size):
            raise ValueError(
                f"size of a {self.kind} must be {_SIZES[self.kind]} half sizes in metres,"
                f" got {self.size}."
            )
        if len(self.position) != 3 or not np.isfinite([*self.position, self.yaw]).all():
            raise ValueError(
                f"position and yaw must be finite numbers, got {self.position} and {self.yaw}."
            )
        if self.lying and self.kind != "cylinder":
            raise ValueError(f"lying must be False for a {self.kind}, got True.")
        if len(self.colour) != 3 or not all(0 <= c <= 255 for c in self.colour):
            raise ValueError(f"colour must be three numbers from 0 to 255, got {self.colour}.")

    @property
    def half_height(self) -> float:
        """Half of the vertical extent."""
        return self.size[0] if self.lying else self.size[-1]

    @property
    def half_sizes(self) -> Point:
        """Half extents (x, y, z) in the shape's own axes; a cylinder's axis is z."""
        widths = self.size[:2] if self.kind == "cuboid" else self.size[:1] * 2
        return widths[0], widths[1], self.size[-1]

    @property
    def volume(self) -> float:
        """Volume in cubic metres; all shapes have the same density."""
        if self.kind == "cuboid":
            x, y, z = self.size
            return 8 * x * y * z
        if self.kind == "cylinder":
            radius, half_height = self.size
            return 2 * pi * radius**2 * half_height
        return 4 / 3 * pi * self.size[0] ** 3

    @property
    def rotation(self) -> npt.NDArray[np.float64]:
        """Rotation matrix (3, 3): by 90 degrees about x if lying, then by the yaw about z."""
        c, s = cos(radians(self.yaw)), sin(radians(self.yaw))
        if self.lying:
            return np.array([[c, 0.0, s], [s, 0.0, -c], [0.0, 1.0, 0.0]])
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Tower:
    """A stack of shapes and the rule that it violates, if any."""

    family: str
    """one of FAMILIES"""
    shapes: tuple[Shape, ...]
    """from the bottom to the top"""
    vcom: int = 0
    """number of the shape that violates the centre-of-mass rule; 0 = none"""
    vpsf: int = 0
    """number of the shape that violates the planar-surface rule; 0 = none"""

    def __post_init__(self) -> None:
        """Validate the fields."""
        check_tower(self.family, len(self.shapes), self.vcom, self.vpsf)

    @property
    def height(self) -> int:
        """Number of shapes."""
        return len(self.shapes)

    @property
    def stable(self) -> bool:
        """Whether the tower is stable by construction; see `simulate` for the simulation."""
        return self.vcom == 0 and self.vpsf == 0

    @cached_property
    def violation(self) -> str:
        """The violation and its shape's kind, for example "vcom cuboid"; "none" if stable."""
        if self.stable:
            return "none"
        shape = self.shapes[(self.vcom or self.vpsf) - 1]
        if shape.kind != "cylinder":
            kind = shape.kind
        else:
            kind = "lying cylinder" if shape.lying else "standing cylinder"
        return f"{'vcom' if self.vcom else 'vpsf'} {kind}"


def shapes_of(tower: Tower | Sequence[Shape]) -> tuple[Shape, ...]:
    """Return a tower's shapes, or the shapes themselves."""
    return tower.shapes if isinstance(tower, Tower) else tuple(tower)


def check_tower(family: str, height: int, vcom: int, vpsf: int) -> None:
    """Validate the arguments of a tower.

    Raises:
        ValueError: if an argument is invalid.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {FAMILIES}, got {family!r}.")
    if height not in HEIGHTS:
        raise ValueError(f"height must be 2 to 6 shapes, got {height!r}.")
    for name, number in (("vcom", vcom), ("vpsf", vpsf)):
        if number not in range(height):
            raise ValueError(
                f"{name} must be 0 or the number of a shape below the top, at most {height - 1}, "
                f"got {number!r}."
            )
    if vcom and vpsf:
        raise ValueError(f"vcom or vpsf must be 0, got vcom={vcom} and vpsf={vpsf}.")


def sample_tower(
    rng: np.random.Generator,
    *,
    family: str = "ccs",
    height: int,
    vcom: int = 0,
    vpsf: int = 0,
    rule: str = "original",
    num_colours: int | None = None,
) -> Tower:
    """Sample a tower.

    Args:
        rng: random generator.
        family: "blocks" (cuboids) or "ccs" (cuboids, cylinders, spheres).
        height: number of shapes, 2 to 6.
        vcom: number of the shape that violates the centre-of-mass rule; 0 for none.
        vpsf: number of the shape that violates the planar-surface rule; 0 for none.
        rule: "original" or "corrected". The original uses a standing cylinder's radius as its
            diameter, so that the violating load's centre of mass is still above the disc and the
            tower is stable. With the corrected rule, it is 0.05 m outside the disc.
        num_colours: number of colours, 1 to 6, from which each shape's colour is sampled
            independently; None: all shapes have different colours.

    Raises:
        ValueError: if an option is invalid.
    """
    check_tower(family, height, vcom, vpsf)
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, got {rule!r}.")
    if vpsf and family == "blocks":
        raise ValueError(f"vpsf must be 0 for the family 'blocks', got {vpsf}. Use family='ccs'.")
    colours = shuffled_colours(rng)
    if num_colours is not None:
        # Any two shapes, also neighbours, may have the same colour.
        colours = [colours[i] for i in rng.integers(num_colours, size=height)]
    shapes: list[Shape] = []  # from the top to the bottom, with z = 0 until stacked
    for number in range(height, 0, -1):
        shape = sample_shape(rng, family, top=number == height, curved=number == vpsf)
        if shapes:
            if number == vcom:
                offset = _violating_offset(rng, shape, rule)
            else:
                offset = _stable_offset(rng, shape)
            x, y = centre_of_mass(shapes) + turn(shape.yaw) @ offset
            shape = replace(shape, position=(float(x), float(y), 0.0))
        shapes.append(replace(shape, colour=colours[height - number]))
    shift = rng.uniform(-_SHIFT, _SHIFT, 2)
    return Tower(family, _stack(shapes[::-1], shift), vcom, vpsf)


def shuffled_colours(rng: np.random.Generator) -> list[RGB]:
    """Return the six colours in a random order."""
    colours = list(COLOURS.values())
    return [colours[index] for index in rng.permutation(len(colours))]


def sample_shape(
    rng: np.random.Generator, family: str, *, top: bool, curved: bool = False
) -> Shape:
    """Sample a shape's kind, size and yaw.

    Args:
        rng: random generator.
        family: one of FAMILIES.
        top: sample any kind of the family; otherwise cuboids and standing cylinders only.
        curved: sample a violation of the planar-surface rule: a sphere or a lying cylinder.

    Returns:
        The shape, at the origin.
    """
    if family == "blocks":
        kinds = ["cuboid"]
    elif top:
        kinds = ["cuboid", "standing", "lying", "sphere"]
    elif curved:
        kinds = ["sphere", "lying"]
    else:
        kinds = ["cuboid", "standing"]
    choice = kinds[rng.integers(len(kinds))]
    kind = choice if choice in KINDS else "cylinder"
    size = tuple(float(s) for s in rng.uniform(*_HALF_SIZES, _SIZES[kind]))
    yaw = float(rng.integers(361)) if choice in ("cuboid", "lying") else 0.0
    return Shape(kind, size, (0.0, 0.0, 0.0), yaw, lying=choice == "lying")


def _surface(shape: Shape) -> npt.NDArray[np.float64]:
    """Return the edges (x, y) of the upper face as in the original, in the shape's own axes.

    For a standing cylinder, the original uses the radius, not the diameter.
    """
    if shape.kind == "cuboid":
        return 2 * np.array(shape.size[:2])
    if shape.kind == "sphere":
        return np.zeros(2)
    radius, half_height = shape.size
    return np.array([0.0, 2 * half_height]) if shape.lying else np.array([radius, radius])


def _stable_offset(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.float64]:
    """Sample a stable offset (x, y) of a shape from its load's centre of mass, in its own axes."""
    distance = rng.uniform(0, _STABLE_SHARE, 2) * _surface(shape) / 2
    return rng.choice([-1.0, 1.0], 2) * distance


def _violating_offset(rng: np.random.Generator, shape: Shape, rule: str) -> npt.NDArray[np.float64]:
    """Sample an offset (x, y) that violates the centre-of-mass rule."""
    if rule == "corrected" and shape.kind == "cylinder":
        angle = rng.uniform(0, 2 * pi)
        return (shape.size[0] + _BEYOND_EDGE) * np.array([cos(angle), sin(angle)])
    half = _surface(shape) / 2
    beyond = rng.choice([-1.0, 1.0], 2) * (half + _BEYOND_EDGE)
    within = rng.uniform(-half, half)
    violated = [(True, False), (False, True), (True, True)][rng.integers(3)]
    return np.where(violated, beyond, within)


def turn(yaw: float) -> npt.NDArray[np.float64]:
    """Return the matrix (2, 2) of a rotation about the vertical axis by an angle in degrees."""
    c, s = cos(radians(yaw)), sin(radians(yaw))
    return np.array([[c, -s], [s, c]])


def centre_of_mass(shapes: Sequence[Shape]) -> npt.NDArray[np.float64]:
    """Return the horizontal centre of mass (x, y)."""
    volumes = np.array([shape.volume for shape in shapes])
    centres = np.array([shape.position[:2] for shape in shapes])
    return np.asarray(volumes @ centres / volumes.sum())


def _stack(shapes: Sequence[Shape], shift: npt.NDArray[np.float64]) -> tuple[Shape, ...]:
    """Stack shapes (bottom to top) on the ground without gaps, and shift them by (x, y)."""
    stacked, top = [], 0.0
    for shape in shapes:
        x, y, _ = shape.position
        z = top + shape.half_height
        stacked.append(replace(shape, position=(x + float(shift[0]), y + float(shift[1]), z)))
        top = z + shape.half_height
    return tuple(stacked)
