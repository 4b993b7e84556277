"""VecGenesisObs: equal to GenesisObs in every environment, and the API of Stable-Baselines3."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.wrappers.obs import GenesisObs
from genesis_rl.perception.encoder import SlotEncoder

MakeEnv = Callable[..., Any]
AssertSame = Callable[[Any, Any], None]
N = 3
FORKED = functools.partial(SubprocVecEnv, start_method="fork")
Case = tuple[dict[str, Any], dict[str, Any]]


def rollout(venv: VecEnv, steps: int = 50) -> Any:
    venv.seed(5)
    given: list[Any] = [(venv.reset(), list(venv.reset_infos))]
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(steps):
        observations, rewards, dones, infos = venv.step(rng.integers(0, 4, venv.num_envs))
        ends += dones.sum()
        rewards = rewards.astype(np.float32)  # SubprocVecEnv returns float64
        given.append((observations, rewards, dones, list(infos), list(venv.reset_infos)))
    venv.close()
    assert ends > N
    return given


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("case", "vectorise"),
    [
        *((name, DummyVecEnv) for name in ("set", "flat", "dict", "kept")),
        *((name, FORKED) for name in ("set", "dict")),
    ],
    indirect=["case"],
)
def test_batched_equals_single(
    pixel_env: MakeEnv,
    encoder: SlotEncoder,
    assert_same: AssertSame,
    case: Case,
    vectorise: Callable[..., Any],
) -> None:
    env_options, options = case
    pixels = functools.partial(pixel_env, **env_options)

    def slots() -> Any:
        return GenesisObs(pixels(), encoder, **options)

    want = rollout(DummyVecEnv([slots] * N))
    venv: Any = VecGenesisObs(vectorise([pixels] * N), encoder, **options)
    assert venv.observation_space == slots().observation_space
    got = rollout(venv)
    assert_same(got, want)
    terminal = [
        info["terminal_observation"]
        for step in got[1:]
        for info in step[3]
        if "terminal_observation" in info
    ]
    assert len(terminal) > N
    assert all(venv.observation_space.contains(observation) for observation in terminal)


def test_workers_load_the_encoder_themselves(
    pixel_env: MakeEnv, encoder_path: str, assert_same: AssertSame
) -> None:
    def slots() -> Any:
        return GenesisObs(pixel_env(), encoder_path, device="cpu")

    want = rollout(DummyVecEnv([slots] * 2), 20)
    assert_same(rollout(FORKED([slots] * 2), 20), want)


def test_one_batch_of_all_frames(pixel_env: MakeEnv, encoder: Any, count_passes: list[int]) -> None:
    venv: Any = VecGenesisObs(DummyVecEnv([pixel_env] * N), encoder)
    venv.reset()
    assert count_passes == [N]
    for _ in range(10):
        count_passes.clear()
        _, _, dones, _ = venv.step(np.zeros(N, np.int64))
        assert count_passes == [N + dones.sum()]


def test_rendering_is_that_of_the_environments(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    venv: Any = VecGenesisObs(DummyVecEnv([lambda: pixel_env("rgb_array")] * 2), encoder)
    venv.reset()
    assert [image.shape for image in venv.get_images()] == [(24, 40, 3)] * 2


def test_bad_vector_environments(
    pixel_env: MakeEnv, state_env: MakeEnv, encoder: SlotEncoder
) -> None:
    with pytest.raises(TypeError, match="venv"):
        VecGenesisObs(pixel_env(), encoder)
    with pytest.raises(ValueError, match="AddRenderObservation"):
        VecGenesisObs(DummyVecEnv([state_env]), encoder)
    stacked = VecFrameStack(DummyVecEnv([lambda: pixel_env(channels=1)]), 4)
    with pytest.raises(ValueError, match='image_layout="HWS"'):
        VecGenesisObs(stacked, encoder)


def test_an_inner_frame_stack(pixel_env: MakeEnv, encoder: Any, assert_same: AssertSame) -> None:
    def pixels() -> Any:
        return pixel_env(channels=1)

    want = rollout(VecGenesisObs(DummyVecEnv([pixels] * N), encoder))
    stacked = VecFrameStack(DummyVecEnv([pixels] * N), 4)
    assert_same(rollout(VecGenesisObs(stacked, encoder, image_layout="HWS")), want)


def test_outer_frame_stack_and_normalisation(pixel_env: MakeEnv, encoder: Any) -> None:
    venv: Any = VecGenesisObs(VecMonitor(DummyVecEnv([pixel_env] * N)), encoder, layout="flat")
    before = venv.observation_space
    venv = VecNormalize(VecFrameStack(venv, 2))
    venv.reset()
    for _ in range(20):
        observations, *_ = venv.step(np.zeros(N, np.int64))
    assert observations.shape == (N, 72)
    assert before == spaces.Box(-np.inf, np.inf, (36,), np.float32)


@pytest.mark.smoke
def test_ppo_does_not_train_the_encoder(pixel_env: MakeEnv, encoder_path: str, case: Case) -> None:
    env_options, options = case
    encoder: Any = SlotEncoder(encoder_path, device="cpu")
    weights = {name: value.clone() for name, value in encoder._model.state_dict().items()}
    venv: Any = DummyVecEnv([lambda: pixel_env(**env_options)] * 2)
    venv = VecGenesisObs(venv, encoder, **options)
    policy = "MultiInputPolicy" if isinstance(venv.observation_space, spaces.Dict) else "MlpPolicy"
    PPO(policy, venv, n_steps=32, batch_size=32, n_epochs=2, device="cpu").learn(64)
    for name, value in encoder._model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert not any(p.requires_grad or p.grad is not None for p in encoder._model.parameters())
    assert not encoder._model.training


def test_replay_buffers_store_terminal_slots(pixel_env: MakeEnv, encoder: Any) -> None:
    venv: Any = VecGenesisObs(DummyVecEnv([pixel_env]), encoder)
    agent: Any = DQN("MlpPolicy", venv, buffer_size=64, learning_starts=8, device="cpu").learn(32)
    assert agent.replay_buffer.next_observations.shape == (64, 1, 3, 12)


class ForeignWrapper(VecEnvWrapper):
    """SuperSuit's: around a vector environment of another kind, with its own infos of resets."""

    def __init__(self, venv: VecEnv) -> None:
        self.inner = venv
        self.venv: Any = SimpleNamespace(unwrapped=object())
        self.num_envs, self.render_mode = venv.num_envs, None
        self.observation_space, self.action_space = venv.observation_space, venv.action_space
        self.reset_infos = []

    def getattr_recursive(self, name: str) -> Any:
        raise AttributeError(name)

    def getattr_depth_check(self, name: str, already_found: bool) -> None:
        return None

    def get_attr(self, attr_name: str, indices: Any = None) -> Any:
        return self.inner.get_attr(attr_name)

    def reset(self) -> Any:
        observations = self.inner.reset()
        self.reset_infos = [{"env": i} for i in range(self.num_envs)]
        return observations

    def step_async(self, actions: Any) -> None:
        self.inner.step_async(actions)

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.inner.step_wait()
        return observations, rewards, dones.astype(np.uint8), infos


def test_a_vector_environment_of_another_kind(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    foreign = VecMonitor(ForeignWrapper(DummyVecEnv([pixel_env] * N)))
    venv: Any = VecGenesisObs(foreign, encoder, info_keys=("frame",))
    venv.reset()
    ends = 0
    for _ in range(10):
        assert [info["env"] for info in venv.reset_infos] == list(range(N))
        assert all(info["frame"].ndim == 3 for info in venv.reset_infos)
        dones = venv.step([0] * N)[2]
        assert dones.dtype == np.bool_
        ends += dones.sum()
    assert ends
