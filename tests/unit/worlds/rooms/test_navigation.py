"""Motion of the agent, tasks and success."""

import colorsys
from collections import Counter
from itertools import combinations
from math import dist, pi
from typing import Any

import numpy as np
import pytest

from genesis_rl.worlds.rooms import HALF_WIDTH, Room, RoomObject
from genesis_rl.worlds.rooms.navigation import (
    ACTIONS,
    AGENT_RADIUS,
    FACING,
    REACH,
    STEP,
    TURN,
    Agent,
    Navigation,
    Target,
    is_success,
    remaining,
)

SPHERE = RoomObject("sphere", (1, 0, 0), 1, 0, 0.4, 0)
ROOM = Room((SPHERE,))


def test_actions() -> None:
    agent = Agent(0, 0, 0)
    assert agent.act(0, Room()) == (STEP, 0, 0)
    assert agent.act(1, Room()) == (-STEP, 0, 0)
    assert agent.act(2, Room()) == pytest.approx((0, 0, TURN))
    assert agent.act(3, Room()) == pytest.approx((0, 0, -TURN))
    assert len(ACTIONS) == 4
    for _ in range(24):
        agent = agent.act(2, Room())
    assert agent == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("yaw", [0, pi / 2, pi, -pi / 2, 0.6, 2.5, -2.0])
def test_walls_stop_the_agent(yaw: float) -> None:
    for action in (0, 1):
        agent = Agent(0.2, -0.4, yaw)
        for _ in range(60):
            agent = agent.act(action, Room())
        limit = HALF_WIDTH - AGENT_RADIUS
        assert max(abs(agent.x), abs(agent.y)) == pytest.approx(limit)
        # It can leave the wall again.
        assert dist(agent[:2], agent.act(1 - action, Room())[:2]) == pytest.approx(STEP)


@pytest.mark.parametrize("offset", [0.0, 0.3, -0.6])
def test_objects_stop_the_agent_at_their_outline(offset: float) -> None:
    agent = Agent(-1, offset, 0)
    for _ in range(30):
        agent = agent.act(0, ROOM)
    assert agent.distance(SPHERE) == pytest.approx(0, abs=1e-9)
    assert agent.x < 1
    assert agent.act(1, ROOM).x == pytest.approx(agent.x - STEP)


def test_the_agent_passes_beside_an_object() -> None:
    agent = Agent(-1, 0.7, 0)  # 0.05 m from the outline
    for _ in range(30):
        agent = agent.act(0, ROOM)
    assert agent.x == pytest.approx(HALF_WIDTH - AGENT_RADIUS)


def test_random_walks_never_enter_an_object_or_a_wall() -> None:
    rng = np.random.default_rng(0)
    task = Navigation()
    for _ in range(20):
        room, _, agent = task.sample(rng)
        for action in rng.choice(4, size=200, p=(0.5, 0.2, 0.15, 0.15)):
            agent = agent.act(int(action), room)
            assert all(agent.distance(item) > -1e-9 for item in room.objects)
            assert max(abs(agent.x), abs(agent.y)) <= HALF_WIDTH - AGENT_RADIUS + 1e-9


def test_success_requires_distance_and_heading() -> None:
    near = 1 - 0.4 - AGENT_RADIUS - REACH
    assert is_success(Agent(near + 0.01, 0, 0), SPHERE)
    assert not is_success(Agent(near - 0.01, 0, 0), SPHERE)
    assert is_success(Agent(near + 0.01, 0, FACING - 0.01), SPHERE)
    assert not is_success(Agent(near + 0.01, 0, -FACING - 0.01), SPHERE)


def test_remaining_distance_and_bearing() -> None:
    far = Agent(-2, 0, pi / 2)
    assert far.bearing(SPHERE) == pytest.approx(-pi / 2)
    assert remaining(far, SPHERE) == pytest.approx(3 - 0.4 - AGENT_RADIUS - REACH + 0.5)
    assert remaining(Agent(0.3, 0, 0), SPHERE) == 0


def hue(item: RoomObject) -> float:
    return colorsys.rgb_to_hsv(*item.colour)[0]


@pytest.mark.parametrize("target", ["red", "sphere", "odd"])
def test_the_target_is_unique_and_not_reached(target: Target) -> None:
    rng = np.random.default_rng(0)
    indices: Counter[int | None] = Counter()
    for _ in range(200):
        episode = Navigation(target).sample(rng)
        found = episode.target_object
        assert found is not None
        indices[episode.target] += 1
        others = [item for item in episode.room.objects if item is not found]
        if target == "sphere":
            assert found.shape == "sphere" and all(o.shape != "sphere" for o in others)
        elif target == "red":
            assert min(hue(found), 1 - hue(found)) < 0.04
            assert all(0.11 < hue(other) < 0.89 for other in others)
        else:
            assert len({other.colour for other in others}) == 1
            difference = abs(hue(found) - hue(others[0]))
            assert min(difference, 1 - difference) > 0.2
        for a, b in combinations(episode.room.objects, 2):
            assert dist((a.x, a.y), (b.x, b.y)) >= a.radius + b.radius + 2 * AGENT_RADIUS
        assert episode.agent.distance(found) > REACH
        assert all(episode.agent.distance(item) > 0 for item in others)
    assert set(indices) == {0, 1, 2} and min(indices.values()) > 40


def test_the_number_of_objects_varies() -> None:
    rng = np.random.default_rng(0)
    counts = {len(Navigation("red", (1, 3)).sample(rng).room.objects) for _ in range(50)}
    assert counts == {1, 2, 3}


def test_an_empty_room() -> None:
    episode = Navigation(empty=True).sample(np.random.default_rng(0))
    assert (episode.room.objects, episode.target, episode.target_object) == ((), None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "blue"}, "target must be one of red, sphere, odd, got 'blue'"),
        ({"target": "odd", "num_objects": (2, 3)}, r"at least 3 for target 'odd', got \(2, 3\)"),
        ({"num_objects": (1, 4)}, "num_objects must be from 1 to 3, got 4"),
        ({"textures": "new"}, "textures must be one of train, test, all"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Navigation(**options)
