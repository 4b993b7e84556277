"""Tower datasets as packs, rendered in parallel, resumable and reproducible."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genesis_rl.data.cache import SPLITS, open_or_make, pack_folder
from genesis_rl.data.pack import Pack, ResumablePackWriter
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.offscreen import require_gl
from genesis_rl.worlds.sprites import from_options
from genesis_rl.worlds.towers.plan import Plan, RenderConfig, TowerScene, split_of
from genesis_rl.worlds.towers.rendering import TowerRenderer
from genesis_rl.worlds.towers.rules import HEIGHTS, KINDS, Tower
from genesis_rl.worlds.towers.simulation import Agreement, SimulationResult, simulate
from genesis_rl.worlds.workers import Workers

#: Columns of the factor "state", with a row per shape from bottom to top, padded with zeros.
STATE_COLUMNS = (
    *("x", "y", "z"),  # centre in metres
    *("cos_yaw", "sin_yaw", "lying"),
    *("size_x", "size_y", "size_z"),  # half sizes in metres, in the shape's own axes
    *KINDS,  # one of them is 1
    *("red", "green", "blue"),  # 0 to 1
)


class RenderedScenario(NamedTuple):
    """Images of a scenario from C cameras.

    Attributes:
        scene: the tower and its appearance.
        images: (C, H, W, 3) uint8.
        labels: (C, H, W) uint8, number of the shape from the bottom, 0 = background.
        outcome: result of the simulation; None if the tower was not simulated.
    """

    scene: TowerScene
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    outcome: SimulationResult | None


class ScenarioRenderer:
    """Renderer of scenarios by number; one per process."""

    def __init__(self, config: RenderConfig, size: int, *, crop: bool) -> None:
        """Create an OpenGL context; arguments as for `TowerRenderer`."""
        self._config = config
        self._plan = Plan(config)
        self._renderer = TowerRenderer(size, crop=crop, textures=self._plan.textures)

    def __call__(self, number: int) -> RenderedScenario:
        """Render a scenario from all cameras, and simulate it if configured."""
        scene = self._plan.scene(number)
        self._renderer.load(scene.tower, scene.appearance)
        views = [self._renderer.render(camera) for camera in self._config.cameras]
        outcome = simulate(scene.tower) if self._config.simulate else None
        images, labels = (np.stack(parts) for parts in zip(*views, strict=True))
        return RenderedScenario(scene, images, labels, outcome)


class AgreementCounter:
    """Counts of towers whose stability is the same by simulation and by construction.

    Attributes:
        counts: agreeing and all towers by `Tower.violation`.
    """

    def __init__(self, counts: Mapping[str, Sequence[int]] | None = None) -> None:
        """Initialise with earlier counts."""
        self.counts: dict[str, list[int]] = {}
        self.add_all(counts or {})

    def add(self, violation: str, collapsed: bool) -> None:
        """Count one tower."""
        self.add_all({violation: (int(collapsed != (violation == "none")), 1)})

    def add_all(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Add other counts."""
        for violation, (agreeing, towers) in counts.items():
            before = self.counts.get(violation, (0, 0))
            self.counts[violation] = [before[0] + agreeing, before[1] + towers]

    def agreement(self) -> dict[str, Agreement]:
        """Return the counts by violation."""
        return {violation: Agreement(*both) for violation, both in sorted(self.counts.items())}


def record_packs(config: RenderConfig) -> tuple[dict[str, Pack], dict[str, Agreement]]:
    """Render a dataset as packs `train`, `validation` and `test` in the folder `config.out`.

    Splits without scenarios get no pack. Repeating an interrupted call resumes it. The factors are
    stable, simulated_stable, height and camera; state, see `STATE_COLUMNS`; and x, y, z, colour and
    shape (index into `KINDS`) with a row per shape.

    Returns:
        The packs by split, and the agreement of simulation and construction by violation.

    Raises:
        ValueError: if a folder contains another pack, or a world file cannot be read.
        OSError: if a pack cannot be written.
        RuntimeError: if OpenGL is not available, or a process dies.
    """
    plan, counter = Plan(config), AgreementCounter()
    packs = {}
    make = partial(ScenarioRenderer, config, config.image_size, crop=True)
    with Workers(make, config.num_workers) as workers:
        for split in SPLITS:
            numbers = [number for number in plan.job if split_of(number) == split]
            if numbers:
                packs[split] = _pack(config, plan, split, numbers, workers)
    for pack in packs.values():
        counter.add_all(pack.meta.get("agreement", {}))
    return packs, counter.agreement()


def _pack(
    config: RenderConfig,
    plan: Plan,
    split: str,
    numbers: Sequence[int],
    workers: Workers[RenderedScenario],
) -> Pack:
    """Open one split's pack; write it first if it is missing."""
    key = {"dataset": "shapestacks_towers", "split": split, **plan.key}
    key |= {"first": plan.job.start, "last": plan.job.stop}

    def write(folder: Path) -> None:
        cameras = np.array(config.cameras)
        total = len(numbers) * len(cameras)
        writer = ResumablePackWriter(folder, total, config.image_size, meta=key)
        about = f"{config.out.name}, {split}"
        with writer, ProgressBar(total=total, desc=about, unit="img") as bar:
            counter = AgreementCounter(writer.state.get("agreement"))
            bar.update(writer.written)
            for rendered in workers.map(numbers[writer.written // len(cameras) :]):
                factors = _factors(rendered, cameras)
                writer.write(rendered.images, rendered.labels, **factors)
                if rendered.outcome is not None:
                    counter.add(rendered.scene.tower.violation, rendered.outcome.collapsed)
                bar.update(len(cameras))
                writer.state["agreement"] = counter.counts
                writer.checkpoint_regularly()
            writer.meta["agreement"] = counter.counts

    pack = open_or_make(config.out / split, write)
    for name, value in {**key, "image_size": [config.image_size] * 2}.items():
        if pack.meta.get(name) != value:
            raise ValueError(
                f"{name} must be {pack.meta.get(name)!r} as in the pack {pack.folder}, "
                f"got {value!r}. Choose another folder."
            )
    return pack


def tower_state(tower: Tower) -> npt.NDArray[np.float32]:
    """Return a tower's state (6, F): a row of `STATE_COLUMNS` per shape, padded with zeros."""
    state = np.zeros((HEIGHTS[-1], len(STATE_COLUMNS)), np.float32)
    for row, shape in zip(state, tower.shapes, strict=False):
        yaw = np.radians(shape.yaw)
        row[0:3] = shape.position
        row[3:6] = np.cos(yaw), np.sin(yaw), shape.lying
        row[6:9] = shape.half_sizes
        row[9 + KINDS.index(shape.kind)] = 1
        row[12:15] = np.array(shape.colour) / 255
    return state


def _factors(
    rendered: RenderedScenario, cameras: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Return the factors of a scenario's images."""
    tower, outcome = rendered.scene.tower, rendered.outcome
    state = tower_state(tower)
    of_scene: dict[str, npt.NDArray[Any]] = {
        "stable": np.array(tower.stable, np.int64),
        "height": np.array(tower.height, np.int64),
        "state": state,
        **{name: state[:, axis] for axis, name in enumerate("xyz")},
        "colour": state[:, 12:15],
        "shape": state[:, 9:12].argmax(1),
    }
    if outcome is not None:
        of_scene["simulated_stable"] = np.array(not outcome.collapsed, np.int64)
    repeated = {name: np.stack([value] * len(cameras)) for name, value in of_scene.items()}
    return repeated | {"camera": cameras}


def open_towers(
    root: Path,
    split: str,
    *,
    scenarios: int = 1600,
    num_images: int | None = None,
    **options: object,
) -> Pack:
    """Open a split of rendered towers; render all splits if they are missing.

    Args:
        root: folder of all datasets.
        split: "train", "validation" or "test".
        scenarios: number of towers in all splits together; each is rendered from every camera.
        num_images: largest number of images used. Ignored: the dataset is the same for all callers.
        **options: image_size, family, heights, rule, cameras, colours, simulate and seed of
            `RenderConfig`.

    Raises:
        ValueError: for an invalid value of an option.
        TypeError: for an unknown option.
        OSError: if the pack cannot be written.
        RuntimeError: if no OpenGL library is installed, or a script without
            `if __name__ == '__main__'` starts the rendering in several processes.
    """
    if num_images is not None and num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}.")
    config = from_options(RenderConfig, {"out": root, "scenarios": scenarios, **options})
    key = {**Plan(config).key, "scenarios": scenarios, "image_size": config.image_size}
    folder = pack_folder(root, "towers", "all", key)
    if not (folder / split).is_dir():
        require_gl()
        record_packs(from_options(RenderConfig, {**options, "out": folder, "scenarios": scenarios}))
    return Pack.open(folder / split)
