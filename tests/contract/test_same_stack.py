"""check_same_stack, with slot wrappers around vector and single environments."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor

from genesis_rl.agents.observations import VecFrames
from genesis_rl.agents.stack import check_same_stack
from genesis_rl.agents.vec_obs import GymVecEnv
from genesis_rl.checkpoints.loading import load_pretrained, save_pretrained
from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing

MakeEnv = Callable[..., Any]
FORKED = functools.partial(SubprocVecEnv, start_method="fork")


@pytest.fixture(scope="module")
def other(encoder_path: str, tmp_path_factory: pytest.TempPathFactory) -> SlotEncoder:
    """An encoder with the same spaces and other weights."""
    model: Any = load_pretrained(encoder_path, device="cpu").model
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    folder: Path = tmp_path_factory.mktemp("models") / "other"
    save_pretrained(model, folder)
    return SlotEncoder(folder, device="cpu")


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


CHANGES: dict[str, dict[str, Any]] = {
    "encoder": {"encoder": "other"},
    "align": {"align": False},
    "refine_steps": {"encoder": "refined"},
    "preprocessing": {"encoder": "cropped"},
}


@pytest.fixture
def encoders(encoder: SlotEncoder, encoder_path: str, other: SlotEncoder) -> dict[str, SlotEncoder]:
    with pytest.warns(UserWarning, match="preprocessing"):
        cropped = SlotEncoder(encoder_path, device="cpu", preprocessing="crop")
    refined = SlotEncoder(encoder_path, device="cpu", refine_steps=1)
    return {"same": encoder, "other": other, "refined": refined, "cropped": cropped}


def inside(vectorise: Callable[..., VecEnv]) -> Callable[..., VecEnv]:
    """GenesisObs around each environment, with a wrapper around it."""

    def make(pixel_env: MakeEnv, encoder: SlotEncoder, **options: Any) -> VecEnv:
        return VecMonitor(
            vectorise([lambda: Monitor(GenesisObs(pixel_env(), encoder, **options))] * 2)
        )

    return make


def batched(pixel_env: MakeEnv, encoder: SlotEncoder, **options: Any) -> VecEnv:
    """GenesisVectorObs around Gymnasium's vector environment."""
    envs = SyncVectorEnv([pixel_env] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    return GymVecEnv(GenesisVectorObs(envs, encoder, **options))


def single(pixel_env: MakeEnv, encoder: SlotEncoder, **options: Any) -> VecEnv:
    """GenesisObs inside Gymnasium's vector environment."""
    makers = [lambda: GenesisObs(pixel_env(), encoder, **options)] * 2
    return GymVecEnv(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "make",
    [inside(DummyVecEnv), inside(FORKED), batched, single],
    ids=["DummyVecEnv", "SubprocVecEnv", "GenesisVectorObs", "SyncVectorEnv"],
)
def test_slot_wrappers_are_compared_wherever_they_are(
    make: Callable[..., VecEnv],
    change: str,
    pixel_env: MakeEnv,
    encoders: dict[str, SlotEncoder],
    closing: ExitStack,
) -> None:
    def made(encoder: str = "same", **options: Any) -> VecEnv:
        venv = make(pixel_env, encoders[encoder], **options)
        closing.callback(venv.close)
        return venv

    training = made()
    check_same_stack(training, made(info_keys=("masks",)))
    with pytest.raises(ValueError, match=rf"^the {change} "):
        check_same_stack(training, made(**CHANGES[change]))


def test_slots_in_one_of_them_only(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    class Slots(gym.ObservationWrapper[Any, Any, Any]):
        """Observations in the space of GenesisObs, by another wrapper."""

        def __init__(self) -> None:
            super().__init__(pixel_env())
            self.observation_space = GenesisObs(pixel_env(), encoder).observation_space

        def observation(self, observation: Any) -> Any:
            return np.zeros(self.observation_space.shape or (), np.float32)

    slots, zeros = DummyVecEnv([lambda: GenesisObs(pixel_env(), encoder)]), DummyVecEnv([Slots])
    check_same_stack(zeros, zeros)
    for pair in ((slots, zeros), (zeros, slots)):
        with pytest.raises(ValueError, match=r"^the encoder "):
            check_same_stack(*pair)


def test_environments_that_differ_among_each_other(
    pixel_env: MakeEnv, encoder: SlotEncoder, other: SlotEncoder
) -> None:
    def mixed(*encoders: SlotEncoder) -> VecEnv:
        return DummyVecEnv(
            [functools.partial(lambda one: GenesisObs(pixel_env(), one), one) for one in encoders]
        )

    check_same_stack(mixed(encoder, encoder, encoder), mixed(encoder))
    with pytest.raises(ValueError, match=r"^the (slots|encoder) "):
        check_same_stack(mixed(encoder), mixed(encoder, other))


def test_frames_of_another_resize(pixel_env: MakeEnv) -> None:
    def made(resize: Any) -> VecEnv:
        venv = DummyVecEnv([pixel_env])
        return VecFrames(venv, size=32, preprocessing=Preprocessing(resize))

    check_same_stack(made("crop"), made("crop"))
    with pytest.raises(ValueError, match=r"^the preprocessing "):
        check_same_stack(made("crop"), made("letterbox"))


def test_the_wrapped_environments_metadata_stay_as_they_are(
    pixel_env: MakeEnv, encoder: SlotEncoder
) -> None:
    env = pixel_env()
    before = dict(env.metadata)
    wrapped = GenesisObs(env, encoder)
    assert env.metadata == before
    assert {**wrapped.metadata, **before} == wrapped.metadata
    assert wrapped.metadata["render_fps"] == 10
