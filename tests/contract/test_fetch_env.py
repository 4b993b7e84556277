import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.envs import FETCH_TASKS
from genesis_rl.envs.fetch.env import FetchEnv
from genesis_rl.envs.fetch.scripted import fetch_policy
from genesis_rl.envs.relational.scripted import random_policy, run_episodes
from genesis_rl.envs.wrappers.obs import GenesisObs
from genesis_rl.worlds.tabletop import CAMERAS, STATE_COLUMNS

COLOUR = slice(STATE_COLUMNS.index("red"), STATE_COLUMNS.index("blue") + 1)
OBJECT, GOAL, GRIPPER, TARGET = map(STATE_COLUMNS.index, ("object", "goal", "gripper", "target"))


pytestmark = pytest.mark.usefixtures("robot")


def make(name: str, **options: Any) -> Any:
    return gym.make(f"genesis_rl/{name}-v0", disable_env_checker=True, **options)


@pytest.mark.parametrize("name", FETCH_TASKS)
def test_environment_checkers_pass_without_warnings(name: str, opengl: None) -> None:
    options = {"state_in_info": True, "masks_in_info": True, "camera": "topview", "image_size": 36}
    env = make(name, **(options if "Reddest" in name else {"render_mode": "rgb_array"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=env.render_mode is None)
        sb3_check_env(env)
    env.close()
    assert env.spec.max_episode_steps == (50 if "Reach" in name else 100)
    assert name == f"Fetch{env.unwrapped.skill}{env.unwrapped.relation}"


def test_the_state_can_be_observed_without_opengl(
    run_without_opengl: Callable[[str], list[str]],
) -> None:
    code = (
        "import gymnasium as gym\n"
        "env = gym.make('genesis_rl:genesis_rl/FetchPushOdd-v0', observation='state')\n"
        "print(env.reset(seed=0)[0].shape, env.step(env.action_space.sample())[0].shape)\n"
        "try: gym.make('genesis_rl/FetchPushOdd-v0').reset()\n"
        "except RuntimeError as error: print(error)\n"
    )
    shapes, message = run_without_opengl(code)
    assert shapes == "(7, 14) (7, 14)"
    assert "libegl1 libgl1-mesa-dri" in message


def test_the_package_of_the_meshes_is_not_imported() -> None:
    code = (
        "import sys, gymnasium as gym\n"
        "before = 'gymnasium_robotics' in sys.modules\n"
        "gym.make('genesis_rl:genesis_rl/FetchReachRed-v0', observation='state').reset()\n"
        "print(before == ('gymnasium_robotics' in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["FetchReachReddest", "FetchPushOddGroups", "FetchPickRed"])
def test_seeds_decide_episodes(name: str, opengl: None) -> None:
    def episode(seed: int) -> list[Any]:
        env = make(name, state_in_info=True)
        env.action_space.seed(seed)
        observation, info = env.reset(seed=seed)
        seen = [observation["image"].tobytes(), info["true_state"].tobytes()]
        for _ in range(5):
            observation, reward, _, _, info = env.step(env.action_space.sample())
            seen += [reward, *(value.tobytes() for value in observation.values())]
        env.close()
        return seen

    assert episode(1) == episode(1)
    assert episode(1)[0] != episode(2)[0]


def test_an_episode_does_not_depend_on_the_one_before() -> None:
    env = make("FetchPickOdd", observation="state")
    first = [env.reset(seed=3)[0], env.step(np.ones(4))[0]]
    env.reset(seed=4)
    for _ in range(30):
        env.step(env.action_space.sample())
    again = [env.reset(seed=3)[0], env.step(np.ones(4))[0]]
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("camera", list(CAMERAS))
@pytest.mark.parametrize("name", ["FetchReachOdd", "FetchPickOddGroups"])
def test_masks_match_the_state_and_the_picture(name: str, camera: str, opengl: None) -> None:
    env = make(name, state_in_info=True, masks_in_info=True, camera=camera, image_size=96)
    found = 0
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        state, masks, image = info["true_state"], info["true_masks"], observation["image"]
        assert masks.shape == (96, 96)
        assert masks.max() == len(state)  # the arm
        assert state[-1, GRIPPER] == 1
        for row in range(len(state) - 1):
            pixels = image[masks == row + 1].astype(float)
            if len(pixels) < 30:  # hidden by the arm or another object
                continue
            found += 1
            colour = state[row, COLOUR]
            assert state[row, GOAL] == (name == "FetchPickOddGroups" and row == len(state) - 2)
            mean = pixels.mean(0)
            if colour.max() - colour.min() > 0.9:
                assert mean[colour.argmax()] > mean[colour.argmin()] + 20
    assert found >= (4 if camera == "topview" else 20)  # the arm hides much from above
    env.close()


def test_masks_cover_all_that_changes(opengl: None) -> None:
    """Outside of the masks, the picture is that of the empty table."""
    options: dict[str, Any] = {"image_size": 64, "masks_in_info": True}
    env, empty = make("FetchPushOdd", **options), make("FetchPushOdd", empty_table=True, **options)
    background = empty.reset(seed=0)[0]["image"].astype(int)
    arm = empty.reset(seed=0)[1]["true_masks"] > 0
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        changed = (np.abs(observation["image"] - background) > 40).any(-1)
        covered = (info["true_masks"] > 0) | arm
        # Pixels of an edge show both sides.
        grown = covered | np.roll(covered, 1, 0) | np.roll(covered, -1, 0)
        grown |= np.roll(grown, 1, 1) | np.roll(grown, -1, 1)
        assert not (changed & ~grown).any()
        assert changed.sum() > 100
    env.close()
    empty.close()


def test_an_empty_table(opengl: None) -> None:
    env = make("FetchPickRed", empty_table=True, state_in_info=True, masks_in_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
    _, info = env.reset(seed=0)
    assert info["true_state"].shape == (1, 14)
    assert info["num_objects"] == 0
    for _ in range(5):
        _, reward, _, _, info = env.step(env.action_space.sample())
        assert (reward, info["is_success"]) == (0, False)
        assert set(np.unique(info["true_masks"])) <= {0, 1}
    env.close()


def test_rewards_and_success_follow_the_distance() -> None:
    dense, sparse = (
        make("FetchReachRed", observation="state", reward=reward) for reward in ("dense", "sparse")
    )
    ends = set()
    for seed in range(5):
        for env in (dense, sparse):
            env.reset(seed=seed)
        for action in fetch_policy(dense, np.random.default_rng(0)):
            state, reward, terminated, truncated, info = dense.step(action)
            twin = sparse.step(action)
            assert not terminated
            (target,) = np.flatnonzero(state[:, TARGET])
            np.testing.assert_array_equal(state[target, COLOUR], (1, 0, 0))
            distance = np.linalg.norm(state[target, :3] - state[-1, :3])
            assert reward == pytest.approx(np.exp(-20 * distance), rel=1e-3)
            assert info["is_success"] == (distance < 0.05)
            assert twin[1] == (0 if distance < 0.05 else -1)
            ends.add(twin[1])
            if truncated:
                break
    assert ends == {0, -1}


def test_the_number_of_distractors_may_vary() -> None:
    env = make("FetchPushOdd", num_distractors=(2, 4), observation="state")
    counts = set()
    for seed in range(20):
        state, info = env.reset(seed=seed)
        assert state.shape == (7, 14)
        present = state[:5, OBJECT] == 1
        assert present.tolist() == [i < info["num_objects"] for i in range(5)]
        assert not state[:5][~present].any()
        counts.add(info["num_objects"])
    assert counts == {3, 4, 5}


def test_actions_are_repeated() -> None:
    once, twice = (
        make("FetchPushRed", observation="state", action_repeat=repeat) for repeat in (1, 2)
    )
    for env in (once, twice):
        env.reset(seed=0)
    action = np.array([0.3, -0.2, 0.1, 0])
    rewards = [once.step(action)[1] for _ in range(2)]
    state, reward, *_ = twice.step(action)
    assert reward == pytest.approx(sum(rewards))
    np.testing.assert_allclose(once.step(np.zeros(4))[0], twice.step(np.zeros(4))[0], atol=0.05)
    assert state.shape == (7, 14)


@pytest.mark.parametrize("name", ["FetchReachOdd", "FetchPushOddGroups", "FetchPickReddest"])
def test_the_scripted_policy_succeeds(name: str) -> None:
    assert run_episodes(make(name, observation="state"), fetch_policy, 12)[0] >= 11


def test_the_random_policy_seldom_succeeds() -> None:
    for name in ("FetchReachOdd", "FetchPushRed"):
        assert run_episodes(make(name, observation="state"), random_policy, 15)[0] <= 3


def test_the_scripted_policy_refuses_other_environments() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match="multi-object Fetch"):
        next(fetch_policy(gym.make("genesis_rl/ObjectGoal-v0"), rng))
    env = make("FetchPushRed", empty_table=True, observation="state")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="empty_table"):
        next(fetch_policy(env, rng))


def test_rendering(opengl: None) -> None:
    env = make("FetchReachRed", render_mode="rgb_array", image_size=32, render_size=100)
    env.reset(seed=0)
    assert env.render().shape == (100, 100, 3)
    env.close()
    frame = env.reset(seed=0)[0]["image"]  # a closed environment opens OpenGL again
    assert frame.std() > 10
    env.close()


def test_slots_and_proprioception_are_observed_together(encoder: Any, opengl: None) -> None:
    env = GenesisObs(make("FetchReachRed", image_size=32), encoder, keep=("proprioception",))
    observation, _ = env.reset(seed=0)
    assert observation["proprioception"].shape == (10,)
    assert env.observation_space.contains(observation)
    env.close()


def test_vectorised(opengl: None) -> None:
    options: dict[str, Any] = {"num_envs": 2, "vectorization_mode": "async", "image_size": 16}
    envs: Any = gym.make_vec(
        "genesis_rl/FetchPickOdd-v0", vector_kwargs={"context": "spawn"}, **options
    )
    observation, _ = envs.reset(seed=[0, 0])
    np.testing.assert_array_equal(observation["image"][0], observation["image"][1])
    envs.step(envs.action_space.sample())
    envs.close()


def test_environments_share_a_process(opengl: None) -> None:
    first, second = make("FetchPushRed"), make("FetchPushRed")
    frame = first.reset(seed=0)[0]["image"]
    second.reset(seed=1)
    np.testing.assert_array_equal(second.reset(seed=0)[0]["image"], frame)
    second.close()
    np.testing.assert_array_equal(first.reset(seed=0)[0]["image"], frame)
    first.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skill": "Slide"}, "skill must be one of Reach, Push, Pick, got 'Slide'"),
        ({"relation": "Blue"}, "relation"),
        ({"num_distractors": 5}, r"num_distractors must be in 0\.\.4 for Red.*got 5"),
        ({"num_distractors": (3, 2)}, "num_distractors"),
        ({"num_distractors": "2"}, "num_distractors"),
        ({"relation": "Odd", "num_distractors": 1}, r"in 2\.\.4 for Odd.*got 1; Odd needs 2"),
        ({"relation": "OddGroups", "num_distractors": 3}, r"OddGroups.*got 3; OddGroups needs 4"),
        ({"reward": "shaped"}, "reward"),
        ({"camera": "side"}, "camera"),
        ({"action_repeat": 0}, "action_repeat"),
        ({"image_size": 15}, r"image_size must be an integer in 16\.\.1024, got 15"),
        ({"render_size": 5000}, "render_size"),
        ({"observation": "pixels"}, "observation must be one of dict, image, state"),
        ({"render_mode": "ansi"}, "render_mode"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FetchEnv(**options)


def test_bad_calls_are_refused() -> None:
    env = FetchEnv(observation="state")
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(4))
    env.reset(seed=0)
    for action in (np.zeros(3), np.array([0, 0, 0, np.nan])):
        with pytest.raises(ValueError, match="action must be four finite numbers"):
            env.step(action)
