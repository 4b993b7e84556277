"""Let physics say whether a tower stands."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from genesis_rl.towers.gl import load_mujoco
from genesis_rl.towers.rules import Shape, Tower
from genesis_rl.towers.world import TEXTURE_NUMBERS, env_xml, world_xml

TIME_STEP = 0.003  # seconds
BURN_IN = 50  # steps in which the contacts settle
SPEED_LIMIT = 0.2  # of any component of the top shape's velocity, in metres per second
STEPS = 1680  # five seconds at the recordings' eight frames per second


class Outcome(NamedTuple):
    """What became of a tower."""

    collapsed: bool
    step: int
    """the step at which the top shape was first too fast, or the number of steps simulated"""
    top_speed: float
    """largest component of the top shape's velocity after the burn-in, in metres per second"""


def simulate(tower: Tower, *, steps: int = STEPS) -> Outcome:
    """Simulate a tower until its top shape moves too fast.

    The rule is the original recorder's: after a burn-in of 50 steps, the tower has collapsed as
    soon as any component of the top shape's velocity exceeds 0.2 m/s.

    Args:
        tower: the tower, at rest.
        steps: steps of 3 ms; 1680 as in the original.

    Returns:
        The outcome; the same tower always gives the same one.

    Raises:
        ValueError: if there are no steps after the burn-in.
    """
    if steps <= BURN_IN:
        raise ValueError(f"steps must be more than the burn-in of {BURN_IN}, got {steps!r}")
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
            return Outcome(collapsed=True, step=step, top_speed=fastest)
    return Outcome(collapsed=False, step=steps, top_speed=fastest)


class Agreement(NamedTuple):
    """How often simulation and construction agree on whether a tower stands."""

    agreeing: int
    towers: int


def count_agreement(towers: Iterable[Tower], *, steps: int = STEPS) -> dict[str, Agreement]:
    """Simulate towers and compare with the labels of their construction.

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
    """Compile a scene without textures.

    The original sets its contact parameters by an override, which in MuJoCo 1.50 left the shapes'
    friction alone; today's would replace it too. So the parameters go to the shapes themselves.

    Returns:
        The `mujoco.MjModel`.
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
