"""Which towers a rendered set has: every scenario by its number alone."""

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from genesis_rl.data.cache import SPLITS
from genesis_rl.data.shapestacks_files import Scenario
from genesis_rl.towers.rules import COLOURS, FAMILIES, HEIGHTS, RULES, Tower, sample_tower
from genesis_rl.towers.world import CAMERAS, Look, read_world, sample_look

#: Where the shares of the splits end: 70 %, 15 % and 15 % of the scenarios.
_ENDS = (0.7, 0.85, 1.0)
_GOLDEN = (sqrt(5) - 1) / 2
_DEFAULT_SCENARIOS = 1000


@dataclass(frozen=True)
class RenderConfig:
    """Which towers to render, and where to."""

    out: Path
    """folder for ShapeStacks' layout, or with --pack for one pack per split"""
    scenarios: int | None = None
    """towers in all; None: 1000, or all of mjcf. More may be added to a set later"""
    pack: bool = False
    """write memory-mapped packs for training instead, rendered at their size"""
    image_size: int = 64
    """side of a pack's images in pixels; ShapeStacks' layout has 224"""
    family: Literal["both", "blocks", "ccs"] = "both"
    """cuboids (blocks), cuboids with cylinders and spheres (ccs), or half of each"""
    heights: tuple[int, ...] = HEIGHTS
    """numbers of shapes in a tower, 2 to 6, in equal parts"""
    rule: Literal["original", "corrected"] = "original"
    """corrected: the load of a violating standing cylinder lies beside it indeed"""
    colours: int | None = None
    """different colours in a tower, 1 to 6, so that shapes have to share them; None: all shapes
    of a tower differ, as in the original"""
    cameras: tuple[int, ...] = tuple(range(1, len(CAMERAS) + 1))
    """from where every tower is seen, 1 to 16"""
    mjcf: Path | None = None
    """render the worlds of this folder (env_*.xml) instead, such as those of a download"""
    textures: Path | None = None
    """folder with floor/001.png to 006.png and wall/001.png to 006.png, any of which replaces the
    drawn one; None: the folder textures in mjcf, if there is one"""
    simulate: bool = True
    """let physics say too whether each tower stands"""
    seed: int = 0
    """first key of the randomness; a tower depends on (seed, number) alone"""
    first: int = 0
    """number of the first scenario of this job"""
    count: int | None = None
    """scenarios of this job; None: all from first on"""
    workers: int | None = None
    """processes that render; None: one per processor"""

    def __post_init__(self) -> None:
        """Check values."""
        for name, choices in (("family", ("both", *FAMILIES)), ("rule", RULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name, allowed in (("heights", HEIGHTS), ("cameras", range(1, len(CAMERAS) + 1))):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
                raise ValueError(
                    f"{name} must be different numbers in {allowed[0]}..{allowed[-1]}, got {values}"
                )
        if self.colours is not None and not 1 <= self.colours <= len(COLOURS):
            raise ValueError(f"colours must be 1 to {len(COLOURS)}, got {self.colours}.")
        for name, least in (
            ("scenarios", 1),
            ("seed", 0),
            ("first", 0),
            ("count", 1),
            ("workers", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    @property
    def num_workers(self) -> int:
        """How many processes render."""
        return self.workers or os.cpu_count() or 1


class Scene(NamedTuple):
    """A tower, its name and its appearance."""

    scenario: Scenario
    tower: Tower
    look: Look
    colours: str
    """how its shapes got their colours, as the names of images tell"""


class Plan:
    """The scenarios of a set by their numbers."""

    def __init__(self, config: RenderConfig) -> None:
        """Look for the worlds, if they are to be read.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if one has another name than a scenario's, if there are fewer than wanted,
                or if this job has no scenarios.
        """
        self._config = config
        self._worlds = [] if config.mjcf is None else _worlds(config.mjcf)
        size = config.scenarios or len(self._worlds) or _DEFAULT_SCENARIOS
        if config.mjcf is not None and size > len(self._worlds):
            raise ValueError(f"{config.mjcf} has {len(self._worlds)} worlds, not {size}")
        last = size if config.count is None else min(size, config.first + config.count)
        self.all = range(size)
        self.job = range(config.first, last)
        if not self.job:
            raise ValueError(f"first must be below the number of scenarios, {size}")

    @cached_property
    def key(self) -> dict[str, Any]:
        """What decides a scenario of a given number, as JSON data."""
        options = asdict(self._config)
        jobs = ("out", "scenarios", "pack", "image_size", "first", "count", "workers")
        key = {name: value for name, value in options.items() if name not in jobs}
        return {n: str(v) if isinstance(v, Path) else v for n, v in key.items()} | {
            "heights": list(self._config.heights),
            "cameras": list(self._config.cameras),
            "textures": self.textures and str(self.textures),
        }

    @property
    def textures(self) -> Path | None:
        """Folder of textures from files."""
        folder = self._config.mjcf and self._config.mjcf / "textures"
        if self._config.textures is None and folder is not None and folder.is_dir():
            return folder
        return self._config.textures

    def scenario(self, number: int) -> Scenario:
        """Name a scenario.

        Half of the towers are stable; heights come in equal parts; violations of either rule, at
        any of the shapes that carry others, take turns. A variation counts up from 1 among those
        that are alike in everything else.
        """
        if self._worlds:
            return Scenario.parse(self._worlds[number].stem)
        config = self._config
        families = FAMILIES if config.family == "both" else (config.family,)
        rest, family = divmod(number, len(families))
        rest, unstable = divmod(rest, 2)
        turn, place = divmod(rest, len(config.heights))
        height = config.heights[place]
        if not unstable:
            return Scenario(families[family], height, variation=turn + 1)
        violations = [(shape, 0) for shape in range(1, height)]
        if families[family] == "ccs":
            violations = [v for shape, _ in violations for v in ((shape, 0), (0, shape))]
        vcom, vpsf = violations[(turn + place) % len(violations)]
        variation = turn // len(violations) + 1
        return Scenario(families[family], height, vcom, vpsf, variation)

    def scene(self, number: int) -> Scene:
        """Make a scenario's tower and draw its appearance.

        Raises:
            ValueError: naming the file, if a world cannot be read.
        """
        config, scenario = self._config, self.scenario(number)
        rng = np.random.default_rng([config.seed, number])
        if self._worlds:
            tower, _ = read_world(self._worlds[number])
            return Scene(scenario, tower, sample_look(rng), "original")
        tower = sample_tower(
            rng,
            family=scenario.family,
            height=scenario.height,
            vcom=scenario.vcom,
            vpsf=scenario.vpsf,
            rule=config.rule,
            num_colours=config.colours,
        )
        colours = "unique" if config.colours is None else "random"
        return Scene(scenario, tower, sample_look(rng), colours)


def split_of(number: int) -> str:
    """Which split a scenario belongs to, however many there are.

    The multiples of the golden ratio, modulo 1, spread more evenly than random numbers: any eight
    consecutive scenarios have all three splits.
    """
    place = number * _GOLDEN % 1
    return next(split for split, end in zip(SPLITS, _ENDS, strict=True) if place < end)


def _worlds(folder: Path) -> list[Path]:
    worlds = sorted(folder.glob("env_*.xml"))
    if not worlds:
        raise FileNotFoundError(f"{folder} has no env_*.xml, ShapeStacks' scene descriptions")
    for path in worlds:
        try:
            Scenario.parse(path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return worlds
