from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genesis_rl.worlds.towers import (
    Pile,
    Pose,
    Shape,
    Tower,
    count_agreement,
    sample_shape,
    sample_tower,
    simulate,
)


def violating_towers(violation: str, rule: str, count: int) -> list[Tower]:
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {violation.split()[0]: 1}
    towers = (sample_tower(rng, height=3, rule=rule, **options) for _ in range(100 * count))
    return [tower for tower in towers if tower.violation == violation][:count]


def test_towers_without_violation_are_stable() -> None:
    rng = np.random.default_rng(0)
    outcomes = [simulate(sample_tower(rng, family="blocks", height=3)) for _ in range(5)]
    assert not any(outcome.collapsed for outcome in outcomes)
    assert all(outcome.step == 1680 and outcome.top_speed < 0.1 for outcome in outcomes)


@pytest.mark.parametrize(
    ("violation", "rule", "min_share"),
    [
        ("vcom cuboid", "original", 1.0),
        ("vcom standing cylinder", "corrected", 1.0),
        ("vpsf lying cylinder", "original", 0.5),
    ],
)
def test_towers_with_a_violation_collapse(violation: str, rule: str, min_share: float) -> None:
    counts = count_agreement(violating_towers(violation, rule, 8))
    assert set(counts) == {violation}
    assert counts[violation].towers == 8
    assert counts[violation].agreeing >= 8 * min_share


def test_the_original_rule_leaves_some_standing_cylinders_stable() -> None:
    (count,) = count_agreement(violating_towers("vcom standing cylinder", "original", 12)).values()
    assert count.agreeing <= 9


def test_simulation_is_deterministic() -> None:
    tower = violating_towers("vcom cuboid", "original", 1)[0]
    assert simulate(tower) == simulate(tower)
    assert simulate(tower).step < 1000
    with pytest.raises(ValueError, match=r"^steps "):
        simulate(tower, steps=50)


BASE = Shape("cuboid", (0.5, 0.5, 0.25), (1.0, -1.0, 0.0), yaw=20)


@pytest.mark.smoke
@pytest.mark.parametrize(("offset", "stable"), [(0.4, True), (0.6, False), (1.5, False)])
def test_a_pile_is_stable_if_the_block_is_supported(offset: float, stable: bool) -> None:
    pile = Pile(BASE)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    block = Shape("cuboid", (0.4, 0.3, 0.3), (1 + c * offset, -1 + s * offset, 9.0), yaw=20)
    pile.put(block)
    assert pile.shapes[1].position[2] == pytest.approx(0.5 + 0.3, abs=0.002)
    assert pile.settle(500) is stable
    assert pile.stands is stable
    assert pile.poses[0].position == pytest.approx([1, -1, 0.25], abs=0.02)
    if stable:
        assert pile.poses[1].position == pytest.approx([1 + c * 0.4, -1 + s * 0.4, 0.8], abs=0.02)
        assert pile.top == pytest.approx(1.1, abs=0.02)


def test_a_collapse_caused_by_the_next_block_is_detected() -> None:
    pile = Pile(BASE)
    pile.put(replace(BASE, position=(1.3, -1.0, 0.0)))
    assert pile.settle(300)
    pile.put(replace(BASE, position=(1.75, -1.0, 0.0)))  # the load's centre of mass is off the base
    assert not pile.settle(500)


@pytest.mark.smoke
def test_the_pose_of_a_shape_has_its_rotation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        shape = sample_shape(rng, "ccs", top=True)
        np.testing.assert_allclose(Pose.of(shape).rotation, shape.rotation, atol=1e-12)


def test_without_opengl_simulation_runs_and_rendering_names_missing_packages(
    run_without_opengl: Callable[[str], list[str]],
) -> None:
    code = (
        "import numpy as np; from genesis_rl.worlds.towers import *\n"
        "print(simulate(sample_tower(np.random.default_rng(0), height=2)).collapsed)\n"
        "try: TowerRenderer(16)\n"
        "except RuntimeError as error: print(error)\n"
    )
    collapsed, message = run_without_opengl(code)
    assert collapsed == "False"
    assert "no OpenGL context could be created (MUJOCO_GL=egl" in message
    assert "libegl1 libgl1-mesa-dri" in message
