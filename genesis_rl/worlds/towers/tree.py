"""Tower datasets in ShapeStacks' original layout.

A scenario is complete once its summary is in `meta/scenarios`, which is written last. The lists of
the splits are written once all scenarios are complete. Jobs may therefore render parts of a dataset
in parallel, and interrupted jobs resume.
"""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genesis_rl.data.cache import SPLITS
from genesis_rl.data.readers.shapestacks import (
    SIMULATION_FILE,
    SIZE,
    SPLIT_FILES,
    SUBSETS,
    View,
    encode_image,
    encode_map,
    label_map,
    write_split,
)
from genesis_rl.utils.files import (
    json_text,
    new_file,
    new_folder,
    private_folder,
    store_settings,
)
from genesis_rl.utils.log import ProgressBar
from genesis_rl.worlds.towers.plan import Plan, RenderConfig, split_of
from genesis_rl.worlds.towers.record import (
    AgreementCounter,
    RenderedScenario,
    ScenarioRenderer,
)
from genesis_rl.worlds.towers.simulation import STEPS, Agreement
from genesis_rl.worlds.towers.textures import texture_files
from genesis_rl.worlds.towers.world import assets_xml, env_xml, world_xml
from genesis_rl.worlds.workers import Workers

_SETTINGS = Path("meta", "settings.json")
_SCENARIOS = Path("meta", "scenarios")


class TreeReport(NamedTuple):
    """Progress and statistics of a dataset."""

    complete: int
    """number of complete scenarios"""
    scenarios: int
    """number of scenarios of the whole dataset"""
    agreement: dict[str, Agreement]
    """agreement of simulation and construction by violation; empty until the dataset is complete"""


def record_tree(config: RenderConfig) -> TreeReport:
    """Render this job's scenarios into the folder `config.out`; skip complete ones.

    Raises:
        ValueError: if the folder contains another dataset, or a world file cannot be read.
        OSError: if files cannot be written.
        RuntimeError: if OpenGL is not available, or a process dies.
    """
    plan, out = Plan(config), config.out
    _prepare(out, plan)
    complete = _complete(out)
    todo = [number for number in plan.job if str(plan.scenario(number)) not in complete]
    cameras = len(config.cameras)
    bar = ProgressBar(
        total=len(plan.job) * cameras,
        initial=(len(plan.job) - len(todo)) * cameras,
        desc=out.name,
        unit="img",
    )
    with bar, Workers(partial(_TreeWriter, config), config.num_workers) as workers:
        for _ in workers.map(todo):
            bar.update(cameras)
    return _finish(out, plan)


def _prepare(out: Path, plan: Plan) -> None:
    """Write the files common to all scenarios; refuse the folder of another dataset."""
    store_settings(out, _SETTINGS, plan.key)
    textures = out / "mjcf" / "textures"
    if not (out / "mjcf" / "assets.xml").exists():
        for name, data in texture_files(plan.textures).items():
            with new_file(textures / name) as path:
                path.write_bytes(data)
        _write_text(out / "mjcf" / "assets.xml", assets_xml())


def _complete(out: Path) -> set[str]:
    """Return the names of the complete scenarios."""
    return {path.stem for path in (out / _SCENARIOS).glob("env_*.json")}


class _TreeWriter:
    """Writer of rendered scenarios; one per process."""

    def __init__(self, config: RenderConfig) -> None:
        self._out = config.out
        self._cameras = config.cameras
        self._render = ScenarioRenderer(config, SIZE, crop=False)

    def __call__(self, number: int) -> None:
        """Render a scenario and write its files, the summary last."""
        rendered = self._render(number)
        (scenario, tower, appearance, colours), name = (
            rendered.scene,
            str(rendered.scene.scenario),
        )
        stem = scenario.stem
        _write_text(self._out / "mjcf" / f"world_{stem}.xml", world_xml(tower, appearance))
        _write_text(self._out / "mjcf" / f"env_{stem}.xml", env_xml(stem))
        with new_folder(self._out / "iseg" / name) as folder:
            for camera, labels in zip(self._cameras, rendered.labels, strict=True):
                (folder / str(label_map(camera))).write_bytes(encode_map(labels))
        with new_folder(self._out / "recordings" / name) as folder:
            for camera, image in zip(self._cameras, rendered.images, strict=True):
                view = View(
                    "rgb", camera, appearance.wall, appearance.floor, appearance.light, colours
                )
                (folder / str(view)).write_bytes(encode_image(image))
        record = json_text(_summary(number, rendered)) + "\n"
        _write_text(self._out / _SCENARIOS / f"{name}.json", record)


def _summary(number: int, rendered: RenderedScenario) -> dict[str, Any]:
    """Return the JSON data of a scenario for the dataset's lists and statistics."""
    outcome = rendered.outcome
    return {
        "number": number,
        "violation": rendered.scene.tower.violation,
        "mean_bgr": rendered.images.mean((0, 1, 2))[::-1].tolist(),
        "outcome": None if outcome is None else outcome._asdict(),
    }


def _finish(out: Path, plan: Plan) -> TreeReport:
    """Write the splits and the results of the simulations, if all scenarios are complete."""
    names = {str(plan.scenario(number)): number for number in plan.all}
    complete = len(names.keys() & _complete(out))
    if complete < len(names):
        return TreeReport(complete, len(names), {})
    with private_folder(out / "splits", wait=True, argument="out"):
        records = {name: _read_record(out / _SCENARIOS / f"{name}.json") for name in names}
        for subset in SUBSETS:
            families = {"blocks_all": ("blocks",), "ccs_all": ("ccs",)}.get(
                subset, ("blocks", "ccs")
            )
            chosen = [n for n, number in names.items() if plan.scenario(number).family in families]
            if chosen:
                _write_splits(out / "splits" / subset, chosen, records)
        counter = AgreementCounter()
        if plan.key["simulate"]:
            for record in records.values():
                counter.add(record["violation"], record["outcome"]["collapsed"])
            summary = {
                "steps": STEPS,
                "agreement": {kind: a._asdict() for kind, a in counter.agreement().items()},
                "scenarios": {name: record["outcome"] for name, record in records.items()},
            }
            _write_text(out / SIMULATION_FILE, json_text(summary, indent=1) + "\n")
    return TreeReport(complete, len(names), counter.agreement())


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it and render again.") from error
    return record


def _write_splits(folder: Path, names: Iterable[str], records: dict[str, dict[str, Any]]) -> None:
    """Write the lists and the mean colours of one subset."""
    for split in SPLITS:
        path = folder / SPLIT_FILES[split]
        chosen = [name for name in names if split_of(records[name]["number"]) == split]
        write_split(path, chosen)
        if chosen:
            mean = np.mean([records[name]["mean_bgr"] for name in chosen], axis=0)
            with new_file(path.with_name(f"{path.stem}_bgr_mean.npy")) as temporary:
                np.save(temporary, mean)


def _write_text(path: Path, text: str) -> None:
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
