"""What others made takes slots: stacks, normalisation, evaluation, other algorithms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformAction
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from genesis_rl.agents.extractors import EXTRACTORS, SlotExtractor, SlotSetExtractor
from genesis_rl.agents.stack import SlotEvalCallback, check_same_stack
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.wrappers.obs import GenesisObs
from genesis_rl.perception.encoder import SlotEncoder

MakeEnv = Callable[..., Any]
N, K, D, T = 2, 3, 12, 4
PPO_SIZES: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu"}


def slots(pixel_env: MakeEnv, encoder: SlotEncoder, **options: Any) -> VecEnv:
    return VecGenesisObs(VecMonitor(DummyVecEnv([pixel_env] * N)), encoder, **options)


def network(name: str) -> dict[str, Any]:
    return {"features_extractor_class": EXTRACTORS[name], "net_arch": []}


def test_both_frame_stacks_tell_each_slots_past(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    def single() -> Any:
        env = GenesisObs(pixel_env(), encoder, align=True)
        return FrameStackObservation(env, T, padding_type="zero")

    around: Any = VecFrameStack(slots(pixel_env, encoder, align=True), T)
    inside: Any = DummyVecEnv([single] * N)
    assert around.observation_space.shape == (K, T * D)
    assert inside.observation_space.shape == (T, K, D)
    around.seed(5)
    inside.seed(5)
    flat: Any = EXTRACTORS["mlp"]
    a, b = flat(around.observation_space), flat(inside.observation_space)
    got, want = around.reset(), inside.reset()
    ends = 0
    for _ in range(20):
        # The oldest first; before the episode began there are zeros.
        np.testing.assert_allclose(a(torch.as_tensor(got)), b(torch.as_tensor(want)), atol=1e-5)
        np.testing.assert_allclose(got[:, :, -D:], want[:, -1], atol=1e-5)
        got, _, dones, infos = around.step(np.zeros(N, np.int64))
        want, *_ = inside.step(np.zeros(N, np.int64))
        for info in np.array(infos)[dones]:
            assert info["terminal_observation"].shape == (K, T * D)
            ends += 1
    assert ends > N


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("inside", [False, True], ids=["VecFrameStack", "FrameStackObservation"])
def test_every_extractor_learns_on_stacks(
    pixel_env: MakeEnv, encoder: SlotEncoder, name: str, inside: bool
) -> None:
    def single() -> Any:
        return FrameStackObservation(GenesisObs(pixel_env(), encoder, align=True), T)

    venv: Any = DummyVecEnv([single] * N)
    if not inside:
        venv = VecFrameStack(slots(pixel_env, encoder, align=True), T)
    agent: Any = PPO("MlpPolicy", venv, policy_kwargs=network(name), **PPO_SIZES)
    extractor: SlotExtractor = agent.policy.features_extractor
    extractor.fit_scale(torch.as_tensor(venv.reset()))
    before = {key: value.clone() for key, value in agent.policy.named_parameters()}
    agent.learn(32)
    changed = [
        key for key, value in agent.policy.named_parameters() if (value != before[key]).any()
    ]
    assert len(changed) == len(before)


def test_recurrent_policies(pixel_env: MakeEnv, encoder: SlotEncoder, tmp_path: Path) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    venv = slots(pixel_env, encoder, align=True)
    kwargs = {**network("deep_sets"), "lstm_hidden_size": 16}
    agent = contrib.RecurrentPPO("MlpLstmPolicy", venv, policy_kwargs=kwargs, **PPO_SIZES)
    agent.learn(32)
    assert agent.policy.lstm_actor.input_size == 64
    agent.save(tmp_path / "agent")
    loaded = contrib.RecurrentPPO.load(tmp_path / "agent", device="cpu")
    observation = venv.reset()
    starts = np.ones(N, np.bool_)
    a, b = (
        one.predict(observation, episode_start=starts, deterministic=True)[0]
        for one in (agent, loaded)
    )
    assert np.array_equal(a, b)


def test_sac_on_box_actions(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    def make() -> Any:
        box = spaces.Box(-1, 1, (2,), np.float32)
        directions = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
        return TransformAction(pixel_env(), lambda a: int((directions @ a).argmax()), box)

    venv = VecGenesisObs(DummyVecEnv([make] * N), encoder)
    agent: Any = SAC(
        "MlpPolicy",
        venv,
        buffer_size=64,
        learning_starts=8,
        batch_size=8,
        policy_kwargs={"features_extractor_class": SlotSetExtractor, "net_arch": [16]},
        device="cpu",
        seed=0,
    )
    extractors = [
        part.features_extractor for part in (agent.actor, agent.critic, agent.critic_target)
    ]
    for extractor in extractors:
        extractor.fit_scale(torch.as_tensor(venv.reset()))
    assert len({id(extractor) for extractor in extractors}) == 3
    before = agent.actor.features_extractor.embed.weight.clone()
    agent.learn(24)
    assert not torch.equal(agent.actor.features_extractor.embed.weight, before)
    buffer = agent.replay_buffer
    assert buffer.observations.shape == buffer.next_observations.shape == (32, N, K, D)
    assert buffer.observations.dtype == np.float32


def test_rewards_are_normalised_and_slots_left_alone(
    pixel_env: MakeEnv, encoder: SlotEncoder
) -> None:
    plain: Any = slots(pixel_env, encoder)
    venv: Any = VecNormalize(slots(pixel_env, encoder), norm_obs=False)
    for one in (plain, venv):
        one.seed(5)
    assert np.array_equal(plain.reset(), venv.reset())
    for _ in range(8):
        want, got = (one.step(np.full(N, 3)) for one in (plain, venv))
        assert np.array_equal(got[0], want[0])
    assert not np.allclose(got[1], want[1])
    np.testing.assert_allclose(venv.get_original_reward(), want[1])


def test_normalised_slots_are_synchronised_for_evaluation(
    pixel_env: MakeEnv, encoder: SlotEncoder, tmp_path: Path
) -> None:
    train = VecNormalize(VecFrameStack(slots(pixel_env, encoder, align=True), 2))
    evaluation = VecNormalize(
        VecFrameStack(slots(pixel_env, encoder, align=True), 2), training=False, norm_reward=False
    )
    agent = PPO("MlpPolicy", train, policy_kwargs=network("mlp"), **PPO_SIZES)
    callback = SlotEvalCallback(
        evaluation, eval_freq=16, n_eval_episodes=2, log_path=str(tmp_path), verbose=0
    )
    agent.learn(32, callback=callback)
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) == 1
    # The evaluation came with the last step, and its own observations count for nothing.
    ours: Any = train.obs_rms
    theirs: Any = evaluation.obs_rms
    assert theirs is not ours
    assert theirs.mean.shape == (K, 2 * D)
    assert np.abs(theirs.mean).max() > 0.01
    assert np.array_equal(theirs.mean, ours.mean)
    assert theirs.count == ours.count


def test_evaluation_through_another_stack_is_refused(
    pixel_env: MakeEnv, encoder: SlotEncoder
) -> None:
    def normalised(venv: VecEnv, **options: Any) -> VecEnv:
        return VecNormalize(venv, **{"training": False, "norm_reward": False, **options})

    def stack(**options: Any) -> VecEnv:
        return slots(pixel_env, encoder, **options)

    train = normalised(VecFrameStack(stack(), 2), training=True, norm_reward=True)
    good = normalised(VecFrameStack(VecMonitor(stack(info_keys=("masks",))), 2))
    check_same_stack(train, good)
    wrong = {
        r"^the wrappers .* \['VecFrame": VecFrameStack(stack(), 2),
        r"^the wrappers ": VecFrameStack(normalised(stack()), 2),
        r"^the observations ": normalised(VecFrameStack(stack(mask_geometry=False), 2)),
        r"^the align ": normalised(VecFrameStack(stack(align=False), 2)),
        r"^the clip_obs ": normalised(VecFrameStack(stack(), 2), clip_obs=5.0),
        r"^VecNormalize ": normalised(VecFrameStack(stack(), 2), training=True),
    }
    for message, evaluation in wrong.items():
        with pytest.raises(ValueError, match=message):
            check_same_stack(train, evaluation)
    agent = PPO("MlpPolicy", train, **PPO_SIZES)
    other: Any = normalised(VecFrameStack(stack(align=False), 2))
    with pytest.raises(ValueError, match=r"^the align "):
        agent.learn(32, callback=SlotEvalCallback(other))
    assert agent.num_timesteps == 0


class KeepEnv(gym.Env[Any, Any]):
    """A frame and one more entry."""

    action_space = spaces.Discrete(2)

    def __init__(self, extra: spaces.Space[Any]) -> None:
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (32, 32, 3), np.uint8), "extra": extra}
        )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (spaces.Text(9), r"^keep .*'extra': Text"),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), r"^keep .* 'extra'"),
        (spaces.Box(0, 255, (3, 35, 64), np.uint8), r"^keep "),
        (spaces.Box(0, 255, (36, 64, 3), np.uint8), None),
        (spaces.Box(0, 255, (7, 7, 3), np.float32), None),
        (spaces.MultiBinary(4), None),
    ],
)
def test_kept_entries_are_ones_that_policies_take(
    extra: spaces.Space[Any], message: str | None, encoder: SlotEncoder
) -> None:
    class Frames(DummyVecEnv):
        """Without buffers, which cannot be had for every space."""

        def __init__(self) -> None:
            env = KeepEnv(extra)
            VecEnv.__init__(self, 1, env.observation_space, env.action_space)

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None]

    if message is None:
        VecGenesisObs(Frames(), encoder, keep=["extra"])
        return
    with pytest.raises(ValueError, match=message):
        VecGenesisObs(Frames(), encoder, keep=["extra"])
