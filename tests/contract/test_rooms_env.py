import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.envs.relational.scripted import random_policy
from genesis_rl.envs.rooms.env import ENV_STATE_COLUMNS, RoomsEnv
from genesis_rl.envs.rooms.scripted import rooms_policy
from genesis_rl.envs.wrappers.obs import GenesisObs

ID = "genesis_rl/Rooms-v0"
OBJECT, AGENT, TARGET = map(ENV_STATE_COLUMNS.index, ("object", "agent", "target"))
RED = ENV_STATE_COLUMNS.index("red")


def make(**options: Any) -> Any:
    return gym.make(ID, disable_env_checker=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "odd", "state_in_info": True, "masks_in_info": True, "image_size": 36},
        {"target": "sphere", "num_objects": (1, 3), "reward": "sparse", "textures": "test"},
        {"empty": True, "state_in_info": True},
    ],
    ids=["default", "info", "sparse", "empty"],
)
def test_environment_checkers_pass_without_warnings(options: dict[str, Any], opengl: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make(render_mode="rgb_array", **options)
        check_env(env.unwrapped)
        sb3_check_env(gym.make(ID, **options))
        env.close()
    assert env.spec.max_episode_steps == 100


def test_state_observations_pass_the_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(observation="state").unwrapped, skip_render_check=True)


def test_the_state_can_be_observed_without_opengl(
    run_without_opengl: Callable[[str], list[str]],
) -> None:
    code = (
        "import gymnasium as gym\n"
        "env = gym.make('genesis_rl:genesis_rl/Rooms-v0', observation='state')\n"
        "print(env.reset(seed=0)[0].shape, env.step(0)[0].shape)\n"
        "try: gym.make('genesis_rl/Rooms-v0').reset()\n"
        "except RuntimeError as error: print(error)\n"
    )
    shapes, message = run_without_opengl(code)
    assert shapes == "(4, 18) (4, 18)"
    assert "libegl1 libgl1-mesa-dri" in message


def test_seeds_decide_episodes(opengl: None) -> None:
    def episode(seed: int) -> list[Any]:
        env = make(state_in_info=True)
        env.action_space.seed(seed)
        observation, info = env.reset(seed=seed)
        seen = [observation.tobytes(), info["true_state"].tobytes()]
        for _ in range(8):
            observation, reward, _, _, info = env.step(env.action_space.sample())
            seen += [reward, observation.tobytes(), info["true_state"].tobytes()]
        env.close()
        return seen

    assert episode(1) == episode(1)
    assert episode(1)[0] != episode(2)[0]


def test_masks_and_state_have_the_same_rows(opengl: None) -> None:
    env = make(num_objects=(1, 3), state_in_info=True, masks_in_info=True, image_size=96)
    found = 0
    for seed in range(12):
        env.reset(seed=seed)
        for action in (2, 0, 2, 0, 2):
            image, _, _, _, info = env.step(action)
            state, masks = info["true_state"], info["true_masks"]
            assert state.shape == (4, 18)
            assert state[:3, OBJECT].sum() == info["num_objects"] == np.any(state[:3], 1).sum()
            assert (state[3, AGENT], state[:3, TARGET].sum()) == (1, 1)
            assert masks.max() <= info["num_objects"]
            for row in range(info["num_objects"]):
                pixels = image[masks == row + 1].astype(float)
                colour = state[row, RED : RED + 3]
                if len(pixels) > 30 and np.ptp(colour) > 0.5:
                    found += 1
                    mean = pixels.mean(0)
                    assert mean[colour.argmax()] > mean[colour.argmin()] + 10
            (target,) = np.flatnonzero(state[:, TARGET])
            assert state[target, RED] > state[target, RED + 1 : RED + 3].max() * 1.5
    assert found > 15
    env.close()


@pytest.mark.parametrize("reward", ["dense", "sparse"])
def test_rewards_sum_to_success_and_progress(reward: str) -> None:
    env = make(observation="state", reward=reward)
    for seed in range(5):
        state, info = env.reset(seed=seed)
        assert not info["is_success"]
        start = left(state)
        total = 0.0
        for action in rooms_policy(env, np.random.default_rng(0)):
            state, value, terminated, truncated, info = env.step(action)
            assert terminated == info["is_success"]
            total += value
            if reward == "sparse":
                assert value == terminated
        assert terminated and not truncated
        progress = start - left(state) if reward == "dense" else 0
        assert total == pytest.approx(1 + progress, abs=1e-4)
        with pytest.raises(RuntimeError, match="the episode has ended"):
            env.unwrapped.step(0)


def left(state: Any) -> float:
    """Distance to success (m) and bearing (half turns) of the target, from the state."""
    agent, target = state[-1], state[int(state[:, TARGET].argmax())]
    shapes = ENV_STATE_COLUMNS[6:12]
    shape = shapes[int(target[6:12].argmax())]
    footprint = {"box": 0.8 * 2**0.5, "sphere": 1, "cylinder": 0.75, "capsule": 0.55, "cone": 0.9}
    radius = footprint.get(shape, 1.236) * target[5]
    x, y = target[:2] - agent[:2]
    distance = np.hypot(x, y) - radius - 0.25 - 0.5
    cos, sin = agent[3:5]
    return float(max(0, distance) + abs(np.arctan2(cos * y - sin * x, cos * x + sin * y)) / np.pi)


def test_episodes_are_truncated() -> None:
    env = make(observation="state", max_episode_steps=7)
    env.reset(seed=0)
    ends = [env.step(2)[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]


def test_an_empty_room(opengl: None) -> None:
    env = make(empty=True, state_in_info=True, masks_in_info=True)
    _, info = env.reset(seed=0)
    assert info["true_state"].shape == (1, 18) and info["num_objects"] == 0
    for action in (0, 2, 0, 1, 3):
        _, reward, terminated, _, info = env.step(action)
        assert (reward, terminated, info["is_success"]) == (0, False, False)
        assert not info["true_masks"].any()
    env.close()


def test_rendering(opengl: None) -> None:
    env = make(render_mode="rgb_array", image_size=32, render_size=100)
    frame, _ = env.reset(seed=0)
    shown = env.render()
    assert shown.shape == (100, 100, 3)
    env.close()
    again, _ = env.reset(seed=0)  # a closed environment opens OpenGL again
    np.testing.assert_array_equal(again, frame)
    moved = env.step(2)[0]
    assert (moved != frame).any()
    env.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vectorised(mode: str, opengl: None) -> None:
    options: dict[str, Any] = {"num_envs": 2, "vectorization_mode": mode, "image_size": 16}
    if mode == "async":
        options["vector_kwargs"] = {"context": "spawn"}
    envs: Any = gym.make_vec(ID, **options)
    frames, _ = envs.reset(seed=[3, 3])
    np.testing.assert_array_equal(frames[0], frames[1])
    single = make(image_size=16)
    np.testing.assert_array_equal(single.reset(seed=3)[0], frames[0])
    actions = random_policy(single, np.random.default_rng(0))
    for action, _ in zip(actions, range(5), strict=False):
        frames = envs.step(np.array([action, action]))[0]
        np.testing.assert_array_equal(single.step(action)[0], frames[0])
    envs.close()
    single.close()


def test_slots_are_observed(encoder: Any, opengl: None) -> None:
    env = GenesisObs(make(image_size=32), encoder)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "blue"}, "target must be one of red, sphere, odd, got 'blue'"),
        ({"num_objects": 4}, "num_objects must be from 1 to 3, got 4"),
        ({"num_objects": (3, 1)}, "num_objects must be"),
        ({"num_objects": "3"}, "num_objects must be a tuple, got '3'"),
        ({"target": "odd", "num_objects": 2}, "num_objects must be at least 3 for target 'odd'"),
        ({"textures": "none"}, "textures must be one of train, test, all, got 'none'"),
        ({"reward": "shaped"}, "reward must be one of dense, sparse, got 'shaped'"),
        ({"image_size": 7}, r"image_size must be an integer in 8\.\.1024, got 7"),
        ({"render_size": 5000}, "render_size"),
        ({"observation": "dict"}, "observation must be one of image, state, got 'dict'"),
        ({"render_mode": "ansi"}, "render_mode"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoomsEnv(**options)


def test_bad_calls_are_refused() -> None:
    env = RoomsEnv(observation="state")
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(0)
    env.reset(seed=0)
    for action in (4, -1, 0.5, np.zeros(2)):
        with pytest.raises(ValueError, match=r"action must be an integer in 0\.\.3, got"):
            env.step(action)  # type: ignore[arg-type]
