"""Configuration and scenarios of rendered tower datasets; a scenario depends on its number only."""

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from genesis_rl.data.cache import SPLITS
from genesis_rl.data.readers.shapestacks import Scenario
from genesis_rl.utils.checks import DIFFERENT, NOT_EMPTY, Checked, Count, Natural, one_of, within
from genesis_rl.worlds.towers.rules import COLOURS, FAMILIES, HEIGHTS, Tower, sample_tower
from genesis_rl.worlds.towers.world import CAMERAS, RoomAppearance, read_world, sample_appearance

#: Cumulative shares of the splits: 70 %, 15 % and 15 % of the scenarios.
_ENDS = (0.7, 0.85, 1.0)
_GOLDEN = (sqrt(5) - 1) / 2
_DEFAULT_SCENARIOS = 1000
_Camera = Annotated[int, within(1, len(CAMERAS))]
_Cameras = Annotated[tuple[_Camera, ...], NOT_EMPTY, DIFFERENT]


@dataclass(frozen=True)
class RenderConfig(Checked):
    """Towers to render, and the output format."""

    out: Path
    """output folder, in ShapeStacks' layout or, with --pack, with one pack per split"""
    scenarios: Count | None = None
    """number of towers; None: 1000, or all of mjcf. A dataset can be extended later"""
    pack: bool = False
    """write memory-mapped packs for training instead, rendered at image_size"""
    image_size: int = 64
    """side of a pack's images in pixels; 224 in ShapeStacks' layout"""
    family: Literal["both", "blocks", "ccs"] = "both"
    """cuboids (blocks), cuboids with cylinders and spheres (ccs), or half of each"""
    heights: Annotated[tuple[Annotated[int, one_of(HEIGHTS)], ...], NOT_EMPTY, DIFFERENT] = HEIGHTS
    """numbers of shapes in a tower, 2 to 6, in equal parts"""
    rule: Literal["original", "corrected"] = "original"
    """corrected: the centre of mass above a violating standing cylinder lies beside it, as for
    other shapes"""
    colours: Annotated[int, within(1, len(COLOURS))] | None = None
    """number of colours in a tower, 1 to 6; shapes may share a colour. None: all shapes of a tower
    have different colours, as in the original"""
    cameras: _Cameras = tuple(range(1, len(CAMERAS) + 1))
    """cameras that record each tower, 1 to 16"""
    mjcf: Path | None = None
    """render the worlds of this folder (env_*.xml) instead, such as the original ones"""
    textures: Path | None = None
    """folder with floor/001.png to 006.png and wall/001.png to 006.png; any of them replaces a
    procedural texture. None: the folder textures in mjcf, if present"""
    simulate: bool = True
    """also simulate whether each tower stands"""
    seed: Natural = 0
    """random seed; a tower depends on (seed, number) only"""
    first: Natural = 0
    """number of the first scenario of this job"""
    count: Count | None = None
    """scenarios of this job; None: all remaining ones"""
    workers: Count | None = None
    """rendering processes; None: one per processor"""

    @property
    def num_workers(self) -> int:
        """Number of rendering processes."""
        return self.workers or os.cpu_count() or 1


class TowerScene(NamedTuple):
    """A tower, its scenario and its appearance."""

    scenario: Scenario
    tower: Tower
    appearance: RoomAppearance
    colours: str
    """colour scheme of the shapes, as in the names of images: original, unique or random"""


class Plan:
    """The scenarios of a dataset by number."""

    def __init__(self, config: RenderConfig) -> None:
        """List the scenarios, and the worlds of ``config.mjcf``.

        Raises:
            FileNotFoundError: if ``config.mjcf`` contains no worlds.
            ValueError: if a world's name is not a scenario's, if there are fewer worlds than
                scenarios, or if this job has no scenarios.
        """
        self._config = config
        self._worlds = [] if config.mjcf is None else _worlds(config.mjcf)
        size = config.scenarios or len(self._worlds) or _DEFAULT_SCENARIOS
        if config.mjcf is not None and size > len(self._worlds):
            raise ValueError(
                f"scenarios must be at most {len(self._worlds)}, the worlds in {config.mjcf}, "
                f"got {size}."
            )
        last = size if config.count is None else min(size, config.first + config.count)
        self.all = range(size)
        self.job = range(config.first, last)
        if not self.job:
            raise ValueError(
                f"first must be less than the number of scenarios, {size}, got {config.first}."
            )

    @cached_property
    def key(self) -> dict[str, Any]:
        """Settings that determine a scenario of a given number, as JSON data."""
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
        """Folder of texture files, or None."""
        folder = self._config.mjcf and self._config.mjcf / "textures"
        if self._config.textures is None and folder is not None and folder.is_dir():
            return folder
        return self._config.textures

    def scenario(self, number: int) -> Scenario:
        """Return the scenario of a number.

        Half of the towers are stable, and all heights are equally frequent. Violations alternate
        over both rules and all shapes below the top. Scenarios that are otherwise equal are
        numbered by their variation, from 1.
        """
        if self._worlds:
            return Scenario.parse(self._worlds[number].stem)
        config = self._config
        families = FAMILIES if config.family == "both" else (config.family,)
        rest, family = divmod(number, len(families))
        rest, unstable = divmod(rest, 2)
        cycle, position = divmod(rest, len(config.heights))
        height = config.heights[position]
        if not unstable:
            return Scenario(families[family], height, variation=cycle + 1)
        violations = [(shape, 0) for shape in range(1, height)]
        if families[family] == "ccs":
            violations = [v for shape, _ in violations for v in ((shape, 0), (0, shape))]
        vcom, vpsf = violations[(cycle + position) % len(violations)]
        variation = cycle // len(violations) + 1
        return Scenario(families[family], height, vcom, vpsf, variation)

    def scene(self, number: int) -> TowerScene:
        """Return a scenario's tower with a sampled appearance.

        Raises:
            ValueError: if a world file cannot be read.
        """
        config, scenario = self._config, self.scenario(number)
        rng = np.random.default_rng([config.seed, number])
        if self._worlds:
            tower, _ = read_world(self._worlds[number])
            return TowerScene(scenario, tower, sample_appearance(rng), "original")
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
        return TowerScene(scenario, tower, sample_appearance(rng), colours)


def split_of(number: int) -> str:
    """Return the split of a scenario, independently of the number of scenarios.

    Multiples of the golden ratio, modulo 1, are spread more evenly than random numbers: any eight
    consecutive scenarios include all three splits.
    """
    position = number * _GOLDEN % 1
    return next(split for split, end in zip(SPLITS, _ENDS, strict=True) if position < end)


def _worlds(folder: Path) -> list[Path]:
    worlds = sorted(folder.glob("env_*.xml"))
    if not worlds:
        raise FileNotFoundError(f"mjcf must contain scenes (env_*.xml), got {folder}.")
    for path in worlds:
        try:
            Scenario.parse(path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return worlds
