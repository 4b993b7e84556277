import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.envs.shapestacks.env import STATE_COLUMNS, ShapeStacksEnv

ID = "genesis_rl/ShapeStacks-v0"
PLACES = slice(0, 3)
NEXT = STATE_COLUMNS.index("next")


def onto_the_middle(env: ShapeStacksEnv, state: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The action that puts the next block straight onto the one below it."""
    (index,) = np.flatnonzero(state[:, NEXT])
    dx, dy, _ = (state[index - 1, PLACES] - state[index, PLACES]) / env.reach
    return np.array([dx, dy, 0], np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"state_in_info": True, "masks_in_info": True, "image_size": 36, "camera": 1}],
    ids=["default", "info"],
)
def test_environment_checkers_pass_without_warnings(options: dict[str, Any], opengl: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env: Any = gym.make(ID, disable_env_checker=True, render_mode="rgb_array", **options)
        check_env(env.unwrapped)
        sb3_check_env(gym.make(ID, **options))
        env.close()


def test_the_state_can_be_observed_without_opengl(
    run_without_opengl: Callable[[str], list[str]],
) -> None:
    code = (
        "import gymnasium as gym\n"
        "env = gym.make('genesis_rl:genesis_rl/ShapeStacks-v0', observation='state')\n"
        "print(env.reset(seed=0)[0].shape, env.step(env.action_space.sample())[0].shape)\n"
        "try: gym.make('genesis_rl/ShapeStacks-v0').reset()\n"
        "except RuntimeError as error: print(error)\n"
    )
    shapes, message = run_without_opengl(code)
    assert shapes == "(4, 17) (4, 17)"
    assert "libegl1 libgl1-mesa-dri" in message


def test_state_observations_pass_the_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(ID, disable_env_checker=True, observation="state").unwrapped)


def test_spec_rebuilds_the_environment() -> None:
    env: Any = gym.make(ID, observation="state", height=3, appearance=(1, 2, 3))
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    twin: Any = gym.make(spec)
    np.testing.assert_array_equal(env.reset(seed=5)[0], twin.reset(seed=5)[0])
    assert twin.unwrapped.appearance == env.unwrapped.appearance


def test_seeds_decide_episodes(opengl: None) -> None:
    def episode(seed: int) -> list[Any]:
        env: Any = gym.make(ID, image_size=32, state_in_info=True)
        env.action_space.seed(seed)
        frame, info = env.reset(seed=seed)
        seen = [frame.tobytes(), info["true_state"].tobytes()]
        for _ in range(2):
            frame, reward, terminated, _, info = env.step(env.action_space.sample() * 0.3)
            seen += [frame.tobytes(), reward, terminated, info["true_state"].tobytes()]
            if terminated:
                break
        env.close()
        return seen

    assert episode(1) == episode(1)
    assert episode(1)[0] != episode(2)[0]


@pytest.mark.parametrize("family", ["blocks", "ccs"])
@pytest.mark.parametrize("sparse", [False, True])
def test_careful_stacking_succeeds(family: str, sparse: bool) -> None:
    env: Any = gym.make(ID, observation="state", height=4, family=family, sparse_reward=sparse)
    for seed in range(3):
        state, info = env.reset(seed=seed)
        assert info == {"is_success": False, "blocks_standing": 1}
        rewards = []
        for standing in (2, 3, 4):
            action = onto_the_middle(env.unwrapped, state)
            state, reward, terminated, truncated, info = env.step(action)
            rewards.append(reward)
            assert info == {"is_success": standing == 4, "blocks_standing": standing}
            assert (terminated, truncated) == (standing == 4, False)
        assert rewards == pytest.approx([0, 0, 1] if sparse else [1 / 3] * 3)
        assert not state[:, NEXT].any()
        # The blocks stand on each other: gaps between the centres are those of stacked blocks.
        assert (np.diff(state[:, 2]) > 0.49).all()


def test_a_collapse_ends_the_episode() -> None:
    env: Any = gym.make(ID, observation="state", hover_offset=0.0)
    before, _ = env.reset(seed=0)
    after, reward, terminated, truncated, info = env.step(np.array([1, 0, 0], np.float32))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info == {"is_success": False, "blocks_standing": 0}
    assert after[1, 2] < before[1, 2] - 0.5  # it fell
    assert not after[:, NEXT].any()
    assert not after[2:].any()
    with pytest.raises(RuntimeError, match="reset"):
        env.unwrapped.step(np.zeros(3))


def test_actions_move_and_turn_the_block() -> None:
    env: Any = gym.make(ID, observation="state", hover_offset=0.0, height=2, family="blocks")
    before, _ = env.reset(seed=1)
    np.testing.assert_allclose(before[1, :2], before[0, :2])
    after = env.step(np.array([0.1, -0.15, 0.25], np.float32))[0]
    np.testing.assert_allclose(after[1, :2] - before[1, :2], [0.1, -0.15], atol=0.02)
    half_turns = [2 * np.arctan2(state[1, 6], state[1, 3]) / np.pi for state in (before, after)]
    assert (half_turns[1] - half_turns[0]) % 2 == pytest.approx(0.25, abs=0.01)
    # Values outside the box are cut off.
    env.reset(seed=1)
    cut = env.step(np.array([0.1, -0.15, 9.25]))[0]
    env.reset(seed=1)
    np.testing.assert_array_equal(cut, env.step(np.array([0.1, -0.15, 1.0]))[0])


def test_the_next_block_hovers_off_the_axis() -> None:
    env: Any = gym.make(ID, observation="state", hover_offset=0.4)
    offsets = []
    for seed in range(30):
        state, _ = env.reset(seed=seed)
        assert state[:, NEXT].tolist() == [0, 1, 0, 0]
        offsets.append(state[1, :2] - state[0, :2])
        clearance = state[1, 2] - state[1, 9] - (state[0, 2] + state[0, 9])
        assert state[1, 11] + state[1, 10] == 1  # carriers are cuboids or cylinders
        assert clearance == pytest.approx(0.4, abs=1e-5)
    assert 0.3 < np.abs(offsets).max() <= 0.4


def test_masks_match_the_state_and_the_picture(opengl: None) -> None:
    env: Any = gym.make(
        ID, camera=13, state_in_info=True, masks_in_info=True, appearance=(1, 1, 0), image_size=64
    )
    frame, info = env.reset(seed=3)
    for standing in (1, 2, 3):
        state, masks = info["true_state"], info["true_masks"]
        assert masks.shape == (64, 64)
        assert set(np.unique(masks)) == set(range(standing + 2))
        for row in range(standing + 1):
            pixels = frame[masks == row + 1].mean(0)
            colour = state[row, STATE_COLUMNS.index("red") :][:3]
            assert pixels[colour == 1].min() > pixels[colour == 0].max()
        heights = [np.nonzero(masks == row + 1)[0].mean() for row in range(standing + 1)]
        assert heights == sorted(heights, reverse=True)  # the next block is uppermost
        frame, *_, info = env.step(onto_the_middle(env.unwrapped, state))
    assert info["is_success"]
    assert set(np.unique(info["true_masks"])) == {0, 1, 2, 3, 4}
    env.close()


def test_rendering(opengl: None) -> None:
    env: Any = gym.make(ID, render_mode="rgb_array", image_size=32, render_size=100)
    env.reset(seed=0)
    assert env.render().shape == (100, 100, 3)
    env.close()
    env.reset(seed=0)  # a closed environment opens OpenGL again
    env.close()
    silent: Any = gym.make(ID, observation="state")
    silent.reset()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert silent.unwrapped.render() is None


def test_vectorised(opengl: None) -> None:
    options: dict[str, Any] = {"num_envs": 2, "vectorization_mode": "async", "image_size": 16}
    envs: Any = gym.make_vec(ID, vector_kwargs={"context": "spawn"}, **options)
    frames, _ = envs.reset(seed=[0, 0])
    np.testing.assert_array_equal(frames[0], frames[1])
    envs.step(envs.action_space.sample())
    envs.close()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Gymnasium prints the worker's error too
def test_a_forked_process_says_why_it_cannot_draw(opengl: None) -> None:
    envs = gym.make_vec(ID, 1, "async", {"context": "fork"}, image_size=16)
    with pytest.raises(RuntimeError, match="forked"):
        envs.reset(seed=0)
    envs.close(terminate=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 1}, "height"),
        ({"family": "css"}, "family"),
        ({"camera": 17}, "camera"),
        ({"hover_offset": -1}, "hover_offset"),
        ({"reach": 0}, "reach"),
        ({"appearance": (6, 0, 0)}, "wall"),
        ({"appearance": (0, 0)}, "appearance"),
        ({"settle_time": 0}, "settle_time"),
        ({"image_size": 4}, "image_size"),
        ({"render_size": 5000}, "render_size"),
        ({"observation": "pixels"}, "observation"),
        ({"render_mode": "ansi"}, "render_mode"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapeStacksEnv(**options)


def test_bad_calls_are_refused() -> None:
    env = ShapeStacksEnv(observation="state")
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(3))
    env.reset(seed=0)
    for action in (np.zeros(2), np.array([0, 0, np.nan])):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
