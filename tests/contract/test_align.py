"""Aligned observations: a shuffling encoder's slots keep their places within every episode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import Slots

MakeEnv = Callable[..., Any]
AssertSame = Callable[[Any, Any], None]
N = 3
OPTIONS: dict[str, Any] = {"align": True, "info_keys": ("frame", "masks")}


class Shuffling(Genesis):
    """Gives every frame's slots in an order of its own: another frame, another order."""

    def infer(
        self, x: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Slots:
        slots = super().infer(x, sample=sample, generator=generator)
        sums = (255 * x.double()).round().sum((1, 2, 3)).long().tolist()
        shuffles = [np.random.default_rng(key).permutation(slots.z_c.shape[1]) for key in sums]
        order = torch.as_tensor(np.stack(shuffles))
        rows = torch.arange(len(x))[:, None]
        return Slots(slots.z_m[rows, order], slots.z_c[rows, order], slots.log_pi[rows, order])


@pytest.fixture(scope="module")
def shuffling(tiny_genesis: Genesis) -> SlotEncoder:
    model = Shuffling(tiny_genesis.config)
    model.load_state_dict(tiny_genesis.state_dict())
    return SlotEncoder(model.eval(), device="cpu")


def place(slots: Any, among: Any) -> list[int]:
    """Where each of the slots is among others."""
    return [int(np.abs(among - slot).max(-1).argmin()) for slot in slots]


def play(env: Any, episodes: int = 4) -> list[list[tuple[Any, Any]]]:
    """Slots and infos of whole episodes, with the same actions whatever is seen."""
    rng = np.random.default_rng(0)
    given = []
    for seed in range(episodes):
        episode = [env.reset(seed=seed)]
        ended = False
        while not ended:
            slots, _, terminated, truncated, info = env.step(rng.integers(0, 4))
            episode.append((slots, info))
            ended = terminated or truncated
        given.append(episode)
    return given


@pytest.mark.parametrize("geometry", [False, True])
def test_shuffled_slots_come_back(
    pixel_env: MakeEnv, encoder: SlotEncoder, shuffling: SlotEncoder, geometry: bool
) -> None:
    options = {**OPTIONS, "mask_geometry": geometry}
    aligned, plain, raw = (
        play(GenesisObs(pixel_env(), one, **{**options, "align": align}))
        for one, align in ((shuffling, True), (encoder, True), (shuffling, False))
    )
    moved = 0
    for episode, want, shuffled in zip(aligned, plain, raw, strict=True):
        assert np.array_equal(episode[0][0], shuffled[0][0])  # the first frame's order stays
        order = place(episode[0][0], want[0][0])
        assert sorted(order) == [0, 1, 2]
        for (slots, info), (want_slots, want_info), (other, _) in zip(
            episode, want, shuffled, strict=True
        ):
            np.testing.assert_allclose(slots, want_slots[order], atol=1e-5)
            np.testing.assert_allclose(info["masks"], want_info["masks"][order], atol=1e-5)
            assert np.array_equal(info["frame"], want_info["frame"])
            moved += place(slots, other) != [0, 1, 2]
    assert moved > 5


@pytest.mark.parametrize("layout", ["flat", "dict"])
def test_every_layout_is_aligned(pixel_env: MakeEnv, shuffling: SlotEncoder, layout: Any) -> None:
    as_set = play(GenesisObs(pixel_env(), shuffling, align=True), 2)
    env: Any = GenesisObs(pixel_env(), shuffling, layout=layout, align=True)
    for episode, want in zip(play(env, 2), as_set, strict=True):
        for (slots, _), (want_slots, _) in zip(episode, want, strict=True):
            assert slots in env.observation_space
            if layout == "dict":
                slots = np.concatenate(list(slots.values()), axis=-1)
            assert np.array_equal(slots.reshape(want_slots.shape), want_slots)


def test_an_observation_out_of_sequence_changes_nothing(
    pixel_env: MakeEnv, shuffling: SlotEncoder
) -> None:
    env: Any = GenesisObs(pixel_env(), shuffling, align=True)
    want = play(env, 1)
    frame = np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8)
    env.reset(seed=0)
    env.observation(frame)
    rng = np.random.default_rng(0)
    for slots, _ in want[0][1:]:
        assert np.array_equal(env.step(rng.integers(0, 4))[0], slots)
        assert np.array_equal(env.observation(frame), shuffling.features(frame)[0])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_batched_equals_single_in_all_autoreset_modes(
    pixel_env: MakeEnv, shuffling: SlotEncoder, assert_same: AssertSame, mode: AutoresetMode
) -> None:
    def rollout(envs: Any) -> Any:
        given: list[Any] = [envs.reset(seed=5)]
        rng = np.random.default_rng(0)
        ends = 0
        for _ in range(30):
            *result, infos = envs.step(rng.integers(0, 4, N))
            given.append((*result, infos))
            done = result[2] | result[3]
            ends += done.sum()
            if mode == AutoresetMode.DISABLED and done.any():
                given.append(envs.reset(options={"reset_mask": done}))
        assert ends > N
        given.append(envs.reset(seed=6))  # in the middle of episodes
        return given

    def slots() -> Any:
        return GenesisObs(pixel_env(), shuffling, **OPTIONS)

    want = rollout(SyncVectorEnv([slots] * N, autoreset_mode=mode))
    inner = SyncVectorEnv([pixel_env] * N, autoreset_mode=mode)
    assert_same(rollout(GenesisVectorObs(inner, shuffling, **OPTIONS)), want)


def test_stable_baselines_equals_single(
    pixel_env: MakeEnv, shuffling: SlotEncoder, assert_same: AssertSame
) -> None:
    def rollout(venv: Any) -> Any:
        venv.seed(5)
        given: list[Any] = [(venv.reset(), list(venv.reset_infos))]
        rng = np.random.default_rng(0)
        for step in range(30):
            observations, _, dones, infos = venv.step(rng.integers(0, 4, N))
            given.append((observations, dones, list(infos), list(venv.reset_infos)))
            if step == 20:
                given.append((venv.reset(), list(venv.reset_infos)))
        return given

    def slots() -> Any:
        return GenesisObs(pixel_env(), shuffling, **OPTIONS)

    want = rollout(DummyVecEnv([slots] * N))
    got = rollout(VecGenesisObs(DummyVecEnv([pixel_env] * N), shuffling, **OPTIONS))
    assert_same(got, want)
    assert sum("terminal_observation" in info for step in got[1:] for info in step[-2]) > N


def test_align_wants_to_know_when_episodes_start(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    envs: Any = SyncVectorEnv([pixel_env] * 2)
    envs.metadata = {}
    GenesisVectorObs(envs, encoder, align=False)
    with pytest.raises(ValueError, match="autoreset_mode"):
        GenesisVectorObs(envs, encoder)
