"""Rules of the four relational tasks, and the policies that play them by plan."""

import warnings
from collections import Counter
from math import dist
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.data import open_dataset
from genesis_rl.envs import TASKS
from genesis_rl.envs.relational.env import ObjectGoalEnv, ObjectInteractionEnv
from genesis_rl.envs.relational.scripted import plan, random_policy, run_episodes, scripted_policy
from genesis_rl.worlds.sprites import (
    ObjectComparisonWorld,
    ObjectGoalWorld,
    ObjectInteractionWorld,
    PropertyComparisonWorld,
    Scene,
    SpriteWorld,
)
from genesis_rl.worlds.sprites.drawing import COLOURS, Sprite

UP, LEFT, DOWN, RIGHT = range(4)
BLUE, GREEN, RED = COLOURS["blue"], COLOURS["green"], COLOURS["red"]
LOOK = ("colour", "shape", "scale")
WORLDS = (ObjectGoalWorld, ObjectInteractionWorld, ObjectComparisonWorld, PropertyComparisonWorld)


def make(task: str, **options: Any) -> gym.Env[Any, Any]:
    return gym.make(f"genesis_rl/{task}-v0", disable_env_checker=True, **options)


def scenes(world: SpriteWorld, n: int = 200) -> list[Scene]:
    return [world.sample(np.random.default_rng(i)) for i in range(n)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observation": "state"},
        {"state_in_info": True, "masks_in_info": True, "dense_reward": True, "random_start": True},
        {"image_size": 36, "object_scale": (0.1, 0.12), "background": ("lightgrey", "black")},
    ],
    ids=["published", "state", "info", "appearances"],
)
@pytest.mark.parametrize("task", TASKS)
def test_environment_checkers_pass_without_warnings(task: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(task, **options).unwrapped)
        if "observation" not in options:  # for vectors of several axes it proposes to flatten them
            sb3_check_env(make(task, **options))


@pytest.mark.parametrize("task", TASKS)
def test_state_and_masks_name_every_sprite(task: str) -> None:
    env: Any = make(task, state_in_info=True, masks_in_info=True)
    frame, info = env.reset(seed=0)
    state, masks = info["true_state"], info["true_masks"]
    assert len(state) == env.unwrapped.world.num_sprites
    assert state[:, 6].tolist() == [0] * (len(state) - 1) + [1]
    for row, (x, y, _, *colour) in enumerate(state[:, :6]):
        at = int((1 - y) * 64), int(x * 64)
        assert masks[at] == row + 1
        np.testing.assert_array_equal(frame[at], np.rint(np.array(colour) * 255))
    kept: Any = make(task, observation="state")
    np.testing.assert_array_equal(kept.reset(seed=0)[0], state)


# Object Interaction


def staged(
    *objects: tuple[float, float], agent: tuple[float, float] = (0.5, 0.5), **options: Any
) -> ObjectInteractionEnv:
    """A scene of our own: objects as (x, y), the first one is the target."""
    env = ObjectInteractionEnv(**options)
    env.reset(seed=0)
    sprites = [Sprite("square", GREEN if i else BLUE, 0.15, *xy) for i, xy in enumerate(objects)]
    env._scene = env.scene._replace(
        objects=sprites, agent=Sprite("circle", RED, 0.15, *agent), target=0
    )
    return env


def places(env: ObjectInteractionEnv) -> list[tuple[float, float]]:
    """The agent's place and the objects'."""
    assert env.scene.agent is not None
    return [(round(s.x, 9), round(s.y, 9)) for s in (env.scene.agent, *env.scene.objects)]


def test_one_blue_square_its_marker_and_others() -> None:
    world = ObjectInteractionWorld()
    drawn = scenes(world)
    for scene in drawn:
        assert len(scene.objects) == 3 and {o.shape for o in scene.objects} == {"square"}
        assert [o.colour == BLUE for o in scene.objects].index(True) == scene.target
        assert sum(o.colour == BLUE for o in scene.objects) == 1
        assert scene.goal == Sprite("square", BLUE, 0.15, 0.075, 0.075)
        assert scene.sprites == [*scene.objects, scene.goal, scene.agent]
        for sprite in scene.objects:
            assert 0.225 <= min(sprite.x, sprite.y) and max(sprite.x, sprite.y) <= 0.775
        assert not world.evaluate(scene).ended
    assert {scene.target for scene in drawn} == {0, 1, 2}
    assert {o.colour for scene in drawn for o in scene.objects} == {
        COLOURS[name] for name in ("blue", "green", "yellow", "red")
    }


def test_a_larger_target_has_a_larger_marker() -> None:
    scene = ObjectInteractionWorld(object_scale=0.2, num_objects=1).sample(np.random.default_rng(0))
    assert scene.goal == Sprite("square", BLUE, 0.2, 0.1, 0.1)


@pytest.mark.parametrize(
    ("action", "x", "y"), [(UP, 0, 1), (LEFT, -1, 0), (DOWN, 0, -1), (RIGHT, 1, 0)]
)
def test_the_agent_pushes_along_its_axis(action: int, x: int, y: int) -> None:
    # The object stands ahead, and 0.02 aside.
    env = staged((0.5 + 0.16 * x + 0.02 * y, 0.5 + 0.16 * y + 0.02 * x), (0.2, 0.2), (0.8, 0.8))
    start = places(env)
    for pushes in (1, 2):
        env.step(action)
        for now, before in zip(places(env)[:2], start, strict=False):
            shift = 0.05 * pushes
            assert now == pytest.approx((before[0] + shift * x, before[1] + shift * y))
    assert places(env)[2:] == start[2:]


def test_only_what_is_touched_moves() -> None:
    env = staged((0.71, 0.5))
    env.step(RIGHT)  # 0.16 away
    assert places(env) == [(0.55, 0.5), (0.71, 0.5)]
    env.step(RIGHT)
    assert places(env) == [(0.6, 0.5), (0.76, 0.5)]
    env.step(LEFT)  # it does not stick
    assert places(env) == [(0.55, 0.5), (0.76, 0.5)]
    env = staged((0.7, 0.66))
    env.step(RIGHT)
    env.step(RIGHT)  # passes below: the centres are 0.19 apart
    assert places(env) == [(0.6, 0.5), (0.7, 0.66)]


def test_walls_stop_the_object_and_with_it_the_agent() -> None:
    env = staged((0.9, 0.5), agent=(0.74, 0.5))
    env.step(RIGHT)
    assert places(env) == [(0.765, 0.5), (0.925, 0.5)]  # 0.025 were left
    env.step(RIGHT)
    assert places(env) == [(0.765, 0.5), (0.925, 0.5)]


def test_other_objects_stop_the_object_and_with_it_the_agent() -> None:
    start = [(0.5, 0.5), (0.66, 0.5), (0.84, 0.5)]
    env = staged(*start[1:])
    env.step(RIGHT)  # would leave 0.13 between the two
    assert places(env) == start
    env = staged((0.66, 0.5), (0.86, 0.5))
    env.step(RIGHT)  # leaves 0.15
    assert places(env) == [(0.55, 0.5), (0.71, 0.5), (0.86, 0.5)]


def test_two_objects_are_pushed_as_one() -> None:
    env = staged((0.65, 0.42), (0.66, 0.58))
    env.step(RIGHT)
    assert places(env) == [(0.55, 0.5), (0.7, 0.42), (0.71, 0.58)]
    env = staged((0.9, 0.42), (0.88, 0.58), agent=(0.74, 0.5))
    env.step(RIGHT)  # the first meets the wall after 0.025
    assert places(env) == [(0.765, 0.5), (0.925, 0.42), (0.905, 0.58)]


def test_the_marker_stops_nobody() -> None:
    env = staged((0.5, 0.8), agent=(0.2, 0.1))
    for _ in range(3):
        assert env.step(LEFT)[2] is False
    assert places(env)[0] == (0.075, 0.1)


@pytest.mark.parametrize("index", [0, 1])
def test_an_object_on_the_marker_ends_the_episode(index: int) -> None:
    pushed, other = (0.25, 0.1), (0.7, 0.7)
    objects = (pushed, other) if index == 0 else (other, pushed)
    env = staged(*objects, agent=(0.41, 0.1))
    _, reward, terminated, _, info = env.step(LEFT)  # 0.127 from the marker's centre
    assert terminated
    assert (reward, info["is_success"]) == ((1.0, True) if index == 0 else (0.0, False))
    env = staged(pushed, agent=(0.46, 0.1))
    assert env.step(LEFT)[1:3] == (0.0, False)  # not yet touched


def test_the_dense_reward_pays_for_both_ways() -> None:
    env = staged((0.5, 0.3), dense_reward=True)
    assert env.step(UP)[1] == pytest.approx(-0.01)  # away from the target
    assert env.step(DOWN)[1] == pytest.approx(0.01)
    assert env.step(DOWN)[1] == pytest.approx(0.01)  # pushes it to the goal
    env = staged((0.5, 0.66), dense_reward=True)
    assert env.step(UP)[1] == pytest.approx(-0.01)  # pushes it from the goal


def test_episodes_never_overlap_objects() -> None:
    env: Any = make("ObjectInteraction", observation="state", num_objects=4)
    rng = np.random.default_rng(0)
    for seed in range(10):
        env.reset(seed=seed)
        for _ in range(100):
            ended = env.step(int(rng.integers(4)))[2]
            sprites = [env.unwrapped.scene.agent, *env.unwrapped.scene.objects]
            centres = [(s.x, s.y) for s in sprites]
            apart = [dist(a, b) for i, a in enumerate(centres) for b in centres[:i]]
            assert min(apart) > 0.15 - 1e-5
            assert all(0.075 <= c <= 0.925 for centre in centres for c in centre)
            if ended:
                break


def test_pretraining_scenes_show_pushed_objects(tmp_path: Path) -> None:
    state = open_dataset("object_interaction", root=tmp_path, num_images=200).factors["state"]
    assert state.shape == (200, 5, 11)
    x, y = state[:, :3, 0], state[:, :3, 1]
    assert min(x.min(), y.min()) < 0.09 and max(x.max(), y.max()) > 0.91
    np.testing.assert_allclose(state[:, 3, :2], 0.075, atol=1e-6)
    assert (np.hypot(x - 0.075, y - 0.075) >= 0.15 - 1e-6).all()


# The comparisons


def values(scene: Scene) -> list[tuple[Any, ...]]:
    return [tuple(getattr(sprite, name) for name in LOOK) for sprite in scene.objects]


def odd_ones(scene: Scene) -> list[tuple[int, int]]:
    """All (property, index) such that no other object shares this one's value of the property."""
    found = []
    for column in range(3):
        counts = Counter(look[column] for look in values(scene))
        found += [(column, i) for i, look in enumerate(values(scene)) if counts[look[column]] == 1]
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"colours": ("blue", "green", "yellow"), "num_objects": 6, "wall_margin": 0.02},
        {"object_scale": (0.15, 0.1)},
        {"shapes": ("square",)},
        {"num_objects": 3},
    ],
    ids=["published", "colours", "scales", "one-shape", "three"],
)
@pytest.mark.parametrize("world_class", [ObjectComparisonWorld, PropertyComparisonWorld])
def test_one_object_is_the_odd_one_in_one_property(
    world_class: type[ObjectComparisonWorld], options: dict[str, Any]
) -> None:
    world = world_class(**options)
    drawn = scenes(world, 400)
    odd = [odd_ones(scene) for scene in drawn]
    for scene, found in zip(drawn, odd, strict=True):
        assert [index for _, index in found] == [scene.target]
        assert len(scene.objects) == world.num_objects
    targets = Counter(scene.target for scene in drawn)
    assert set(targets) == set(range(world.num_objects)) and min(targets.values()) > 30
    compared = {0, 1, 2} if "object_scale" in options else {0} if "shapes" in options else {0, 1}
    counts = Counter(found[0][0] for found in odd)
    assert set(counts) == compared and min(counts.values()) > 0.75 * 400 / len(compared)
    if world_class is ObjectComparisonWorld:
        assert all(len(set(values(scene))) == 2 for scene in drawn)


def test_published_appearances_are_all_sampled() -> None:
    for world in (ObjectComparisonWorld(), PropertyComparisonWorld()):
        found = {value for scene in scenes(world) for value in values(scene)}
        assert found == {(c, s, 0.15) for c in (BLUE, GREEN) for s in ("square", "triangle")}


def test_the_other_property_varies_in_pairs_as_often_as_published() -> None:
    drawn = scenes(PropertyComparisonWorld(), 1200)
    kinds: Counter[int] = Counter()
    partners = set()
    for scene in drawn:
        odd = odd_ones(scene)[0][0]
        column = [look[1 - odd] for look in values(scene)]
        kinds[len(set(column))] += 1
        if len(set(column)) == 2:
            partners.add(column.index(column[0], 1))
    assert partners == {1, 2, 3}  # any of the others makes a pair with the first
    # Two of the four get a value with 1/3; then the second pair takes another one with 1/2.
    assert set(kinds) == {1, 2}
    assert kinds[2] / 1200 == pytest.approx(1 / 6, abs=0.035)


@pytest.mark.parametrize("task", ["ObjectComparison", "PropertyComparison"])
def test_touching_the_odd_one_is_success(task: str) -> None:
    env: Any = make(task)
    for seed in range(20):
        for index in range(4):
            env.reset(seed=seed)
            scene = env.unwrapped.scene
            aim = scene.objects[index]
            env.unwrapped._scene = scene._replace(
                agent=Sprite("circle", RED, 0.15, aim.x, aim.y - 0.16)
            )
            _, reward, terminated, _, info = env.step(UP)
            right = index == scene.target
            assert (reward, terminated, info["is_success"]) == (float(right), True, right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_objects": 2}, "num_objects"),
        ({"unique_colours": True}, "unique_colours"),
        ({"colours": ("blue",), "shapes": ("square",)}, "colours"),
        ({"colours": ("blue", "blue"), "shapes": ("square",)}, "colours"),
    ],
)
def test_comparisons_without_a_difference_are_refused(
    options: dict[str, Any], message: str
) -> None:
    for world_class in (ObjectComparisonWorld, PropertyComparisonWorld):
        with pytest.raises(ValueError, match=message):
            world_class(**options)


# Generalisation


@pytest.mark.parametrize("world_class", WORLDS)
def test_held_out_combinations_are_in_no_scene_or_in_all(world_class: type[SpriteWorld]) -> None:
    held = (GREEN, "square")
    options: dict[str, Any] = {"held_out": [["green", "square"]]}
    for show in (False, True):
        for scene in scenes(world_class(**options, show_held_out=show), 60):
            assert (held in {(o.colour, o.shape) for o in scene.objects}) == show


def test_whole_colours_and_shapes_are_held_out() -> None:
    world = ObjectGoalWorld(held_out=(("red", "*"), ("*", "star_4")))
    for scene in scenes(world, 60):
        assert all(o.colour != RED and o.shape != "star_4" for o in scene.objects)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": ["green"]}, "held_out"),
        ({"held_out": [("green", "heart")]}, "shape"),
        ({"held_out": [("grun", "square")]}, "colour"),
        ({"held_out": [("blue", "square")]}, "held_out"),
        ({"held_out": [("purple", "*")], "show_held_out": True}, "held_out"),
        ({"show_held_out": True}, "held_out"),
    ],
)
def test_impossible_held_out_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectGoalWorld(**options)


# Policies


@pytest.mark.parametrize(("task", "least"), list(zip(TASKS, (0.99, 0.9, 0.99, 0.99), strict=True)))
def test_the_scripted_policy_solves_the_task(task: str, least: float) -> None:
    env = make(task, observation="state")
    successes, _ = run_episodes(env, scripted_policy, 200, seed=1000)
    assert successes >= least * 200


def test_random_actions_solve_little() -> None:
    rates = [
        run_episodes(make(task, observation="state"), random_policy, 200)[0] / 200 for task in TASKS
    ]
    assert rates[1] < 0.08
    assert all(0.13 < rate < 0.37 for rate in (rates[0], *rates[2:]))


def test_plans_are_shortest_and_leave_the_scene_alone() -> None:
    env = ObjectGoalEnv()
    env.reset(seed=0)
    target, wall = (0.92, 0.5), (0.71, 0.5)
    sprites = [Sprite("square", BLUE, 0.15, *target), Sprite("square", GREEN, 0.15, *wall)]
    agent = Sprite("circle", RED, 0.15, 0.5, 0.5)
    env._scene = Scene(sprites[:1], agent, (0, 0, 0), 0)
    assert plan(env) == [RIGHT] * 6  # 0.12 away; after five steps it is 0.17
    before = env._scene = Scene(sprites, agent, (0, 0, 0), 0)
    actions = plan(env)
    assert actions is not None and env.scene is before
    path = []
    scene = before
    for action in actions:
        scene = env.advance(scene, action).scene
        assert scene.agent is not None
        path.append((scene.agent.x, scene.agent.y))
    assert all(dist(place, wall) >= 0.15 for place in path)
    # Three steps aside to pass (two are 0.1), seven along, one back to the target.
    assert Counter(actions) == Counter({RIGHT: 7, actions[0]: 3, DOWN - actions[0]: 1})
    assert plan(env, max_steps=len(actions)) == actions
    assert plan(env, max_steps=len(actions) - 1) is None


def test_plans_are_for_relational_tasks() -> None:
    with pytest.raises(TypeError, match="env"):
        run_episodes(gym.make("CartPole-v1"), scripted_policy, 1)
    with pytest.raises(ValueError, match="episodes"):
        run_episodes(make("ObjectGoal"), random_policy, 0)
