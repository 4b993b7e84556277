"""Simulated stability of towers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from genesis_rl.worlds.towers.gl import load_mujoco
from genesis_rl.worlds.towers.rules import Shape, Tower
from genesis_rl.worlds.towers.world import TEXTURE_NUMBERS, env_xml, world_xml

TIME_STEP = 0.003  # seconds
BURN_IN = 50  # initial steps without check, until the contacts have settled
SPEED_LIMIT = 0.2  # of any component of the top shape's velocity, in metres per second
STEPS = 1680  # five seconds at the recordings' eight frames per second


class SimulationResult(NamedTuple):
    """Result of a simulation."""

    collapsed: bool
    step: int
    """first step at which the top shape exceeded the speed limit, or the number of steps"""
    top_speed: float
    """largest component of the top shape's velocity after the burn-in, in metres per second"""


def simulate(tower: Tower, *, steps: int = STEPS) -> SimulationResult:
    """Simulate a tower until it collapses.

    As in the original, a tower has collapsed if, after a burn-in of 50 steps, any component of the
    top shape's velocity exceeds 0.2 m/s. The simulation is deterministic.

    Args:
        tower: the tower, at rest.
        steps: number of steps of 3 ms; 1680 as in the original.

    Raises:
        ValueError: if there are no steps after the burn-in.
    """
    if steps <= BURN_IN:
        raise ValueError(f"steps must be more than the burn-in of {BURN_IN}, got {steps!r}.")
    mujoco = load_mujoco()
    model = physics_model(tower)
    data: Any = mujoco.MjData(model)
    mujoco.mj_step(model, data, BURN_IN)
    fastest = 0.0
    for step in range(BURN_IN, steps):
        mujoco.mj_step(model, data)
        speed = float(np.abs(data.sensordata).max())
        fastest = max(fastest, speed)
        if speed > SPEED_LIMIT:
            return SimulationResult(collapsed=True, step=step, top_speed=fastest)
    return SimulationResult(collapsed=False, step=steps, top_speed=fastest)


class Agreement(NamedTuple):
    """Number of towers whose stability is the same by simulation and by construction, of all."""

    agreeing: int
    towers: int


def count_agreement(towers: Iterable[Tower], *, steps: int = STEPS) -> dict[str, Agreement]:
    """Count towers whose stability is the same by simulation and by construction.

    Args:
        towers: the towers.
        steps: see `simulate`.

    Returns:
        The counts by `Tower.violation`: "none", "vcom cuboid", "vpsf sphere" and so on.
    """
    counts: defaultdict[str, list[bool]] = defaultdict(list)
    for tower in towers:
        collapsed = simulate(tower, steps=steps).collapsed
        counts[tower.violation].append(collapsed != tower.stable)
    return {kind: Agreement(sum(same), len(same)) for kind, same in sorted(counts.items())}


def physics_model(tower: Tower | Sequence[Shape]) -> Any:
    """Compile a scene without textures into a `mujoco.MjModel`.

    The original sets its contact parameters by an override. In MuJoCo 1.50 this did not affect the
    shapes' friction; now it does. The parameters are therefore set on the shapes.
    """
    mujoco = load_mujoco()
    files = {"assets.xml": _PLAIN.encode(), "world_tower.xml": world_xml(tower).encode()}
    model: Any = mujoco.MjModel.from_xml_string(env_xml("tower"), files)
    model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_OVERRIDE)
    model.geom_solref[:] = model.opt.o_solref
    model.geom_solimp[:] = model.opt.o_solimp
    model.geom_margin[:] = model.opt.o_margin
    return model


_PLAIN = (
    "<assets><asset>"
    + "".join(
        f'<material name="mat_{place}_{number:03d}"/>'
        for place in ("floor", "wall")
        for number in TEXTURE_NUMBERS
    )
    + "</asset></assets>"
)
