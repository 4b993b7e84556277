"""Imagined environments: Gymnasium's contract, batched and single ones, policy transfer."""

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecMonitor

from genesis_rl import GenesisObs
from genesis_rl.agents.vec_obs import GymVecEnv
from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, SlotSpec, WorldModel, WorldModelConfig

ID = "genesis_rl/Imagination-v0"
MOVES = ActionSpec("discrete", n=4)
PUSHES = ActionSpec("box", low=(-1.0, -2.0), high=(1.0, 2.0))


def make_world(folder: Path, encoder: SlotEncoder, spec: ActionSpec, *, geometry: bool) -> str:
    torch.manual_seed(1)
    slot_spec = SlotSpec(encoder.fingerprint, encoder.num_slots, encoder.latent_sizes, geometry)
    world = WorldModel(WorldModelConfig(width=8, layers=1, ensemble=2), spec, slot_spec)
    with torch.no_grad():
        world.outcome.get_parameter("2.bias")[2] = -1.5  # episodes of a few steps
    world.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_genesis: Genesis) -> dict[str, str]:
    """Folders of an encoder and of world models."""
    root = tmp_path_factory.mktemp("models")
    save_pretrained(tiny_genesis, root / "encoder")
    encoder = SlotEncoder(root / "encoder", device="cpu")
    return {
        "encoder": str(root / "encoder"),
        "moves": make_world(root / "moves", encoder, MOVES, geometry=True),
        "pushes": make_world(root / "pushes", encoder, PUSHES, geometry=True),
        "bare": make_world(root / "bare", encoder, MOVES, geometry=False),
    }


def single(models: dict[str, str], world: str = "moves", **options: Any) -> Any:
    return gym.make(
        ID, encoder=models["encoder"], world_model=models[world], device="cpu", **options
    )


def batched(models: dict[str, str], n: int, mode: str = "NextStep", **options: Any) -> Any:
    options = {"world_model": models[options.pop("world", "moves")], "device": "cpu"} | options
    return gym.make_vec(ID, n, encoder=models["encoder"], autoreset_mode=mode, **options)


@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
@pytest.mark.parametrize("world", ["moves", "pushes", "bare"])
def test_both_check_envs_pass(models: dict[str, str], world: str, layout: str) -> None:
    options = {"layout": layout, "mask_geometry": world != "bare", "horizon": 5}
    env = single(models, world, render_mode="rgb_array", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in ("unconventional shape", "infinity", "minimum value", "maximum value"):
            warnings.filterwarnings("ignore", message=f".*{text}")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")
        check_env(env.unwrapped)
        sb3_check_env(env)
    env.reset(seed=0)
    assert env.render().shape == (32, 32, 3)


@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
@pytest.mark.parametrize(
    ("world", "geometry"), [("moves", True), ("moves", False), ("bare", False)]
)
def test_spaces_are_those_of_the_real_environment(
    models: dict[str, str], layout: Any, world: str, geometry: bool
) -> None:
    env = single(models, world, layout=layout, mask_geometry=geometry)
    real = GenesisObs(
        gym.make("genesis_rl/ObjectGoal-v0"),
        models["encoder"],
        layout=layout,
        mask_geometry=geometry,
        device="cpu",
    )
    assert env.observation_space == real.observation_space
    assert env.action_space == real.action_space
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_a_policy_transfers_between_imagined_and_real(models: dict[str, str]) -> None:
    venv = VecMonitor(GymVecEnv(batched(models, 4, "SameStep", horizon=6)))
    policy = PPO("MlpPolicy", venv, n_steps=8, batch_size=16, n_epochs=1, device="cpu", seed=0)
    policy.learn(64)
    assert len(policy.ep_info_buffer or []) > 2
    real = GenesisObs(gym.make("genesis_rl/ObjectGoal-v0"), models["encoder"], device="cpu")
    check_for_correct_spaces(real, policy.observation_space, policy.action_space)
    observation, _ = real.reset(seed=0)
    action, _ = policy.predict(observation)
    real.step(action)
    # The slots of a real frame are a valid initial scene, and its observation.
    imagined = single(models)
    assert np.array_equal(imagined.reset(options={"slots": observation})[0], observation)
    assert imagined.reset(seed=0)[1]["from_prior"] is True


def check_same(batch: Any, singles: Any) -> None:
    """Compare results of resets and steps, including dtypes."""
    if isinstance(singles, dict):
        assert batch.keys() == singles.keys()
        for key in singles:
            check_same(batch[key], singles[key])
    elif isinstance(singles, tuple) or (singles is not None and singles.dtype == object):
        for a, b in zip(batch, singles, strict=True):
            check_same(a, b)
    elif singles is None:
        assert batch is None
    else:
        assert batch.dtype.kind == singles.dtype.kind
        np.testing.assert_allclose(batch, singles, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["set", "dict"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("world", ["moves", "pushes"])
def test_steps_equal_those_of_single_environments(
    models: dict[str, str], world: str, mode: str, layout: str
) -> None:
    n = 4
    batch = batched(models, n, mode, world=world, horizon=3, layout=layout)
    singles = gym.vector.SyncVectorEnv(
        [lambda: single(models, world, horizon=3, layout=layout)] * n,
        autoreset_mode=AutoresetMode(mode),
    )
    assert batch.single_observation_space == singles.single_observation_space
    assert batch.observation_space == singles.observation_space
    check_same(batch.reset(seed=4), singles.reset(seed=4))
    batch.action_space.seed(0)
    ended = np.zeros(2, int)
    for _ in range(15):
        actions = batch.action_space.sample()
        a, b = batch.step(actions), singles.step(actions)
        check_same(a, b)
        assert a[0]["z_m"].dtype == np.float32 if layout == "dict" else a[0].dtype == np.float32
        ended += a[2].sum(), a[3].sum()
        done = a[2] | a[3]
        if mode == "Disabled" and done.any():
            check_same(*(e.reset(options={"reset_mask": done}) for e in (batch, singles)))
    assert ended.min() >= 1
    check_same(batch.reset(seed=[1, None, 2, 3]), singles.reset(seed=[1, None, 2, 3]))


def test_equal_seeds_give_equal_rollouts(models: dict[str, str]) -> None:
    def rollout() -> list[Any]:
        env = single(models)
        observations = [env.reset(seed=11)[0]]
        for _ in range(20):
            observation, _, terminated, truncated, _ = env.step(2)
            observations.append(observation)
            if terminated or truncated:
                observations.append(env.reset()[0])
        return observations

    for a, b in zip(rollout(), rollout(), strict=True):
        assert np.array_equal(a, b)


def test_unseeded_environments_start_in_different_scenes(models: dict[str, str]) -> None:
    envs = batched(models, 3)
    first = envs.reset()[0]
    assert len(np.unique(first, axis=0)) == 3
    assert not np.array_equal(single(models).reset()[0], single(models).reset()[0])


def test_environments_are_rebuilt_from_their_specs(models: dict[str, str]) -> None:
    env = single(models, horizon=7, temperature=0.5, start="prior")
    json.loads(env.spec.to_json())
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert np.array_equal(env.reset(seed=3)[0], twin.reset(seed=3)[0])
    envs = batched(models, 3, horizon=7)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert np.array_equal(envs.reset(seed=3)[0], gym.make_vec(envs.spec).reset(seed=3)[0])


def test_scenes_are_rendered(models: dict[str, str]) -> None:
    envs = batched(models, 2, render_mode="rgb_array")
    envs.reset(seed=5)
    pictures = envs.render()
    env = single(models, render_mode="rgb_array")
    env.reset(seed=6)
    assert [picture.shape for picture in pictures] == [(32, 32, 3)] * 2
    assert np.abs(pictures[1].astype(int) - env.render()).max() <= 1
    assert not np.array_equal(*pictures)
    venv = GymVecEnv(batched(models, 2, "SameStep", render_mode="rgb_array"))
    venv.seed(5)
    venv.reset()
    picture = venv.render()
    assert picture is not None and picture.shape[-1] == 3


def test_stable_baselines_trains_on_dict_observations(models: dict[str, str]) -> None:
    venv = GymVecEnv(batched(models, 3, "SameStep", layout="dict", horizon=2))
    PPO("MultiInputPolicy", venv, n_steps=4, batch_size=6, n_epochs=1, device="cpu").learn(12)
    venv.seed(0)
    venv.reset()
    for _ in range(2):
        _, _, dones, infos = venv.step(np.zeros(3, int))
    last = [info["terminal_observation"] for info, done in zip(infos, dones, strict=True) if done]
    assert last
    assert all(venv.observation_space.contains(one) for one in last)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0}, ValueError, "temperature"),
        ({"horizon": 0}, ValueError, "horizon"),
        ({"render_mode": "human"}, ValueError, "render_mode"),
        ({"layout": "list"}, ValueError, "layout"),
        ({"world_model": "nowhere"}, ValueError, "nowhere"),
        ({"start": "data", "data": "nowhere"}, ValueError, "nowhere"),
        ({"horizons": 1}, TypeError, "horizons"),
        ({"world": "bare", "mask_geometry": True}, ValueError, "mask_geometry"),
        ({"n": 0}, ValueError, "num_envs"),
    ],
)
def test_invalid_options_raise(
    models: dict[str, str], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    n = options.pop("n", 2)
    with pytest.raises(error, match=message):
        batched(models, n, **options)


@pytest.mark.parametrize(
    ("world", "action"),
    [("moves", 4), ("moves", -1), ("moves", 0.5), ("moves", [0]), ("pushes", [0.0]), ("pushes", 1)],
)
def test_actions_of_other_spaces_raise(models: dict[str, str], world: str, action: Any) -> None:
    env = single(models, world).unwrapped
    with pytest.raises(RuntimeError, match="reset"):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions"):
        env.step(action)
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"scene": 1})


def test_an_action_of_nan_keeps_the_scene_finite(models: dict[str, str]) -> None:
    env = single(models, "pushes")
    before, _ = env.reset(seed=0)
    after, reward, terminated, truncated, info = env.unwrapped.step(np.full(2, np.nan))
    assert info["non_finite"] and truncated and not terminated and reward == 0
    assert np.array_equal(before, after)


def test_another_encoder_raises(models: dict[str, str], tmp_path: Path) -> None:
    encoder = SlotEncoder(models["encoder"], device="cpu")
    encoder.fingerprint = "0" * 64
    folder = make_world(tmp_path, encoder, MOVES, geometry=True)
    with pytest.raises(ValueError, match="encoder"):
        gym.make(ID, encoder=models["encoder"], world_model=folder, device="cpu")
