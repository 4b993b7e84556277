"""Scenarios of a rendered dataset: balance, independence of its size."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.data.readers.shapestacks import Scenario
from genesis_rl.worlds.towers import env_xml, world_xml
from genesis_rl.worlds.towers.plan import Plan, RenderConfig, split_of


def plan(**options: Any) -> Plan:
    return Plan(RenderConfig(**{"out": Path("unused"), **options}))


def test_a_dataset_is_balanced_and_names_are_unique() -> None:
    scenarios = [plan(scenarios=2000).scenario(number) for number in range(2000)]
    assert len({str(scenario) for scenario in scenarios}) == 2000
    assert Counter(s.stable for s in scenarios) == {True: 1000, False: 1000}
    assert set(Counter((s.family, s.stable, s.height) for s in scenarios).values()) == {100}
    ccs = [s for s in scenarios if s.family == "ccs" and not s.stable]
    assert Counter(s.vpsf > 0 for s in ccs) == {True: 250, False: 250}
    highest = Counter((s.vcom, s.vpsf) for s in ccs if s.height == 6)
    assert highest == {**{(i, 0): 10 for i in range(1, 6)}, **{(0, i): 10 for i in range(1, 6)}}
    assert not any(s.vpsf for s in scenarios if s.family == "blocks")


def test_variations_count_up_from_one() -> None:
    options = {"family": "ccs", "heights": (3,), "scenarios": 16}
    names = [plan(**options).scenario(number).stem for number in range(16)]
    assert names[:2] == ["ccs-easy-h=3-vcom=0-vpsf=0-v=1", "ccs-easy-h=3-vcom=1-vpsf=0-v=1"]
    assert names[14:] == ["ccs-easy-h=3-vcom=0-vpsf=0-v=8", "ccs-easy-h=3-vcom=0-vpsf=2-v=2"]


def test_a_scenario_does_not_depend_on_the_size_of_the_dataset() -> None:
    small, large = plan(scenarios=20), plan(scenarios=5000, first=7, count=5, workers=3)
    assert list(large.job) == [7, 8, 9, 10, 11]
    assert small.key == large.key
    for number in (7, 11):
        assert small.scene(number) == large.scene(number)
    assert plan(seed=1).scene(7) != small.scene(7)


def test_splits_have_their_shares_everywhere() -> None:
    splits = [split_of(number) for number in range(4000)]
    shares = {split: count / 4000 for split, count in Counter(splits).items()}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.15, "test": 0.15}, abs=0.002)
    assert all(len(set(splits[first : first + 8])) == 3 for first in range(3990))
    for offset in range(20):  # of the families, heights and kinds of towers
        part = Counter(splits[offset::20])
        assert part["train"] == pytest.approx(140, abs=3)


def test_scenes_obey_their_names() -> None:
    config = plan(scenarios=40)
    for number in config.all:
        scene = config.scene(number)
        assert (scene.tower.family, scene.tower.height) == (
            scene.scenario.family,
            scene.scenario.height,
        )
        assert (scene.tower.vcom, scene.tower.vpsf) == (scene.scenario.vcom, scene.scenario.vpsf)


def test_worlds_are_read_from_files(tmp_path: Path) -> None:
    made = plan(scenarios=6)
    for number in made.all:
        scene = made.scene(number)
        stem = scene.scenario.stem
        (tmp_path / f"env_{stem}.xml").write_text(env_xml(stem))
        (tmp_path / f"world_{stem}.xml").write_text(world_xml(scene.tower, scene.appearance))
    (tmp_path / "assets.xml").touch()
    read = plan(mjcf=tmp_path)
    assert len(read.all) == 6
    assert read.textures is None
    towers = {str(made.scenario(number)): made.scene(number).tower for number in made.all}
    for number in read.all:
        scene = read.scene(number)
        wanted = towers[str(scene.scenario)]
        assert scene.colours == "original"
        assert (scene.tower.vcom, scene.tower.vpsf) == (wanted.vcom, wanted.vpsf)
        for shape, other in zip(scene.tower.shapes, wanted.shapes, strict=True):
            assert shape.position == pytest.approx(other.position)
            assert (shape.kind, shape.colour) == (other.kind, other.colour)
    (tmp_path / "textures").mkdir()
    assert plan(mjcf=tmp_path).textures == tmp_path / "textures"
    with pytest.raises(ValueError, match=r"^scenarios "):
        plan(mjcf=tmp_path, scenarios=7)
    (tmp_path / "env_other.xml").touch()
    with pytest.raises(ValueError, match=r"env_other\.xml"):
        plan(mjcf=tmp_path)


def test_a_damaged_world_raise(tmp_path: Path) -> None:
    name = str(Scenario("ccs", 2))
    (tmp_path / f"{name}.xml").write_text("<mujoco>")
    with pytest.raises(ValueError, match=f"{name}.xml "):
        plan(mjcf=tmp_path).scene(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "cubes"}, r"^family "),
        ({"rule": "new"}, r"^rule "),
        ({"heights": (2, 7)}, r"^heights "),
        ({"heights": ()}, r"^heights "),
        ({"cameras": (1, 1)}, r"^cameras "),
        ({"cameras": (0,)}, r"^cameras "),
        ({"scenarios": 0}, r"^scenarios "),
        ({"seed": -1}, r"^seed "),
        ({"workers": 0}, r"^workers "),
        ({"scenarios": 5, "first": 5}, r"^first "),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**options)


def test_a_folder_without_worlds_raise(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^mjcf "):
        plan(mjcf=tmp_path)
