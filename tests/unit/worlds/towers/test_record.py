"""Rendered datasets: writing, reading, resuming, independence of the number of processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.readers import Record
from genesis_rl.data.readers.shapestacks import ShapeStacks
from genesis_rl.worlds.offscreen import load_mujoco
from genesis_rl.worlds.towers import TowerRenderer, read_world, record, simulate, tree
from genesis_rl.worlds.towers.plan import Plan, RenderConfig, split_of
from genesis_rl.worlds.towers.record import STATE_COLUMNS, record_packs
from genesis_rl.worlds.towers.tree import record_tree

SCENARIOS = 8
CAMERAS = (13, 2)
BASE = RenderConfig(Path("unset"), scenarios=SCENARIOS, cameras=CAMERAS, seed=3, workers=1)
Image8 = npt.NDArray[np.uint8]


pytestmark = pytest.mark.usefixtures("opengl")


@pytest.fixture(scope="module")
def whole(opengl: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree written without interruption."""
    out = tmp_path_factory.mktemp("rendered") / "tree"
    report = record_tree(replace(BASE, out=out))
    assert (report.complete, report.scenarios) == (SCENARIOS, SCENARIOS)
    return out


def assert_same_trees(tree: Path, other: Path) -> None:
    """Check that both folders contain the same files."""
    found, wanted = (
        {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tree, other)
    )
    names = found.keys() | wanted.keys()
    assert not [name for name in sorted(names) if found.get(name) != wanted.get(name)]


def read_by_the_format(
    root: Path, mode: str, subset: str = "default"
) -> Iterable[tuple[str, int, Image8, Image8]]:
    """A reader written from shapestacks_format.md alone: scenario, camera, image, labels."""
    names = (root / "splits" / subset / f"{mode}.txt").read_text().split("\n")[:-1]
    for name in names:
        for path in (root / "recordings" / name).iterdir():
            if path.name.startswith("rgb-") and path.name.endswith("-mono-0.png"):
                camera = int(path.name.split("-")[5][4:])
                map_name = f"iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map"
                with Image.open(path) as file:
                    assert (file.format, file.mode, file.size) == ("PNG", "RGB", (224, 224))
                    image = np.asarray(file)
                with Image.open(root / "iseg" / name / map_name) as file:
                    assert (file.format, file.mode) == ("PNG", "RGBA")
                    labels = np.asarray(file)[..., 0] // 32
                yield name, camera, image, labels


def test_any_reader_finds_what_was_rendered(whole: Path) -> None:
    plan = Plan(BASE)
    numbers = {str(plan.scenario(number)): number for number in plan.all}
    seen = []
    with TowerRenderer(224, crop=False) as renderer:
        for mode, split in (("train", "train"), ("eval", "validation"), ("test", "test")):
            for name, camera, image, labels in read_by_the_format(whole, mode):
                assert split_of(numbers[name]) == split
                scene = plan.scene(numbers[name])
                renderer.load(scene.tower, scene.appearance)
                wanted = renderer.render(camera)
                assert (image == wanted[0]).all()
                assert (labels == wanted[1]).all()
                assert labels.max() == scene.tower.height
                seen.append((name, camera))
    assert sorted(seen) == sorted((name, camera) for name in numbers for camera in CAMERAS)


def test_our_reader_reads_the_same(whole: Path, tmp_path: Path) -> None:
    for mode, split in (("train", "train"), ("eval", "validation"), ("test", "test")):
        for subset in ("default", "blocks_all", "ccs_all"):
            if not (whole / "splits" / subset / f"{mode}.txt").read_text():
                continue
            wanted = sorted(read_by_the_format(whole, mode, subset), key=lambda view: view[:2])
            source = ShapeStacks(whole, split, subset, image_size=196)
            found = [record for record in source.records() if isinstance(record, Record)]
            found.sort(key=lambda record: (Path(record.name).parent.name, record.factors["camera"]))
            assert len(found) == len(wanted)
            for record_, (name, camera, image, labels) in zip(found, wanted, strict=True):
                assert Path(record_.name).parent.name == name
                assert record_.factors["camera"] == camera
                assert (record_.image == image[14:210, 14:210]).all()
                assert record_.mask is not None
                assert (record_.mask == labels[14:210, 14:210]).all()
    pack = open_dataset("shapestacks", root=tmp_path, source=whole)
    names = [name for name, *_ in read_by_the_format(whole, "train")]
    assert len(pack) == len(names)
    assert pack.factors["stable"].sum() == sum("vcom=0-vpsf=0" in name for name in names)
    simulated = json.loads((whole / "meta" / "simulation.json").read_text())["scenarios"]
    standing = sum(not simulated[name]["collapsed"] for name in names)
    assert pack.factors["simulated_stable"].sum() == standing


def test_labels_by_simulation_lie_apart(whole: Path) -> None:
    plan, summary = Plan(BASE), json.loads((whole / "meta" / "simulation.json").read_text())
    agreeing = 0
    for number in plan.all:
        tower = plan.scene(number).tower
        outcome = simulate(tower)
        assert summary["scenarios"][str(plan.scenario(number))] == outcome._asdict()
        agreeing += outcome.collapsed != tower.stable
    assert sum(kind["agreeing"] for kind in summary["agreement"].values()) == agreeing
    assert sum(kind["towers"] for kind in summary["agreement"].values()) == SCENARIOS


def test_worlds_load_in_mujoco(whole: Path) -> None:
    plan = Plan(BASE)
    assert len(list((whole / "mjcf").glob("env_*.xml"))) == SCENARIOS
    for number in plan.all:
        scene = plan.scene(number)
        path = whole / "mjcf" / f"{scene.scenario}.xml"
        model: Any = load_mujoco().MjModel.from_xml_path(str(path))
        assert model.nbody >= 1 + scene.tower.height
        read, appearance = read_world(path)
        assert (read.height, appearance) == (scene.tower.height, scene.appearance)


def test_mean_colours_are_those_of_the_images(whole: Path) -> None:
    for mode in ("train", "eval", "test"):
        images = [image for _, _, image, _ in read_by_the_format(whole, mode)]
        mean = np.load(whole / "splits" / "default" / f"{mode}_bgr_mean.npy", allow_pickle=False)
        assert mean == pytest.approx(np.mean(images, axis=(0, 1, 2))[::-1])


def test_families_have_lists_of_their_own(whole: Path) -> None:
    for mode in ("train", "eval", "test"):
        lists = {
            subset: (whole / "splits" / subset / f"{mode}.txt").read_text().split()
            for subset in ("default", "blocks_all", "ccs_all")
        }
        assert all("env_blocks" in name for name in lists["blocks_all"])
        assert all("env_ccs" in name for name in lists["ccs_all"])
        assert set(lists["default"]) == {*lists["blocks_all"], *lists["ccs_all"]}


class Kill:
    """A function that is interrupted at its n-th call."""

    def __init__(self, function: Any, calls: int) -> None:
        self.function, self.left = function, calls

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.function(*args, **options)


@pytest.mark.parametrize(
    ("step", "calls"), [("encode_map", 1), ("encode_image", 6), ("_summary", 3)]
)
def test_an_interrupted_tree_resumes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, calls: int
) -> None:
    config = replace(BASE, out=tmp_path / "tree")
    with monkeypatch.context() as patch:
        patch.setattr(tree, step, Kill(getattr(tree, step), calls))
        with pytest.raises(KeyboardInterrupt):
            record_tree(config)
    assert not (config.out / "splits").exists()
    # What a kill leaves that an interrupt does not: folders that were not renamed.
    rest = config.out / "recordings" / f".{Plan(config).scenario(7)}.genesis_rl"
    (rest / "new").mkdir(parents=True)
    (rest / "new" / "rgb-half.png").touch()
    (rest / "owner.json").write_text('{"made_by": "genesis_rl"}')
    record_tree(config)
    assert_same_trees(config.out, whole)


def test_jobs_of_an_array_make_the_same_tree(whole: Path, tmp_path: Path) -> None:
    config = replace(BASE, out=tmp_path / "tree")
    report = record_tree(replace(config, first=5))
    assert (report.complete, report.agreement) == (3, {})
    assert not (config.out / "splits").exists()
    assert record_tree(replace(config, first=0, count=5)).complete == SCENARIOS
    assert_same_trees(config.out, whole)


def test_a_set_can_grow(whole: Path, tmp_path: Path) -> None:
    config = replace(BASE, out=tmp_path / "tree")
    record_tree(replace(config, scenarios=3))
    lists = config.out / "splits" / "default"
    assert (
        sum(len((lists / f"{m}.txt").read_text().split()) for m in ("train", "eval", "test")) == 3
    )
    record_tree(config)
    assert_same_trees(config.out, whole)


def test_a_complete_tree_is_kept(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "ScenarioRenderer", None)
    assert record_tree(replace(BASE, out=whole)).complete == SCENARIOS


def test_datasets_are_not_mixed(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^seed "):
        record_tree(replace(BASE, out=whole, seed=4))
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match=r"^out "):
        record_tree(replace(BASE, out=tmp_path))


def test_written_worlds_can_be_rendered_again(whole: Path, tmp_path: Path) -> None:
    config = replace(
        BASE, out=tmp_path / "tree", mjcf=whole / "mjcf", scenarios=None, simulate=False, count=2
    )
    report = record_tree(config)
    assert (report.complete, report.scenarios) == (2, SCENARIOS)
    maps = {path.name: path for path in (config.out / "iseg").rglob("*.map")}
    assert len(maps) == len(CAMERAS)
    for path in (config.out / "iseg").rglob("*.map"):
        first = np.asarray(Image.open(path))
        again = np.asarray(Image.open(whole / "iseg" / path.parent.name / path.name))
        assert (first != again).any(-1).mean() < 1e-3
    (image, *_) = (config.out / "recordings").rglob("rgb-*.png")
    assert "c=original" in image.name
    assert not (config.out / "meta" / "simulation.json").exists()


@pytest.fixture(scope="module")
def packs(opengl: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """Packs written without interruption."""
    out = tmp_path_factory.mktemp("packs") / "towers"
    return record_packs(replace(BASE, out=out, pack=True, image_size=32))[0]


def assert_same(packs: dict[str, Pack], others: dict[str, Pack]) -> None:
    assert packs.keys() == others.keys()
    for split, pack in packs.items():
        other = others[split]
        assert pack.meta == other.meta
        for file in ("images.npy", "masks.npy"):
            assert (pack.folder / file).read_bytes() == (other.folder / file).read_bytes()
        for name, values in pack.factors.items():
            assert (values == other.factors[name]).all()


def test_packs_contain_the_rendered_images(packs: dict[str, Pack]) -> None:
    plan = Plan(BASE)
    assert set(packs) == {"train", "validation", "test"}
    with TowerRenderer(32) as renderer:
        for split, pack in packs.items():
            assert pack.masks is not None
            rows = iter(range(len(pack)))
            factors = pack.factors
            for number in (n for n in plan.all if split_of(n) == split):
                scene = plan.scene(number)
                renderer.load(scene.tower, scene.appearance)
                standing = not simulate(scene.tower).collapsed
                for camera in CAMERAS:
                    row = next(rows)
                    image, labels = renderer.render(camera)
                    assert (pack.images[row] == image).all()
                    assert (pack.masks[row] == labels).all()
                    names = ("stable", "simulated_stable", "height", "camera")
                    assert [factors[name][row] for name in names] == [
                        scene.tower.stable,
                        standing,
                        scene.tower.height,
                        camera,
                    ]
                    state = factors["state"][row]
                    assert state.shape == (6, len(STATE_COLUMNS))
                    for line, shape in zip(state, scene.tower.shapes, strict=False):
                        assert line[:3] == pytest.approx(shape.position)
                        assert STATE_COLUMNS[9 + line[9:12].argmax()] == shape.kind
                        assert line[12:] * 255 == pytest.approx(shape.colour)
                    assert not state[scene.tower.height :].any()
            assert next(rows, None) is None


def test_training_opens_the_packs(packs: dict[str, Pack]) -> None:
    folder = packs["train"].folder.parent
    assert len(open_dataset(folder, "train")) == len(packs["train"])
    assert len(open_dataset(folder, "test")) == len(packs["test"])


def test_an_interrupted_pack_resumes(
    packs: dict[str, Pack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(BASE, out=tmp_path / "towers", pack=True, image_size=32)
    monkeypatch.setattr("genesis_rl.data.pack._CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(record, "simulate", Kill(simulate, 4))
        with pytest.raises(KeyboardInterrupt):
            record_packs(config)
    assert not (config.out / "train").exists()
    count = Kill(simulate, 1000)
    monkeypatch.setattr(record, "simulate", count)
    assert_same(record_packs(config)[0], packs)
    assert 1000 - count.left == SCENARIOS - 3  # what had been done is not done again
    monkeypatch.setattr(record, "ScenarioRenderer", Kill(None, 1))
    assert_same(record_packs(config)[0], packs)


@pytest.mark.slow
def test_processes_do_not_change_a_pack(packs: dict[str, Pack], tmp_path: Path) -> None:
    config = replace(BASE, out=tmp_path / "towers", pack=True, image_size=32, workers=2)
    written, agreement = record_packs(config)
    assert_same(written, packs)
    assert sum(kind.towers for kind in agreement.values()) == SCENARIOS


def test_other_packs_are_refused(packs: dict[str, Pack]) -> None:
    folder = packs["train"].folder.parent
    with pytest.raises(ValueError, match=r"^rule "):
        record_packs(replace(BASE, out=folder, pack=True, image_size=32, rule="corrected"))
    with pytest.raises(ValueError, match=r"^image_size "):
        record_packs(replace(BASE, out=folder, pack=True, image_size=64))


@pytest.mark.skipif((os.cpu_count() or 1) == 1, reason="rendering in one process")
@pytest.mark.parametrize(
    ("name", "options"),
    [("towers", {"scenarios": 4, "image_size": 16}), ("rooms", {"num_images": 4})],
)
def test_a_script_without_a_guard_does_not_wait_for_itself(
    tmp_path: Path, name: str, options: dict[str, int]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from genesis_rl.data import open_dataset\n"
        f"open_dataset({name!r}, 'train', root={str(tmp_path / 'data')!r}, **{options!r})\n",
        encoding="utf-8",
    )
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 1
    assert "must do so under `if __name__ == '__main__':`" in result.stderr
    assert "BrokenProcessPool" in result.stderr


def test_towers_are_a_named_dataset(tmp_path: Path) -> None:
    options: dict[str, Any] = {"scenarios": 8, "image_size": 32, "cameras": [2], "simulate": False}
    train = open_dataset("towers", "train", root=tmp_path, **options, colours=2)
    test = open_dataset("towers", "test", root=tmp_path, **options, colours=2)
    assert len(train) + len(test) < 8
    for colour, height in zip(train.factors["colour"], train.factors["height"], strict=True):
        assert len(np.unique(colour[:height], axis=0)) <= 2
    unique = open_dataset("towers", "train", root=tmp_path, **options)
    assert unique.folder != train.folder
    for colour, height in zip(unique.factors["colour"], unique.factors["height"], strict=True):
        assert len(np.unique(colour[:height], axis=0)) == height
    assert np.array_equal(unique.factors["height"], train.factors["height"])
    assert len(open_dataset("towers", "train", root=tmp_path, **options, num_images=1)) == len(
        unique
    )
    with pytest.raises(ValueError, match=r"^num_images "):
        open_dataset("towers", root=tmp_path, **options, num_images=0)
    with pytest.raises(ValueError, match=r"^colours "):
        open_dataset("towers", root=tmp_path, **options, colours=7)
    with pytest.raises(TypeError, match="bricks"):
        open_dataset("towers", root=tmp_path, bricks=3)
