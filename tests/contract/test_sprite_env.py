import subprocess
import sys
import warnings
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
from genesis_rl.envs.relational.env import ObjectGoalEnv, SpriteEnv
from genesis_rl.worlds.sprites import Scene, touched_object
from genesis_rl.worlds.sprites.drawing import COLOURS, Sprite

ID = "genesis_rl/ObjectGoal-v0"
UP, LEFT, DOWN, RIGHT = range(4)
BLUE, RED, GREEN = COLOURS["blue"], COLOURS["red"], COLOURS["green"]
DEMO: dict[str, Any] = {
    "image_size": 36,
    "num_objects": 3,
    "object_scale": 0.25,
    "agent_scale": 0.25,
    "unique_colours": True,
    "background": ("lightgrey", (40, 40, 60)),
}


def staged(
    *objects: tuple[float, float],
    agent: tuple[float, float] = (0.5, 0.5),
    target: int = 0,
    **options: Any,
) -> ObjectGoalEnv:
    """An environment in a scene of our own: objects as (x, y)."""
    env = ObjectGoalEnv(**options)
    env.reset(seed=0)
    sprites = [
        Sprite("square", BLUE if i == target else GREEN, 0.15, *xy) for i, xy in enumerate(objects)
    ]
    env._scene = Scene(sprites, Sprite("circle", RED, 0.15, *agent), (0, 0, 0), target)
    return env


def agent(env: Any) -> tuple[float, float]:
    return env.unwrapped.scene.agent.x, env.unwrapped.scene.agent.y


@pytest.mark.parametrize(
    "options",
    [{}, DEMO, {"state_in_info": True, "masks_in_info": True, "dense_reward": True}],
    ids=["published", "demo", "info"],
)
def test_environment_checkers_pass_without_warnings(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(ID, disable_env_checker=True, **options).unwrapped)
        env: Any = gym.make(ID, **options)
        sb3_check_env(env)
        env.close()


def test_id_is_found_without_an_import() -> None:
    code = (
        "import gymnasium as gym;"
        "env = gym.make('genesis_rl:genesis_rl/ObjectGoal-v0', image_size=16);"
        "print(env.reset(seed=0)[0].shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "(16, 16, 3)", run.stderr


@pytest.mark.parametrize("options", [{}, DEMO], ids=["published", "demo"])
def test_spec_rebuilds_the_environment(options: dict[str, Any]) -> None:
    env: Any = gym.make(ID, render_mode="rgb_array", masks_in_info=True, **options)
    twin: Any = gym.make(env.spec)
    assert twin.unwrapped.world == env.unwrapped.world
    a, b = env.reset(seed=5), twin.reset(seed=5)
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1]["true_masks"], b[1]["true_masks"])


def test_spec_survives_json() -> None:
    env: Any = gym.make(ID, **DEMO)
    twin: Any = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    np.testing.assert_array_equal(env.reset(seed=5)[0], twin.reset(seed=5)[0])


def test_seeds_decide_episodes() -> None:
    env: Any = gym.make(ID)
    first, again, other = (env.reset(seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (env.reset()[0] != other).any()


@pytest.mark.parametrize(
    ("action", "move"),
    [(UP, (0, 0.05)), (LEFT, (-0.05, 0)), (DOWN, (0, -0.05)), (RIGHT, (0.05, 0))],
)
def test_actions_move_the_agent(action: int, move: tuple[float, float]) -> None:
    env = staged((0.1, 0.1), masks_in_info=True)
    before = np.argwhere(env._observe()[1]["true_masks"] == 2).mean(axis=0)
    frame, reward, terminated, truncated, info = env.step(action)
    assert agent(env) == pytest.approx((0.5 + move[0], 0.5 + move[1]))
    shift = np.argwhere(info["true_masks"] == 2).mean(axis=0) - before
    assert shift == pytest.approx((-64 * move[1], 64 * move[0]), abs=0.4)
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, False, False, False)
    row, column = round((1 - agent(env)[1]) * 64), round(agent(env)[0] * 64)
    assert (frame[row, column] == RED).all()


@pytest.mark.parametrize("action", range(4))
def test_the_agent_stays_inside(action: int) -> None:
    env = staged((0.2, 0.8) if action in (DOWN, RIGHT) else (0.8, 0.2), agent=(0.5, 0.5))
    for _ in range(15):
        env.step(action)
    wall = {UP: (0.5, 0.925), LEFT: (0.075, 0.5), DOWN: (0.5, 0.075), RIGHT: (0.925, 0.5)}
    assert agent(env) == pytest.approx(wall[action])


def test_step_size_is_an_option() -> None:
    env = staged((0.1, 0.1), step_size=0.2)
    env.step(UP)
    assert agent(env) == pytest.approx((0.5, 0.7))


def test_touching_the_target_is_success() -> None:
    env = staged((0.72, 0.5), (0.1, 0.1))
    assert env.step(RIGHT)[1:3] == (0.0, False)
    _, reward, terminated, truncated, info = env.step(RIGHT)  # 0.12 away
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def test_touching_another_object_ends_without_reward() -> None:
    env = staged((0.1, 0.1), (0.72, 0.5))
    env.step(RIGHT)
    _, reward, terminated, truncated, info = env.step(RIGHT)
    assert (reward, terminated, truncated, info["is_success"]) == (0.0, True, False, False)


def test_a_touch_is_below_the_agents_scale() -> None:
    for gap, index in ((0.151, None), (0.149, 1)):
        assert touched_object(staged((0.1, 0.1), (0.5 + gap, 0.5)).scene) == index
    assert touched_object(staged((0.6, 0.5), (0.41, 0.5)).scene) == 1  # the nearer one


def test_dense_reward_follows_the_distance() -> None:
    env = staged((0.9, 0.5), dense_reward=True)
    assert env.step(RIGHT)[1] == pytest.approx(0.01)
    assert env.step(LEFT)[1] == pytest.approx(-0.01)
    env = staged((0.68, 0.5), dense_reward=True)
    assert env.step(RIGHT)[1] == 1.0
    env = staged((0.9, 0.5), agent=(0.5, 0.925), dense_reward=True)
    assert env.step(UP)[1] == 0.0  # at the wall


def test_episodes_are_cut_after_100_steps() -> None:
    env: Any = gym.make(ID, num_objects=1)
    env.reset(seed=0)
    env.unwrapped._scene = staged((0.1, 0.1)).scene
    for step in range(100):
        _, _, terminated, truncated, info = env.step(UP if step % 2 else DOWN)
        assert not terminated and truncated == (step == 99) and not info["is_success"]


def test_state_and_masks_agree_with_the_frame() -> None:
    env: Any = gym.make(ID, state_in_info=True, masks_in_info=True)
    for seed in range(5):
        frame, info = env.reset(seed=seed)
        state, masks = info["true_state"], info["true_masks"]
        assert state.shape == (5, 11) and state.dtype == np.float32
        assert masks.shape == (64, 64) and masks.dtype == np.uint8
        assert set(np.unique(masks)) == set(range(6))
        for row, (x, y, _, *colour) in enumerate(state[:, :6]):
            assert masks[round((1 - y) * 64), round(x * 64)] == row + 1
            np.testing.assert_array_equal(
                frame[round((1 - y) * 64), round(x * 64)], np.rint(np.array(colour) * 255)
            )
    assert set(gym.make(ID).reset(seed=0)[1]) == {"is_success"}


def test_rendering_has_its_own_size() -> None:
    env: Any = gym.make(ID, render_mode="rgb_array", render_size=100)
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (100, 100, 3) and frame.dtype == np.uint8
    assert (frame[50, 50] == RED).all()
    with pytest.warns(UserWarning, match="render_mode"):
        plain = ObjectGoalEnv()
        plain.reset(seed=0)
        assert plain.render() is None


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("cv2.imshow", lambda name, frame: shown.append((name, frame)))
    monkeypatch.setattr("cv2.waitKey", lambda delay: -1)
    monkeypatch.setattr("cv2.destroyWindow", lambda name: shown.append((name, None)))
    monkeypatch.setitem(SpriteEnv.metadata, "render_modes", ["rgb_array", "human"])
    env = ObjectGoalEnv(render_mode="human")
    env.reset(seed=0)
    env.step(UP)
    env.close()
    _, (name, frame), closed = shown
    assert frame.shape == (256, 256, 3) and closed == (name, None)
    assert tuple(frame[115, 128]) == (0, 0, 255)  # a red agent, in OpenCV's BGR


def test_windows_need_an_opencv_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SpriteEnv.metadata, "render_modes", ["rgb_array"])
    with pytest.raises(ValueError, match="render_mode"):
        ObjectGoalEnv(render_mode="human")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"render_mode": "ascii"}, ValueError, "render_mode"),
        ({"render_size": 0}, ValueError, "render_size"),
        ({"step_size": 0}, ValueError, "step_size"),
        ({"num_objects": 30}, ValueError, "num_objects"),
        ({"num_targets": 2}, TypeError, "num_targets"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ObjectGoalEnv(**options)


def test_bad_actions_and_a_missing_reset_are_refused() -> None:
    env = ObjectGoalEnv()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(UP)
    env.reset(seed=0)
    action: Any
    for action in (4, -1, 0.5, "up", None):
        with pytest.raises(ValueError, match="action"):
            env.step(action)


def test_pretraining_scenes_look_like_the_environment(tmp_path: Path) -> None:
    env = ObjectGoalEnv(**DEMO, state_in_info=True)
    frame, info = env.reset(seed=0)
    pack = open_dataset("object_goal", root=tmp_path, num_images=50, **env.world_options)
    assert pack.images.shape[1:] == frame.shape
    state = pack.factors["state"]
    np.testing.assert_array_equal(
        np.unique(state[:, :3, 3:6].reshape(-1, 3), axis=0),
        np.unique(info["true_state"][:3, 3:6], axis=0),
    )
    x, y = state[:, 3, 0], state[:, 3, 1]
    assert max(dist((0.5, 0.5), place) for place in zip(x, y, strict=True)) > 0.3


def test_the_state_can_be_the_observation() -> None:
    shown, state = gym.make(ID, state_in_info=True), gym.make(ID, observation="state")
    _, info = shown.reset(seed=3)
    seen, _ = state.reset(seed=3)
    for action in (UP, LEFT, LEFT, DOWN):
        assert seen in state.observation_space
        np.testing.assert_array_equal(seen, info["true_state"])
        _, *_, info = shown.step(action)
        seen, *_, plain = state.step(action)
        assert plain.keys() == {"is_success"}
    with pytest.raises(ValueError, match="observation"):
        gym.make(ID, observation="sound")
