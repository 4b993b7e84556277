"""The batched environments against single ones, and as Stable-Baselines3 takes them."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecMonitor

from genesis_rl import GenesisVectorObs
from genesis_rl.agents.vec_obs import GymVecEnv
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.worlds.sprites import BatchRenderer, Scene
from genesis_rl.worlds.sprites.drawing import Sprite, render

TASKS = ("ObjectGoal", "ObjectInteraction", "ObjectComparison", "PropertyComparison")
BUSY: dict[str, Any] = {
    "image_size": 32,
    "state_in_info": True,
    "masks_in_info": True,
    "dense_reward": True,
    "random_start": True,
    "background": ("black", (9, 9, 9)),
}


def batched(task: str, n: int, mode: str = "NextStep", **options: Any) -> Any:
    return gym.make_vec(f"genesis_rl/{task}-v0", n, autoreset_mode=mode, **options)


def synchronous(task: str, n: int, mode: str, **options: Any) -> Any:
    return gym.make_vec(
        f"genesis_rl/{task}-v0",
        n,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **options,
    )


def check_same(ours: Any, theirs: Any) -> None:
    """Compare what resets and steps return, dtypes included."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            check_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple) or (theirs is not None and theirs.dtype == object):
        for a, b in zip(ours, theirs, strict=True):
            check_same(a, b)
    elif theirs is None:
        assert ours is None
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("task", TASKS)
def test_steps_equal_those_of_single_environments(task: str, mode: str) -> None:
    ours, theirs = (make(task, 5, mode, **BUSY) for make in (batched, synchronous))
    check_same(ours.reset(seed=4), theirs.reset(seed=4))
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(130):
        actions = rng.integers(4, size=5)
        a, b = ours.step(actions), theirs.step(actions)
        check_same(a, b)
        done = a[2] | a[3]
        ended += done.sum()
        if mode == "Disabled" and done.any():
            check_same(*(e.reset(options={"reset_mask": done}) for e in (ours, theirs)))
    assert ended >= 5
    check_same(ours.reset(seed=[1, None, 2, 3, 4]), theirs.reset(seed=[1, None, 2, 3, 4]))


def test_states_equal_those_of_single_environments() -> None:
    ours, theirs = (
        make("ObjectInteraction", 3, "SameStep", observation="state")
        for make in (batched, synchronous)
    )
    check_same(ours.reset(seed=0), theirs.reset(seed=0))
    for _ in range(5):
        check_same(ours.step(np.array([0, 1, 2])), theirs.step(np.array([0, 1, 2])))


def test_the_renderer_draws_what_render_draws() -> None:
    rng = np.random.default_rng(0)
    renderer = BatchRenderer(4, 33)
    objects = [[Sprite("star_4", (0, 0, 255), 0.3, *rng.random(2))] for _ in range(4)]
    for turn in range(6):
        if turn == 3:
            objects[1] = [Sprite("square", (255, 255, 0), 0.2, 0.9, 0.02)]
        scenes = []
        for i in range(4):
            x, y = np.clip(rng.uniform(-0.3, 1.3, 2), 0.1, 0.9)  # often at a wall
            agent = Sprite("circle", (255, 0, 0), 0.2, x, y)
            scenes.append(Scene(objects[i], agent, (5, 6, 7), None))
        drawn = renderer.draw(scenes, range(4))
        for frame, scene in zip(drawn, scenes, strict=True):
            np.testing.assert_array_equal(frame, render(scene.sprites, 33, (5, 6, 7)))
        np.testing.assert_array_equal(renderer.draw(scenes[2:], [2, 3]), drawn[2:])


def test_frames_may_be_kept() -> None:
    envs = batched("ObjectGoal", 3)
    first, _ = envs.reset(seed=0)
    copy = first.copy()
    envs.step(np.zeros(3, int))
    np.testing.assert_array_equal(first, copy)


def test_episodes_are_cut_after_the_registered_steps() -> None:
    envs = batched("ObjectComparison", 2)
    assert envs.spec.max_episode_steps == 100
    envs = batched("ObjectComparison", 2, max_episode_steps=3)
    envs.reset(seed=0)
    cuts = [envs.step(np.full(2, 2 * (i % 2)))[3].tolist() for i in range(5)]
    assert cuts == [[False] * 2, [False] * 2, [True] * 2, [False] * 2, [False] * 2]


def test_the_id_makes_the_batched_form_which_wrappers_and_pictures_take() -> None:
    envs: Any = batched("PropertyComparison", 2, render_mode="rgb_array", render_size=40)
    assert type(envs).__name__ == "PropertyComparisonVectorEnv"
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    twin = gym.make_vec(envs.spec)
    np.testing.assert_array_equal(envs.reset(seed=1)[0], twin.reset(seed=1)[0])
    assert [picture.shape for picture in envs.render()] == [(40, 40, 3)] * 2
    recorded = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    recorded.reset(seed=1)
    for _ in range(101):
        info = recorded.step(envs.action_space.sample())[4]
        if "episode" in info:
            break
    assert info["episode"]["l"].max() > 0


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_slots_equal_those_of_single_environments(encoder: SlotEncoder, mode: str) -> None:
    ours, theirs = (
        GenesisVectorObs(
            make("ObjectComparison", 3, mode, image_size=32, max_episode_steps=4), encoder
        )
        for make in (batched, synchronous)
    )
    np.testing.assert_array_equal(ours.reset(seed=0)[0], theirs.reset(seed=0)[0])
    for i in range(9):
        a, b = (envs.step(np.full(3, i % 4)) for envs in (ours, theirs))
        check_same(a[:4], b[:4])
        assert ("final_obs" in a[4]) == ("final_obs" in b[4])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_envs": 0}, ValueError, "num_envs"),
        ({"max_episode_steps": -1}, ValueError, "max_episode_steps"),
        ({"autoreset_mode": "never"}, ValueError, "never"),
        ({"render_mode": "human"}, ValueError, "render_mode"),
        ({"targets": 1}, TypeError, "targets"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gym.make_vec("genesis_rl/ObjectGoal-v0", **{"num_envs": 2, **options})


def test_bad_calls_are_refused() -> None:
    envs = batched("ObjectGoal", 2, "Disabled", max_episode_steps=1)
    with pytest.raises(RuntimeError, match="reset"):
        envs.step(np.zeros(2, int))
    with pytest.raises(ValueError, match="seed"):
        envs.reset(seed=[1])
    for mask, error in (([True, False], TypeError), (np.zeros(2, bool), ValueError)):
        with pytest.raises(error, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(RuntimeError, match="reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    bad: Any
    for bad in (np.zeros(3, int), np.array([0, 4]), np.zeros(2), np.array([0, -1])):
        with pytest.raises(ValueError, match="actions"):
            envs.step(bad)
    envs.step(np.zeros(2, int))
    with pytest.raises(RuntimeError, match=r"\[0, 1\]"):
        envs.step(np.zeros(2, int))


def comparable(info: dict[str, Any]) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() for key, value in info.items() if key != "episode"}


def test_stable_baselines_sees_what_its_own_vector_environment_shows() -> None:
    options = {"image_size": 16, "state_in_info": True}
    theirs = make_vec_env(
        "genesis_rl/ObjectGoal-v0", 4, seed=7, env_kwargs=options, monitor_dir=None
    )
    ours = GymVecEnv(batched("ObjectGoal", 4, "SameStep", **options))
    ours.seed(7)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ended = 0
    for _ in range(150):
        actions = rng.integers(4, size=4)
        a, b = ours.step(actions), theirs.step(actions)
        for mine, other in zip(a[:3], b[:3], strict=True):
            arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]] = (mine, other)  # type: ignore[assignment]
            np.testing.assert_array_equal(*arrays)
            assert arrays[0].dtype == arrays[1].dtype
        for row, other_row in zip(a[3], b[3], strict=True):
            assert comparable(row) == comparable(other_row)
        if a[2].any():
            ended += a[2].sum()
            for i in a[2].nonzero()[0]:
                assert comparable(ours.reset_infos[i]) == comparable(theirs.reset_infos[i])
    assert ended > 4


def test_ppo_learns_in_the_batched_form() -> None:
    venv = VecMonitor(GymVecEnv(batched("ObjectGoal", 4, "SameStep", observation="state")))
    model = PPO("MlpPolicy", venv, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(64 * 3)
    assert model.num_timesteps == 192
    assert venv.get_attr("num_envs", [0]) == [4]
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * 4


def test_only_same_step_resets_serve_stable_baselines() -> None:
    with pytest.raises(ValueError, match="SameStep"):
        GymVecEnv(batched("ObjectGoal", 2))
    env: Any = gym.make("genesis_rl/ObjectGoal-v0")
    with pytest.raises(TypeError, match="VectorEnv"):
        GymVecEnv(env)
