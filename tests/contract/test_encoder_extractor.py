"""EncoderExtractor: pretrained, trained with the policy, saved with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from genesis_rl.agents.extractors import (
    DeepSetsExtractor,
    EncoderExtractor,
    FlatSlotsExtractor,
)
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder

MakeEnv = Callable[..., Any]
SIZE = 32


def frames(pixel_env: MakeEnv, **options: Any) -> VecEnv:
    return DummyVecEnv([lambda: pixel_env(size=(SIZE, SIZE), **options)] * 2)


def make_ppo(venv: VecEnv, encoder: Any, **options: Any) -> PPO:
    return PPO(
        "CnnPolicy",
        venv,
        n_steps=16,
        batch_size=16,
        n_epochs=2,
        device="cpu",
        seed=0,
        policy_kwargs={
            "features_extractor_class": EncoderExtractor,
            "features_extractor_kwargs": {"encoder": encoder, **options},
            "net_arch": [],
        },
    )


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("values", ["uint8", "unit", "byte"])
def test_slots_equal_those_of_the_frozen_encoder(
    pixel_env: MakeEnv, encoder: SlotEncoder, encoder_path: str, layout: Any, values: str
) -> None:
    venv = frames(pixel_env, layout=layout, values=values)
    options = {"pool": FlatSlotsExtractor, "mask_geometry": True}
    policy: Any = make_ppo(venv, encoder_path, **options).policy
    observations: Any = venv.reset()
    want = encoder.features(
        observations, layout=layout, mask_geometry=True, white=1 if values == "unit" else 255
    )
    got = policy.extract_features(policy.obs_to_tensor(observations)[0])
    np.testing.assert_allclose(got.detach(), want.reshape(2, -1), atol=1e-4)


def test_the_policys_initialisation_keeps_the_pretrained_weights(
    pixel_env: MakeEnv, tiny_genesis: Genesis
) -> None:
    extractor: Any = make_ppo(frames(pixel_env), tiny_genesis).policy.features_extractor
    assert extractor.encoder is not tiny_genesis
    for name, value in extractor.encoder.state_dict().items():
        assert torch.equal(value, tiny_genesis.state_dict()[name]), name
    # The pool has the policy's orthogonal initialisation.
    weight = extractor.pool.blocks[0].query.weight
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(64), atol=1e-4, rtol=0)


def test_rewards_train_the_encoder(pixel_env: MakeEnv, tiny_genesis: Genesis) -> None:
    agent = make_ppo(frames(pixel_env), tiny_genesis, pool=DeepSetsExtractor)
    policy: Any = agent.policy
    observations = torch.as_tensor(agent.env.reset()) if agent.env else torch.empty(0)
    actions = torch.zeros(2)
    # Rollouts and updates have equal slots: no dropout, batch norm with fixed statistics.
    policy.set_training_mode(True)
    learning = policy.evaluate_actions(observations, actions)[1]
    policy.set_training_mode(False)
    assert torch.equal(policy.evaluate_actions(observations, actions)[1], learning)
    agent.learn(32)
    before = tiny_genesis.state_dict()
    changed = {
        name
        for name, value in policy.features_extractor.encoder.state_dict().items()
        if not torch.equal(value, before[name])
    }
    trained = {name for name, _ in tiny_genesis.named_parameters()}
    assert changed <= trained  # no buffer
    assert len(changed) > len(trained) / 3
    assert any("encoder" in name for name in changed)


def test_the_scale_is_fitted_to_the_slots(pixel_env: MakeEnv, tiny_genesis: Genesis) -> None:
    policy: Any = make_ppo(frames(pixel_env), tiny_genesis).policy
    extractor = policy.features_extractor
    batch = torch.rand(8, 3, SIZE, SIZE)
    extractor.fit_scale(batch)
    slots = extractor.scale(extractor.slots(batch)).detach().flatten(0, 1)
    torch.testing.assert_close(slots.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    assert slots.std(0).max() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("source", ["folder", "memory"])
def test_it_is_saved_with_the_policy(
    pixel_env: MakeEnv, tiny_genesis: Genesis, encoder_path: str, source: str, tmp_path: Path
) -> None:
    agent = make_ppo(frames(pixel_env), encoder_path if source == "folder" else tiny_genesis)
    agent.learn(32)
    agent.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", device="cpu")
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], value), name
    observation: Any = frames(pixel_env).reset()
    assert np.array_equal(
        agent.predict(observation, deterministic=True)[0],
        loaded.predict(observation, deterministic=True)[0],
    )


def box(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (box(24, 40, 3), r"observation_space .* 32 x 32.*ResizeObservation\(env, \(32, 32"),
        (box(32, 32, 1), "32 x 32"),
        (box(32, 32), "observation_space"),
        (spaces.Dict(image=box(32, 32, 3)), "observation_space"),
        (spaces.Box(-1, 1, (5,)), r"^the observation "),
    ],
)
def test_other_observations_are_refused(
    space: spaces.Space[Any], message: str, tiny_genesis: Genesis
) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderExtractor(space, tiny_genesis)


def test_invalid_encoders(tmp_path: Path) -> None:
    wrong: Any = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="encoder"):
        EncoderExtractor(box(32, 32, 3), wrong)
    with pytest.raises(ValueError, match="nowhere"):
        EncoderExtractor(box(32, 32, 3), tmp_path / "nowhere")
