"""Render sets of towers: by several processes, resumable, the same for any number of them."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from genesis_rl.data.cache import SPLITS, open_or_make
from genesis_rl.data.pack import Pack
from genesis_rl.data.resume import ResumablePackWriter
from genesis_rl.towers.plan import Plan, RenderConfig, Scene, split_of
from genesis_rl.towers.rendering import TowerRenderer
from genesis_rl.towers.rules import HEIGHTS, KINDS, Tower
from genesis_rl.towers.simulation import Agreement, Outcome, simulate
from genesis_rl.towers.workers import Workers

#: Columns of the factor "state": a row per shape from the bottom to the top, then zeros.
STATE_COLUMNS = (
    *("x", "y", "z"),  # centre in metres
    *("cos_yaw", "sin_yaw", "lying"),
    *("size_x", "size_y", "size_z"),  # half sizes in metres, in the shape's own axes
    *KINDS,  # one of them is 1
    *("red", "green", "blue"),  # 0 to 1
)

_CHECKPOINT_SECONDS = 10.0


class Recording(NamedTuple):
    """A scenario as its cameras see it.

    Attributes:
        scene: the tower and its appearance.
        images: (C, H, W, 3) uint8.
        labels: (C, H, W) uint8, number of the shape from the bottom, 0 = background.
        outcome: what became of the tower in simulation; None if it was not simulated.
    """

    scene: Scene
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    outcome: Outcome | None


class Recorder:
    """Renders scenarios by their numbers; one per process."""

    def __init__(self, config: RenderConfig, size: int, *, crop: bool) -> None:
        """Make an OpenGL context; arguments as for `TowerRenderer`."""
        self._config = config
        self._plan = Plan(config)
        self._renderer = TowerRenderer(size, crop=crop, textures=self._plan.textures)

    def __call__(self, number: int) -> Recording:
        """Render a scenario from all cameras, and simulate it if that is wanted."""
        scene = self._plan.scene(number)
        self._renderer.load(scene.tower, scene.look)
        views = [self._renderer.render(camera) for camera in self._config.cameras]
        outcome = simulate(scene.tower) if self._config.simulate else None
        images, labels = (np.stack(parts) for parts in zip(*views, strict=True))
        return Recording(scene, images, labels, outcome)


class Tally:
    """Counts how often simulation and construction agree, by `Tower.violation`.

    Attributes:
        counts: agreeing and all towers by violation.
    """

    def __init__(self, counts: Mapping[str, Sequence[int]] | None = None) -> None:
        """Go on from counts."""
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
    """Render a set as packs, `train`, `validation` and `test` in the folder `config.out`.

    A split without scenarios, in a set of a few, gets no pack. Interrupted, the same call goes on.
    Factors: stable, simulated_stable, height and camera of the image; state, see `STATE_COLUMNS`;
    and x, y, z, colour and shape (a number, in the order of `KINDS`) with a row per shape.

    Returns:
        The packs by split, and how often simulation and construction agree, by violation.

    Raises:
        ValueError: if a folder holds another pack, or a world to render cannot be read.
        OSError: if a pack cannot be written.
        RuntimeError: if there is no OpenGL, or a process dies.
    """
    plan, tally = Plan(config), Tally()
    packs = {}
    make = partial(Recorder, config, config.image_size, crop=True)
    with Workers(make, config.num_workers) as workers:
        for split in SPLITS:
            numbers = [number for number in plan.job if split_of(number) == split]
            if numbers:
                packs[split] = _pack(config, plan, split, numbers, workers)
    for pack in packs.values():
        tally.add_all(pack.meta.get("agreement", {}))
    return packs, tally.agreement()


def _pack(
    config: RenderConfig,
    plan: Plan,
    split: str,
    numbers: Sequence[int],
    workers: Workers[Recording],
) -> Pack:
    """Write one split's pack, or open it."""
    key = {"dataset": "shapestacks_towers", "split": split, **plan.key}
    key |= {"first": plan.job.start, "last": plan.job.stop}

    def write(folder: Path) -> None:
        cameras = np.array(config.cameras)
        total = len(numbers) * len(cameras)
        writer = ResumablePackWriter(folder, total, config.image_size, meta=key)
        about = f"{config.out.name}, {split}"
        with writer, tqdm(total=total, desc=about, unit="img", disable=None) as bar:
            tally = Tally(writer.state.get("agreement"))
            bar.update(writer.written)
            saved = time.monotonic()
            for recording in workers.map(numbers[writer.written // len(cameras) :]):
                factors = _factors(recording, cameras)
                writer.write(recording.images, recording.labels, **factors)
                if recording.outcome is not None:
                    tally.add(recording.scene.tower.violation, recording.outcome.collapsed)
                bar.update(len(cameras))
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    writer.state["agreement"] = tally.counts
                    writer.checkpoint()
                    saved = time.monotonic()
            writer.meta["agreement"] = tally.counts

    pack = open_or_make(config.out / split, write)
    for name, value in {**key, "image_size": [config.image_size] * 2}.items():
        if pack.meta.get(name) != value:
            raise ValueError(
                f"{pack.folder} holds another pack: its {name} is {pack.meta.get(name)!r},"
                f" wanted {value!r}"
            )
    return pack


def tower_state(tower: Tower) -> npt.NDArray[np.float32]:
    """The ground truth of a tower, (6, F); a row per shape with `STATE_COLUMNS`, then zeros."""
    state = np.zeros((HEIGHTS[-1], len(STATE_COLUMNS)), np.float32)
    for row, shape in zip(state, tower.shapes, strict=False):
        yaw = np.radians(shape.yaw)
        row[0:3] = shape.position
        row[3:6] = np.cos(yaw), np.sin(yaw), shape.lying
        row[6:9] = shape.half_sizes
        row[9 + KINDS.index(shape.kind)] = 1
        row[12:15] = np.array(shape.colour) / 255
    return state


def _factors(recording: Recording, cameras: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """The ground truth of a scenario's images."""
    tower, outcome = recording.scene.tower, recording.outcome
    state = tower_state(tower)
    of_scene: dict[str, npt.NDArray[Any]] = {
        "stable": np.array(tower.stable, np.int64),
        "height": np.array(tower.height, np.int64),
        "state": state,
        **{name: state[:, place] for place, name in enumerate("xyz")},
        "colour": state[:, 12:15],
        "shape": state[:, 9:12].argmax(1),
    }
    if outcome is not None:
        of_scene["simulated_stable"] = np.array(not outcome.collapsed, np.int64)
    repeated = {name: np.stack([value] * len(cameras)) for name, value in of_scene.items()}
    return repeated | {"camera": cameras}
