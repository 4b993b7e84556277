"""Search for plans on a grid."""

import pytest

from genesis_rl.envs.planning import Outcome, search

Cell = tuple[int, int]
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
WALL = {(2, y) for y in range(-3, 3)}
GOAL = (4, 0)


def advance(cell: Cell, action: int) -> Outcome[Cell]:
    x, y = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
    blocked = (x, y) in WALL or max(abs(x), abs(y)) > 5
    after = cell if blocked else (x, y)
    return Outcome(after, after == GOAL, after == (1, 1))


def plan(weight: float, max_steps: int = 100) -> list[int] | None:
    return search(
        (0, 0),
        len(MOVES),
        advance,
        lambda cell: cell,
        lambda cell: weight * (abs(cell[0] - GOAL[0]) + abs(cell[1] - GOAL[1])),
        max_steps,
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_shortest_plan_is_found(weight: float) -> None:
    actions = plan(weight)
    assert actions is not None
    cell: Cell = (0, 0)
    for action in actions[:-1]:
        outcome = advance(cell, action)
        assert not outcome.success and not outcome.terminated
        cell = outcome.state
    assert advance(cell, actions[-1]).success
    assert len(actions) == 10  # around the wall: three up, four along, three down


def test_no_plan_within_the_limit() -> None:
    assert plan(0.0, max_steps=9) is None
    assert plan(0.0, max_steps=10) is not None
