from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.worlds.towers import COLOURS, Shape, Tower, sample_tower


def load_position(tower: Tower, number: int) -> npt.NDArray[np.float64]:
    """Centre of mass (x, y) of all above shape `number`, in that shape's own axes."""
    shape, above = tower.shapes[number - 1], tower.shapes[number:]
    volumes = np.array([s.volume for s in above])
    centre = (volumes[:, None] * [s.position[:2] for s in above]).sum(0) / volumes.sum()
    angle = np.radians(-shape.yaw)
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(np.array([[c, -s], [s, c]]) @ (centre - shape.position[:2]))


def towers(n: int = 100, seed: int = 0, **options: Any) -> list[Tower]:
    rng = np.random.default_rng(seed)
    return [sample_tower(rng, **{"height": 2 + i % 5, **options}) for i in range(n)]


def test_shapes_stand_on_each_other_and_on_the_ground() -> None:
    for tower in towers():
        ground = 0.0
        for shape in tower.shapes:
            assert shape.position[2] - shape.half_height == pytest.approx(ground, abs=1e-12)
            ground = shape.position[2] + shape.half_height


def test_stable_towers_carry_their_loads() -> None:
    largest = Counter[str]()
    for tower in towers(400):
        for number, shape in enumerate(tower.shapes[:-1], 1):
            assert not shape.lying
            x, y = np.abs(load_position(tower, number))
            if shape.kind == "cuboid":
                share = max(x / shape.size[0], y / shape.size[1])
            else:
                share = max(x, y) / shape.size[0]
            largest[shape.kind] = max(largest[shape.kind], share)
    assert 0.45 < largest["cuboid"] <= 0.5  # a quarter of the edge
    assert 0.22 < largest["cylinder"] <= 0.25  # the radius in place of the diameter


@pytest.mark.parametrize("family", ["blocks", "ccs"])
def test_the_violating_load_is_beyond_the_edge(family: str) -> None:
    axes = Counter[tuple[bool, bool]]()
    for tower in towers(300, family=family, height=5, vcom=2):
        shape = tower.shapes[1]
        if shape.kind == "cuboid":
            beyond = np.abs(load_position(tower, 2)) - shape.size[:2]
            assert beyond.max() == pytest.approx(0.05)
            axes[bool(beyond[0] > 0), bool(beyond[1] > 0)] += 1
        for number in (1, 3, 4):
            x, y = np.abs(load_position(tower, number))
            assert max(x, y) < tower.shapes[number - 1].size[0]
    assert len(axes) == 3  # x, y or both
    assert min(axes.values()) > sum(axes.values()) / 5


def test_the_original_rule_keeps_the_load_above_a_standing_cylinder() -> None:
    for rule, low, high in (("original", 0.0, 1.0), ("corrected", 1.0, 1.3)):
        seen = 0
        for tower in towers(300, height=4, vcom=1, rule=rule):
            shape = tower.shapes[0]
            if shape.kind == "cylinder":
                distance = float(np.linalg.norm(load_position(tower, 1)))
                assert low < distance / shape.size[0] < high
                if rule == "corrected":
                    assert distance == pytest.approx(shape.size[0] + 0.05)
                seen += 1
        assert seen > 100


def test_planar_surface_violations_balance_on_a_curved_shape() -> None:
    kinds = Counter[str]()
    for tower in towers(100, height=3, vpsf=2):
        shape = tower.shapes[1]
        kinds[tower.violation] += 1
        x, y = np.abs(load_position(tower, 2))
        assert x == pytest.approx(0, abs=1e-12)
        assert y <= (shape.size[-1] / 2 if shape.lying else 1e-12)
    assert set(kinds) == {"vpsf sphere", "vpsf lying cylinder"}
    assert min(kinds.values()) > 30


def test_sizes_colours_and_places_are_the_originals() -> None:
    made = towers(200)
    sizes = np.array([size for tower in made for shape in tower.shapes for size in shape.size])
    assert 0.25 <= sizes.min() < 0.26
    assert 0.49 < sizes.max() <= 0.5
    tops = Counter((t.shapes[-1].kind, t.shapes[-1].lying) for t in made)
    assert len(tops) == 4
    assert min(tops.values()) > 30
    centres = []
    for tower in made:
        colours = [shape.colour for shape in tower.shapes]
        assert len(set(colours)) == len(colours)
        assert set(colours) <= set(COLOURS.values())
        centres.append(tower.shapes[-1].position[:2])
    assert 1.8 < np.abs(centres).max() <= 2
    assert {s.kind for t in towers(20, family="blocks") for s in t.shapes} == {"cuboid"}


def test_seeds_decide_towers() -> None:
    assert towers(10, seed=1) == towers(10, seed=1)
    assert towers(10, seed=1) != towers(10, seed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 7}, r"^height "),
        ({"height": 3, "family": "css"}, r"^family "),
        ({"height": 3, "vcom": 3}, r"^vcom "),
        ({"height": 3, "vpsf": -1}, r"^vpsf "),
        ({"height": 3, "vcom": 1, "vpsf": 1}, r"^vcom or vpsf "),
        ({"height": 3, "vpsf": 1, "family": "blocks"}, r"^vpsf "),
        ({"height": 3, "rule": "new"}, r"^rule "),
    ],
)
def test_impossible_towers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_tower(np.random.default_rng(0), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cone"}, r"^kind "),
        ({"size": (0.5,)}, r"^size "),
        ({"size": (0.5, 0.5, 0.0)}, r"^size "),
        ({"position": (0.0, 0.0, float("nan"))}, r"^position and yaw "),
        ({"lying": True}, r"^lying "),
        ({"colour": (0, 0, 256)}, r"^colour "),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    shape = Shape("cuboid", (0.5, 0.4, 0.3), (0.0, 0.0, 0.3))
    with pytest.raises(ValueError, match=message):
        replace(shape, **change)


def test_rotations() -> None:
    lying = Shape("cylinder", (0.3, 0.5), (0.0, 0.0, 0.3), yaw=30, lying=True)
    np.testing.assert_allclose(lying.rotation @ lying.rotation.T, np.eye(3), atol=1e-12)
    axis = lying.rotation[:, 2]  # the y axis, turned by the yaw
    np.testing.assert_allclose(np.abs(axis), [0.5, np.sqrt(0.75), 0], atol=1e-12)
    assert lying.half_height == 0.3
    assert lying.half_sizes == (0.3, 0.3, 0.5)
