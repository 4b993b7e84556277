"""The batched wrappers equal the single one: all autoreset modes, workers, episode ends."""

import functools
import multiprocessing
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
from genesis_rl.perception.encoder import SlotEncoder

MakeEnv = Callable[..., Any]
AssertSame = Callable[[Any, Any], None]
N = 3
FORKED = functools.partial(AsyncVectorEnv, context="fork")
Case = tuple[dict[str, Any], dict[str, Any]]


def rollout(envs: VectorEnv[Any, Any, Any], mode: AutoresetMode, steps: int = 50) -> Any:
    """Everything that a vector environment gives, episodes reset by mask where it does not."""
    given = [envs.reset(seed=5)]
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(steps):
        *result, infos = envs.step(rng.integers(0, 4, envs.num_envs))
        given.append((*result, infos))
        done = result[2] | result[3]
        ends += done.sum()
        if mode == AutoresetMode.DISABLED and done.any():
            given.append(envs.reset(options={"reset_mask": done}))
    envs.close()
    assert ends > envs.num_envs
    return given


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    ("case", "vectorise"),
    [
        *((name, SyncVectorEnv) for name in ("set", "flat", "dict", "kept")),
        *((name, FORKED) for name in ("set", "dict")),
    ],
    indirect=["case"],
)
def test_batched_equals_single(
    pixel_env: MakeEnv,
    encoder: SlotEncoder,
    assert_same: AssertSame,
    mode: AutoresetMode,
    case: Case,
    vectorise: Callable[..., Any],
) -> None:
    env_options, options = case
    pixels = functools.partial(pixel_env, **env_options)

    def slots() -> Any:
        return GenesisObs(pixels(), encoder, **options)

    want = rollout(SyncVectorEnv([slots] * N, autoreset_mode=mode), mode)
    envs: Any = GenesisVectorObs(vectorise([pixels] * N, autoreset_mode=mode), encoder, **options)
    assert envs.metadata["autoreset_mode"] == mode
    assert envs.single_observation_space == slots().observation_space
    assert envs.observation_space == batch_space(slots().observation_space, N)
    got = rollout(envs, mode)
    assert_same(got, want)
    for observation, *_ in got:
        assert envs.observation_space.contains(observation)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_workers_load_the_encoder_themselves(
    pixel_env: MakeEnv, encoder_path: str, assert_same: AssertSame, mode: AutoresetMode
) -> None:
    def slots() -> Any:
        return GenesisObs(pixel_env(), encoder_path, device="cpu")

    want = rollout(SyncVectorEnv([slots] * 2, autoreset_mode=mode), mode, 20)
    assert_same(rollout(FORKED([slots] * 2, autoreset_mode=mode), mode, 20), want)


@pytest.mark.smoke
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_object_goal(encoder: Any, assert_same: AssertSame, mode: AutoresetMode) -> None:
    def pixels() -> Any:
        return gym.make("genesis_rl/ObjectGoal-v0", max_episode_steps=12)

    def slots() -> Any:
        return GenesisObs(pixels(), encoder, layout="flat")

    want = rollout(SyncVectorEnv([slots] * 2, autoreset_mode=mode), mode)
    inner = SyncVectorEnv([pixels] * 2, autoreset_mode=mode)
    assert_same(rollout(GenesisVectorObs(inner, encoder, layout="flat"), mode), want)


def test_one_pass_serves_all_frames(
    pixel_env: MakeEnv, encoder: Any, count_passes: list[int]
) -> None:
    mode = AutoresetMode.SAME_STEP
    envs: Any = GenesisVectorObs(SyncVectorEnv([pixel_env] * N, autoreset_mode=mode), encoder)
    envs.reset(seed=5)
    assert count_passes == [N]
    for _ in range(10):
        count_passes.clear()
        *_, infos = envs.step(np.zeros(N, np.int64))
        ended = int(infos.get("_final_obs", np.zeros(N)).sum())
        assert count_passes == [N + ended]


def test_final_observations_hold_no_pixels(pixel_env: MakeEnv, encoder: Any, case: Case) -> None:
    env_options, options = case
    mode = AutoresetMode.SAME_STEP
    inner = SyncVectorEnv([lambda: pixel_env(**env_options)] * N, autoreset_mode=mode)
    envs: Any = GenesisVectorObs(inner, encoder, **options)
    seen = 0
    for *_, infos in rollout(envs, mode)[1:]:
        ended = infos.get("_final_obs", np.zeros(N, np.bool_))
        for i in range(N):
            if ended[i]:
                assert envs.single_observation_space.contains(infos["final_obs"][i])
                seen += 1
            elif "final_obs" in infos:
                assert infos["final_obs"][i] is None
    assert seen > N


class NativeEnv(VectorEnv[Any, Any, Any]):
    """A vector environment of its own, as AtariVectorEnv: grey stacks, batched final_obs."""

    def __init__(self, with_mask: bool) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.with_mask = 2, with_mask
        self.single_observation_space = spaces.Box(0, 255, (4, 84, 80), np.uint8)
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.single_action_space = spaces.Discrete(2)
        self.action_space = batch_space(self.single_action_space, 2)

    def frames(self, seed: int) -> Any:
        return np.random.default_rng(seed).integers(0, 256, (2, 4, 84, 80), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.frames(0), {}

    def step(self, actions: Any) -> Any:
        ended = np.array([False, True])
        infos = {"final_obs": self.frames(2)} | ({"_final_obs": ended} if self.with_mask else {})
        return self.frames(1), np.zeros(2), ended, np.zeros(2, np.bool_), infos


@pytest.mark.smoke
@pytest.mark.parametrize("with_mask", [False, True])
def test_native_vector_environments(encoder: Any, with_mask: bool) -> None:
    inner = NativeEnv(with_mask)
    envs: Any = GenesisVectorObs(inner, encoder, image_layout="SHW", align=False)
    observation, *_, infos = envs.step(np.zeros(2, np.int64))
    want = encoder.features(inner.frames(1)[:, -1], layout="HW")
    np.testing.assert_allclose(observation, want, atol=1e-6)
    final = encoder.features(inner.frames(2)[:, -1], layout="HW")
    assert infos["final_obs"][0] is None
    np.testing.assert_allclose(infos["final_obs"][1], final[1], atol=1e-6)


def test_bad_vector_environments(
    pixel_env: MakeEnv, state_env: MakeEnv, encoder: SlotEncoder
) -> None:
    with pytest.raises(TypeError, match="env must have a single_observation_space"):
        GenesisVectorObs(pixel_env(), encoder)
    with pytest.raises(ValueError, match="AddRenderObservation"):
        GenesisVectorObs(SyncVectorEnv([state_env]), encoder)
    with pytest.raises(ValueError, match="image_layout"):
        GenesisVectorObs(NativeEnv(True), encoder)


def test_stock_wrappers_go_around(pixel_env: MakeEnv, encoder: Any) -> None:
    envs: Any = GenesisVectorObs(SyncVectorEnv([pixel_env] * N), encoder, layout="flat")
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs = gym.wrappers.vector.NormalizeObservation(envs)
    observation, _ = envs.reset(seed=0)
    assert observation.shape == (N, 36)
    for _ in range(10):
        envs.step(envs.action_space.sample())


def test_an_encoder_survives_a_fork(
    encoder: Any, pixel_env: MakeEnv, assert_same: AssertSame
) -> None:
    """OpenMP's threads do not: a forked worker that used them would hang."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        frames = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), np.uint8)
        big = SlotEncoder(encoder.source, device="cpu")
        want = big.features(frames)
        context = multiprocessing.get_context("fork")
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=lambda: send.send(big.features(frames)), daemon=True)
        child.start()
        try:
            assert receive.poll(60), "the forked worker hangs"
            np.testing.assert_allclose(receive.recv(), want, atol=1e-5)
        finally:
            child.kill()
            child.join()
    finally:
        torch.set_num_threads(threads)


def test_a_vector_environment_without_a_single_space(encoder: SlotEncoder) -> None:
    envs: VectorEnv[Any, Any, Any] = VectorEnv()  # as SuperSuit's
    envs.num_envs, envs.observation_space = 2, spaces.Box(0, 255, (24, 40, 3), np.uint8)
    with pytest.raises(TypeError, match=r"env must have a single_observation_space.*SuperSuit"):
        GenesisVectorObs(envs, encoder)
