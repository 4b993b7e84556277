"""Sets of towers in ShapeStacks' original layout, for any reader of it.

A scenario is complete when its record lies in `meta/scenarios`, which is written last; the lists
of the splits are written when all scenarios of the set are. So jobs may render parts of a set side
by side, and an interrupted one goes on.
"""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from genesis_rl.data.cache import SPLITS
from genesis_rl.data.shapestacks_files import (
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
from genesis_rl.files import json_text, new_file, new_folder, private_folder
from genesis_rl.towers.plan import Plan, RenderConfig, split_of
from genesis_rl.towers.record import Recorder, Recording, Tally
from genesis_rl.towers.simulation import STEPS, Agreement
from genesis_rl.towers.textures import texture_files
from genesis_rl.towers.workers import Workers
from genesis_rl.towers.world import assets_xml, env_xml, world_xml

_SETTINGS = Path("meta", "settings.json")
_SCENARIOS = Path("meta", "scenarios")


class TreeReport(NamedTuple):
    """What became of a set."""

    complete: int
    """scenarios of the set that are there now"""
    scenarios: int
    """scenarios that the set shall have"""
    agreement: dict[str, Agreement]
    """how often simulation and construction agree, by violation, in a set that is complete"""


def record_tree(config: RenderConfig) -> TreeReport:
    """Render a set, or this job's part of it, into the folder `config.out`.

    Scenarios that are there already are left alone.

    Raises:
        ValueError: if the folder holds another set, or a world to render cannot be read.
        OSError: if files cannot be written.
        RuntimeError: if there is no OpenGL, or a process dies.
    """
    plan, out = Plan(config), config.out
    _prepare(out, plan)
    there = _complete(out)
    todo = [number for number in plan.job if str(plan.scenario(number)) not in there]
    cameras = len(config.cameras)
    bar = tqdm(
        total=len(plan.job) * cameras,
        initial=(len(plan.job) - len(todo)) * cameras,
        desc=out.name,
        unit="img",
        disable=None,
    )
    with bar, Workers(partial(_TreeRecorder, config), config.num_workers) as workers:
        for _ in workers.map(todo):
            bar.update(cameras)
    return _finish(out, plan)


def _prepare(out: Path, plan: Plan) -> None:
    """Write what all scenarios share; refuse to mix sets."""
    settings = out / _SETTINGS
    if settings.exists():
        try:
            found = json.loads(settings.read_bytes())
        except ValueError as error:
            raise ValueError(f"{settings} is damaged ({error}): delete {out}") from error
        for name, value in plan.key.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{out} holds another set: its {name} is {found.get(name)!r}, wanted {value!r}"
                )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not a rendered set: choose another folder")
    else:
        _write_text(settings, json_text(plan.key, indent=2) + "\n")
    textures = out / "mjcf" / "textures"
    if not (out / "mjcf" / "assets.xml").exists():
        for name, data in texture_files(plan.textures).items():
            with new_file(textures / name) as path:
                path.write_bytes(data)
        _write_text(out / "mjcf" / "assets.xml", assets_xml())


def _complete(out: Path) -> set[str]:
    """Names of the scenarios that are there."""
    return {path.stem for path in (out / _SCENARIOS).glob("env_*.json")}


class _TreeRecorder:
    """Renders scenarios into a tree; one per process."""

    def __init__(self, config: RenderConfig) -> None:
        self._out = config.out
        self._cameras = config.cameras
        self._record = Recorder(config, SIZE, crop=False)

    def __call__(self, number: int) -> None:
        """Render a scenario and write its files, its record last."""
        recording = self._record(number)
        (scenario, tower, look, colours), name = recording.scene, str(recording.scene.scenario)
        stem = scenario.stem
        _write_text(self._out / "mjcf" / f"world_{stem}.xml", world_xml(tower, look))
        _write_text(self._out / "mjcf" / f"env_{stem}.xml", env_xml(stem))
        with new_folder(self._out / "iseg" / name) as folder:
            for camera, labels in zip(self._cameras, recording.labels, strict=True):
                (folder / str(label_map(camera))).write_bytes(encode_map(labels))
        with new_folder(self._out / "recordings" / name) as folder:
            for camera, image in zip(self._cameras, recording.images, strict=True):
                view = View("rgb", camera, look.wall, look.floor, look.light, colours)
                (folder / str(view)).write_bytes(encode_image(image))
        record = json_text(_record(number, recording)) + "\n"
        _write_text(self._out / _SCENARIOS / f"{name}.json", record)


def _record(number: int, recording: Recording) -> dict[str, Any]:
    """What the set's lists and summaries need of a scenario, as JSON data."""
    outcome = recording.outcome
    return {
        "number": number,
        "violation": recording.scene.tower.violation,
        "mean_bgr": recording.images.mean((0, 1, 2))[::-1].tolist(),
        "outcome": None if outcome is None else outcome._asdict(),
    }


def _finish(out: Path, plan: Plan) -> TreeReport:
    """Write the splits and the outcomes of the simulations, once all scenarios are there."""
    names = {str(plan.scenario(number)): number for number in plan.all}
    there = len(names.keys() & _complete(out))
    if there < len(names):
        return TreeReport(there, len(names), {})
    with private_folder(out / "splits", wait=True, argument="out"):
        records = {name: _read_record(out / _SCENARIOS / f"{name}.json") for name in names}
        for subset in SUBSETS:
            families = {"blocks_all": ("blocks",), "ccs_all": ("ccs",)}.get(
                subset, ("blocks", "ccs")
            )
            chosen = [n for n, number in names.items() if plan.scenario(number).family in families]
            if chosen:
                _write_splits(out / "splits" / subset, chosen, records)
        tally = Tally()
        if plan.key["simulate"]:
            for record in records.values():
                tally.add(record["violation"], record["outcome"]["collapsed"])
            summary = {
                "steps": STEPS,
                "agreement": {kind: a._asdict() for kind, a in tally.agreement().items()},
                "scenarios": {name: record["outcome"] for name, record in records.items()},
            }
            _write_text(out / SIMULATION_FILE, json_text(summary, indent=1) + "\n")
    return TreeReport(there, len(names), tally.agreement())


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and render again") from error
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
