"""Environments that others made, through the wrappers and the recorder: each has its quirk."""

import functools
import gc
import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import (
    AddRenderObservation,
    AtariPreprocessing,
    FilterObservation,
    FrameStackObservation,
)
from packaging.version import Version
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from genesis_rl import GenesisObs, GenesisVectorObs, SlotEncoder, VecGenesisObs
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.recording.collect import CollectConfig, collect
from genesis_rl.envs.wrappers.frame_source import find_frames
from genesis_rl.envs.wrappers.rendering import RenderedObs

pytestmark = pytest.mark.smoke
K, D = 3, 12  # of the tiny model
Make = Callable[[], gym.Env[Any, Any]]


# Skip for these causes only: whatever else goes wrong is a failure.


def installed(module: str, source: str = "extra envs") -> None:
    """Skip if the package is not installed."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed ({source})")


def robots_installed() -> None:
    """Skip if gymnasium-robotics is not installed, or with a MuJoCo version it fails with."""
    installed("gymnasium_robotics", "extra robots")
    version = metadata.version("mujoco")
    if Version(version) >= Version("3.12"):
        pytest.skip(f"gymnasium-robotics needs mujoco<3.12 (extra robots), got {version}")


def check(make: Make, encoder: SlotEncoder, **options: Any) -> None:
    """Wrap it singly, as a vector and for Stable-Baselines3: the same slots of the same frames."""
    single = GenesisObs(make(), encoder, **options)
    vector = GenesisVectorObs(gym.vector.SyncVectorEnv([make, make]), encoder, **options)
    venv: Any = VecGenesisObs(DummyVecEnv([make, make]), encoder, **options)
    assert single.observation_space.shape == (K, D)
    assert vector.observation_space.shape == venv.reset().shape == (2, K, D)
    venv.seed(7)
    seen = [single.reset(seed=7)[0], vector.reset(seed=7)[0][0], venv.reset()[0]]
    single.action_space.seed(0)
    for _ in range(3):
        for observation in seen:
            np.testing.assert_allclose(observation, seen[0], atol=1e-4)
        assert single.observation_space.contains(seen[0])
        action = single.action_space.sample()
        both = np.stack([action, action])
        seen = [single.step(action)[0], vector.step(both)[0][0], venv.step(both)[0][0]]
    for env in (single, vector, venv):
        env.close()


def record(tmp_path: Path, env: str, **options: Any) -> Transitions:
    config = CollectConfig(
        env=env, out=tmp_path / "pack", steps=6, n_envs=2, vec="dummy", test=0, **options
    )
    assert collect(config)["train"].steps == 3
    return Transitions.open(config.out)


def test_car_racing(encoder: SlotEncoder, tmp_path: Path) -> None:
    installed("Box2D")
    check(lambda: gym.make("CarRacing-v3"), encoder)
    steps = record(tmp_path, "CarRacing-v3", image_size=32)
    assert steps.images.shape == (4, 32, 32, 3) and steps.actions.shape == (4, 3)
    assert steps.images.std() > 20


# ---- MiniGrid: symbols look like a small picture -----------------------------------------------


@pytest.fixture
def minigrid() -> Any:
    installed("minigrid")
    return importlib.import_module("minigrid.wrappers")


def test_minigrid_pixels(minigrid: Any, encoder: SlotEncoder, tmp_path: Path) -> None:
    def make() -> gym.Env[Any, Any]:
        # Stable-Baselines3 cannot take the mission, a text.
        return FilterObservation(
            minigrid.RGBImgObsWrapper(gym.make("MiniGrid-FourRooms-v0")), ["image"]
        )

    check(make, encoder)
    wrapper = "minigrid.wrappers:RGBImgPartialObsWrapper"
    steps = record(tmp_path, "minigrid:MiniGrid-FourRooms-v0", wrappers=(wrapper,))
    assert steps.images.shape == (4, 64, 64, 3) and steps.images.std() > 10
    assert steps.action_space["n"] == 7


def test_minigrid_with_its_mission(minigrid: Any, encoder: SlotEncoder) -> None:
    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = minigrid.RGBImgObsWrapper(gym.make("MiniGrid-Empty-5x5-v0"))
        return env

    env = GenesisObs(make(), encoder, keep=("direction", "mission"))
    assert env.observation_space.contains(env.reset(seed=0)[0])
    envs = GenesisVectorObs(gym.vector.SyncVectorEnv([make] * 2), encoder, keep=("direction",))
    assert envs.observation_space.contains(envs.reset(seed=0)[0])


@pytest.mark.parametrize("wrappers", [(), ("ImgObsWrapper",), ("FullyObsWrapper",)])
def test_minigrid_symbols_are_no_picture(
    minigrid: Any, encoder: SlotEncoder, wrappers: tuple[str, ...]
) -> None:
    env = gym.make("MiniGrid-MultiRoom-N6-v0")  # 25 x 25 cells
    for name in wrappers:
        env = getattr(minigrid, name)(env)
    with pytest.raises(ValueError, match="RGBImgObsWrapper"):
        GenesisObs(env, encoder)


def test_a_grid_that_lost_its_mission_is_no_picture(minigrid: Any, encoder: SlotEncoder) -> None:
    env = minigrid.ImgObsWrapper(minigrid.FullyObsWrapper(gym.make("MiniGrid-MultiRoom-N6-v0")))
    with pytest.raises(ValueError, match='image_layout="HWC"'):
        GenesisObs(env, encoder)
    GenesisObs(env, encoder, image_layout="HWC")  # who says so gets it


# ---- ALE ---------------------------------------------------------------------------------------


@pytest.fixture
def ale() -> Any:
    installed("ale_py")
    return importlib.import_module("ale_py")


@pytest.mark.parametrize("kind", ["rgb", "grayscale"])
def test_atari(ale: Any, encoder: SlotEncoder, kind: str) -> None:
    check(lambda: gym.make("ALE/Pong-v5", obs_type=kind), encoder)


def test_atari_is_registered_by_its_module(ale: Any, tmp_path: Path) -> None:
    steps = record(tmp_path, "ale_py:ALE/Pong-v5", resize="letterbox")
    left = steps.images[:, :, :7]  # 210 x 160 within 64 x 64 leaves black borders of 7 and 8 px
    assert left.max() == 0 < steps.images[:, :, 8:].max()


def test_atari_ram_is_no_picture(ale: Any, encoder: SlotEncoder) -> None:
    with pytest.raises(ValueError, match=r"^the observation "):
        GenesisObs(gym.make("ALE/Pong-v5", obs_type="ram"), encoder)


def test_stacked_atari_frames_are_named(ale: Any, encoder: SlotEncoder) -> None:
    def make() -> gym.Env[Any, Any]:
        env = AtariPreprocessing(gym.make("ALE/Pong-v5", frameskip=1))
        return FrameStackObservation(env, 4)

    with pytest.raises(ValueError, match=r'"SHW".*image_layout'):
        GenesisObs(make(), encoder)
    check(make, encoder, image_layout="SHW")


@pytest.mark.parametrize(
    ("options", "layout"),
    [({"img_height": 64, "img_width": 96}, "SHW"), ({"grayscale": False}, "SHWC")],
)
def test_ataris_own_vector_environment(
    ale: Any, encoder: SlotEncoder, options: dict[str, Any], layout: Any
) -> None:
    known = inspect.signature(
        importlib.import_module("ale_py.vector_env").AtariVectorEnv
    ).parameters
    if not options.keys() <= known.keys():
        pytest.skip(f"ale_py {metadata.version('ale_py')} has no options {', '.join(options)}")
    envs = gym.make_vec(
        "ALE/Pong-v5", num_envs=2, vectorization_mode="vector_entry_point", **options
    )
    with pytest.raises(ValueError, match=f'"{layout}"'):
        GenesisVectorObs(envs, encoder)
    # Early versions of ale-py do not state their autoreset mode, which alignment needs.
    align = "autoreset_mode" in envs.metadata
    wrapped = GenesisVectorObs(envs, encoder, image_layout=layout, align=align)
    seen, _ = wrapped.reset(seed=0)
    assert wrapped.observation_space.contains(seen) and seen.shape == (2, K, D)
    moved = wrapped.step(wrapped.action_space.sample())[0]
    assert moved.shape == (2, K, D) and wrapped.observation_space.contains(moved)
    wrapped.close()


# ---- games with an API or a frame of their own -------------------------------------------------


def test_crafter(encoder: SlotEncoder, tmp_path: Path) -> None:
    installed("crafter")
    options: dict[str, Any] = {"area": [32, 32]}  # large worlds take seconds to generate
    check(lambda: gym.make("genesis_rl/Crafter-v0", **options), encoder)
    steps = record(tmp_path, "genesis_rl/Crafter-v0", env_options=json.dumps(options))
    assert steps.images.std() > 20 and steps.action_space["n"] == 17
    assert steps.pack.meta["versions"]["crafter"] == metadata.version("crafter")


def test_vizdoom(encoder: SlotEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("vizdoom")
    monkeypatch.chdir(tmp_path)  # ViZDoom writes its settings there
    env_id = "vizdoom.gymnasium_wrapper:VizdoomBasic-v1"
    check(lambda: gym.make(env_id), encoder)
    env = GenesisObs(gym.make(env_id), encoder, keep=("gamevariables",))
    assert env.observation_space.contains(env.reset(seed=0)[0])
    env.close()
    steps = record(tmp_path, env_id, resize="letterbox")
    assert steps.images.std() > 20


HIGHWAY = {
    "vehicles_count": 5,
    "observation": {
        "type": "GrayscaleObservation",
        "observation_shape": (128, 64),  # width, height
        "stack_size": 4,
        "weights": [0.3, 0.6, 0.1],
    },
}


def test_highway_stacks_grey_frames_width_first(encoder: SlotEncoder, tmp_path: Path) -> None:
    installed("highway_env")

    # The shape must be a tuple, which JSON options cannot hold.
    gym.register(
        "GreyHighway-v0", "highway_env.envs.highway_env:HighwayEnv", kwargs={"config": HIGHWAY}
    )

    def make() -> gym.Env[Any, Any]:
        return gym.make("GreyHighway-v0")

    with pytest.raises(ValueError, match=r'"SWH".*width before height'):
        GenesisObs(make(), encoder)
    check(make, encoder, image_layout="SWH")
    steps = record(tmp_path, "GreyHighway-v0", image_layout="SWH", resize="crop")
    del gym.registry["GreyHighway-v0"]
    lanes = steps.images[0, ..., 0].astype(np.float32)  # horizontal lines
    assert lanes.mean(1).std() > 2 * lanes.mean(0).std() > 0


def test_highway_rendered(encoder: SlotEncoder, tmp_path: Path) -> None:
    installed("highway_env")
    env = GenesisObs(
        gym.make("highway_env:highway-v0", render_mode="rgb_array"), encoder, render=True
    )
    assert env.reset(seed=0)[0].shape == env.step(1)[0].shape == (K, D)
    env.close()
    options = json.dumps({"config": {"vehicles_count": 5}})
    steps = record(tmp_path, "highway_env:highway-v0", render=True, env_options=options)
    assert steps.images.std() > 5


# ---- several agents: SuperSuit and PettingZoo --------------------------------------------------

PONG = "pettingzoo.butterfly.cooperative_pong_v6"


def test_supersuits_vector_environment(encoder: SlotEncoder) -> None:
    installed("supersuit")
    supersuit: Any = importlib.import_module("supersuit")
    pong = importlib.import_module(PONG).parallel_env(max_cycles=4, render_mode="rgb_array")
    agents = supersuit.pettingzoo_env_to_vec_env_v1(pong)
    with pytest.raises(TypeError, match=r"single_observation_space.*ConcatVecEnv.*VecGenesisObs"):
        GenesisVectorObs(supersuit.concat_vec_envs_v1(agents, 2), encoder)
    venv: Any = VecGenesisObs(
        supersuit.concat_vec_envs_v1(agents, 2, base_class="stable_baselines3"),
        encoder,
        info_keys=("frame",),
    )
    assert venv.reset().shape == (4, K, D)
    assert [info["frame"].shape for info in venv.reset_infos] == [(280, 480, 3)] * 4
    ends = 0
    for _ in range(6):
        observations, _, dones, infos = venv.step(np.zeros(4, np.int64))
        assert observations.shape == (4, K, D) and dones.dtype == np.bool_
        assert [info["terminal_observation"].shape for info in infos if dones[0]] in (
            [],
            [(K, D)] * 4,
        )
        ends += dones.sum()
    assert ends >= 4 and observations.std() > 0
    PPO("MlpPolicy", venv, n_steps=4, batch_size=4, device="cpu").learn(16)
    venv.close()


def test_an_agent_of_pettingzoo(encoder: SlotEncoder, tmp_path: Path) -> None:
    installed("pettingzoo.butterfly")
    options: dict[str, Any] = {"make": f"{PONG}:parallel_env"}
    check(lambda: gym.make("genesis_rl/PettingZoo-v0", **options), encoder)
    steps = record(tmp_path, "genesis_rl/PettingZoo-v0", env_options=json.dumps(options))
    assert steps.images.std() > 20 and steps.action_space["n"] == 3


# ---- rendered by OpenGL ------------------------------------------------------------------------


@pytest.fixture
def fetch(opengl: None) -> Make:
    """Return a maker of FetchReach with MuJoCo's rendering."""
    robots_installed()
    gym.register_envs(importlib.import_module("gymnasium_robotics"))

    def make() -> gym.Env[Any, Any]:
        env = gym.make("FetchReach-v4", render_mode="rgb_array", width=64, height=64)
        return AddRenderObservation(env, render_only=False, render_key="pixels")

    return make


def test_fetch_keeps_its_goals_beside_the_slots(fetch: Make, encoder: SlotEncoder) -> None:
    goals = ("achieved_goal", "desired_goal")
    env = GenesisObs(fetch(), encoder, keep=goals)
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert observation["slots"].shape == (K, D) and set(observation) == {"slots", *goals}
    moved = env.step(np.array([1, 0, 0, 0], np.float32))[0]
    assert np.abs(moved["achieved_goal"] - observation["achieved_goal"]).max() > 1e-3
    np.testing.assert_array_equal(moved["desired_goal"], observation["desired_goal"])
    assert np.abs(moved["slots"] - observation["slots"]).max() > 1e-6
    venv: Any = VecGenesisObs(DummyVecEnv([fetch] * 2), encoder, keep=goals)
    assert venv.reset()["achieved_goal"].shape == (2, 3)
    venv.close()
    env.close()


SIZE = {"width": 64, "height": 64}
RENDERED: dict[str, tuple[str, dict[str, Any]]] = {
    "FetchReach": ("gymnasium_robotics:FetchReach-v4", SIZE),
    "PointMaze": ("gymnasium_robotics:PointMaze_UMaze-v3", SIZE),
    "Meta-World": ("metaworld:Meta-World/MT1", {**SIZE, "env_name": "reach-v3"}),
    "panda-gym": ("panda_gym:PandaReach-v3", {"render_width": 64, "render_height": 64}),
}
SOURCES = {"Meta-World": "extra metaworld", "panda-gym": "pip install panda-gym"}


@pytest.mark.parametrize("name", RENDERED)
def test_robots_are_rendered(name: str, opengl: None, encoder: SlotEncoder, tmp_path: Path) -> None:
    env_id, options = RENDERED[name]
    if env_id.startswith("gymnasium_robotics"):
        robots_installed()
    installed(env_id.partition(":")[0], SOURCES.get(name, "extra robots"))
    make: Any = functools.partial(gym.make, env_id, render_mode="rgb_array", **options)
    env = GenesisObs(make(), encoder, render=True, info_keys=("frame",))
    other = RenderedObs(make())
    _, before = env.reset(seed=0)
    other.close()  # MuJoCo's own render then gives black frames
    _, after = env.reset(seed=0)
    assert before["frame"].shape == (64, 64, 3)
    for frame in (before["frame"], after["frame"]):
        assert frame.std() > 20
    seen = env.step(env.action_space.sample())[0]
    assert env.observation_space.contains(seen)
    env.close()
    steps = record(tmp_path, env_id, render=True, env_options=json.dumps(options))
    assert steps.images.std() > 20 and steps.actions.shape == (4, *make().action_space.shape)


def test_instances_of_a_mujoco_environment_have_one_camera(opengl: None) -> None:
    environments = [
        RenderedObs(gym.make("Reacher-v5", render_mode="rgb_array", width=64, height=64))
        for _ in range(2)
    ]
    frames = [env.reset(seed=5)[0] for env in environments]
    np.testing.assert_array_equal(*frames)
    # Unseeded instances still differ.
    unseeded = [gym.make("Reacher-v5", render_mode="rgb_array", width=64, height=64) for _ in "ab"]
    first, second = (RenderedObs(env).reset()[0] for env in unseeded)
    assert (first != second).any()
    for env in (*environments, *unseeded):
        env.close()


def test_mujoco_frames_outlive_other_environments(opengl: None) -> None:
    # Gymnasium's own render gives black frames here.
    env, other = (
        RenderedObs(gym.make("Reacher-v5", render_mode="rgb_array", width=64, height=64))
        for _ in range(2)
    )
    before, _ = env.reset(seed=0)
    other.close()
    after, _ = env.reset(seed=0)
    assert before.std() > 10
    np.testing.assert_array_equal(after, before)
    env.close()


def test_mujoco_frames_outlive_the_collection_of_other_environments(
    opengl: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo would write its warnings
    make: Any = functools.partial(
        gym.make, "Reacher-v5", render_mode="rgb_array", width=64, height=64
    )
    for close in (False, True):
        other, env = make(), RenderedObs(make())
        other.reset(seed=0)
        other.render()
        before, _ = env.reset(seed=0)
        if close:
            other.close()
        del other
        gc.collect()  # releases the buffers of the environment that rendered last
        after, _ = env.reset(seed=0)
        assert before.std() > 10
        np.testing.assert_array_equal(after, before)
        env.close()
    assert not list(tmp_path.iterdir())


def test_closed_environments_leave_mujoco_frames_of_others(opengl: None) -> None:
    make: Any = functools.partial(
        gym.make, "Reacher-v5", render_mode="rgb_array", width=64, height=64
    )
    other, env = RenderedObs(make()), make()
    env.reset(seed=0)
    before = env.render()
    other.close()
    del other
    gc.collect()
    env.unwrapped.mujoco_renderer.viewer.make_context_current()
    np.testing.assert_array_equal(env.render(), before)
    env.close()


def test_miniworld(
    opengl: None, encoder: SlotEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed("miniworld")
    monkeypatch.setenv("PYGLET_HEADLESS", "true")  # read when pyglet is imported
    env = GenesisObs(gym.make("miniworld:MiniWorld-Hallway-v0"), encoder)
    assert find_frames(env.env.observation_space, key=None, layout="auto").size == (60, 80)
    assert env.reset(seed=0)[0].shape == env.step(2)[0].shape == (K, D)
    steps = record(tmp_path, "miniworld:MiniWorld-Hallway-v0")
    assert steps.images.std() > 5
