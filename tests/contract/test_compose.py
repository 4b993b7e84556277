"""genesis_rl/Compose-v0: scene composition, rewards, and errors."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.envs.compose import ComposedScene, ComposeEnv
from genesis_rl.evaluation.probes.heads import Head
from genesis_rl.evaluation.probes.saved import SceneProbe, SceneProbeConfig
from genesis_rl.models import GenesisV2, GenesisV2Config, Monet, MonetConfig
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import Noise

ID = "genesis_rl/Compose-v0"
K, D_M, D_C, M = 3, 7, 2, 4


def redness(scene: ComposedScene, scale: float = 1.0) -> float:
    """A reward as a user would write it."""
    return scale * float(scene.image[0].mean())


def nothing(scene: ComposedScene) -> float:
    return math.nan


@pytest.fixture
def env(encoder: SlotEncoder) -> ComposeEnv:
    return ComposeEnv(encoder, redness, candidates=M, render_mode="rgb_array")


def play(env: Any, actions: list[Any], seed: int | None = 0) -> list[Any]:
    """What reset and all steps of an episode return."""
    steps: list[Any] = [env.reset(seed=seed)]
    steps += [env.step(action) for action in actions]
    return steps


OPTIONS: list[dict[str, Any]] = [
    {"candidates": M},
    {"control": "steer", "bound": 2.0},
    {"candidates": 2, "image": True, "temperature": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["choose", "steer", "image"])
def test_environment_checkers_pass(encoder_path: str, options: dict[str, Any]) -> None:
    made: dict[str, Any] = {
        "encoder": encoder_path,
        "reward": "objects",
        "device": "cpu",
        **options,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Latents have no bounds and two axes, noise is in its own unit, test images are small.
        advice = "infinity|unconventional shape|symmetric and normalized|minimal resolution"
        warnings.filterwarnings("ignore", f"(?s).*({advice}).*")
        env: Any = gym.make(ID, disable_env_checker=True, render_mode="rgb_array", **made)
        check_env(env.unwrapped)
        sb3_check_env(gym.make(ID, **made))
        again: Any = gym.make(env.spec)
    assert again.observation_space == env.observation_space


def test_an_episode_composes_what_was_chosen(env: ComposeEnv) -> None:
    observation, info = env.reset(seed=3)
    assert info == {"log_p": 0.0, "log_p_step": 0.0}
    assert not observation["slots"].any() and not observation["placed"].any()
    chosen, total = [], 0.0
    for k in range(K):
        assert observation["candidates"].shape == (M, D_M + D_C)
        chosen.append(observation["candidates"][k])
        observation, reward, terminated, truncated, info = env.step(k)
        total += info["log_p_step"]
        assert info["log_p"] == pytest.approx(total)
        np.testing.assert_array_equal(observation["slots"][: k + 1], chosen)
        assert observation["placed"].tolist() == [1.0] * (k + 1) + [0.0] * (K - k - 1)
        assert terminated == (k == K - 1) and not truncated
        assert (reward > 0) == terminated
    assert not observation["candidates"].any()
    # The scene is the model's own decoding, and its likelihood that which training scores with.
    slots = torch.from_numpy(np.stack(chosen))[None]
    image = env.encoder.decode(slots).image[0].clamp(0, 1)
    assert reward == pytest.approx(float(image[0].mean()))
    model: Any = env.encoder.model
    z_m, z_c = slots.split([D_M, D_C], 2)
    log_p = model._prior_of(z_m).log_prob(z_m) + model._component_prior(z_m).log_prob(z_c)
    assert info["log_p"] == pytest.approx(float(log_p.sum()), rel=1e-4)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)


def test_candidates_follow_from_those_chosen(env: ComposeEnv) -> None:
    """The noise at a step is the same whatever was chosen; the candidates are not."""
    first, other = (play(env, [k, 0])[1][0]["candidates"] for k in (0, 1))
    assert np.abs(first - other).max() > 1e-3


def test_one_seed_gives_one_course_bit_for_bit(
    encoder_path: str, assert_same: Callable[..., None]
) -> None:
    for options in OPTIONS[:2]:
        envs = [ComposeEnv(encoder_path, redness, device="cpu", **options) for _ in range(2)]
        envs[0].action_space.seed(1)
        actions = [envs[0].action_space.sample() for _ in range(K)]
        courses = [play(env, actions, seed=7) for env in envs]
        assert_same(*courses, tolerance=0)
        # A reset without a seed goes on with the randomness.
        before, after = (play(envs[0], actions, seed)[1][0]["slots"] for seed in (7, None))
        assert np.array_equal(before, after) == (options is OPTIONS[1])


def test_steering_is_sampling_with_given_noise(encoder: SlotEncoder) -> None:
    env = ComposeEnv(encoder, redness, control="steer", bound=2.0, temperature=0.5)
    assert env.action_space == gym.spaces.Box(-2, 2, (D_M + D_C,), np.float32)
    noise = np.random.default_rng(0).uniform(-2, 2, (K, D_M + D_C)).astype(np.float32)
    *_, (observation, _, terminated, _, _) = play(env, list(noise))
    assert terminated and set(observation) == {"slots", "placed"}
    eps = torch.from_numpy(0.5 * noise)[None]
    model: Any = encoder.model
    expected = model._generate(Noise(eps[..., :D_M], eps[..., D_M:])).features[0]
    np.testing.assert_allclose(observation["slots"], expected, atol=1e-5)
    # Noise of nothing is the most likely course at every step.
    likely = play(env, [np.zeros(D_M + D_C, np.float32)] * K)[-1][4]["log_p"]
    assert likely > play(env, list(noise))[-1][4]["log_p"]


def test_a_low_temperature_brings_candidates_together(encoder: SlotEncoder) -> None:
    spread = [
        ComposeEnv(encoder, redness, candidates=64, temperature=t).reset(seed=0)[0]["candidates"]
        for t in (0.1, 1.0)
    ]
    np.testing.assert_allclose(spread[0][:, :D_M], 0.1 * spread[1][:, :D_M], atol=1e-6)


def test_frames_show_the_slots_so_far(encoder: SlotEncoder) -> None:
    env = ComposeEnv(encoder, redness, image=True, candidates=M, render_mode="rgb_array")
    steps = play(env, [0])
    first, placed = steps[0][0]["image"], steps[1][0]["image"]
    assert first.shape == (32, 32, 3) and len(np.unique(first.reshape(-1, 3), axis=0)) == 2
    np.testing.assert_array_equal(placed, env.render())
    decoded = encoder.decode(env.scene.slots[None])
    pi = decoded.log_pi[0, 0].exp()
    ground = torch.from_numpy(first).permute(2, 0, 1) / 255
    expected = pi * decoded.mu_x[0, 0] + (1 - pi) * ground
    np.testing.assert_allclose(placed / 255, expected.permute(1, 2, 0), atol=0.01)
    env.step(0)
    final = env.step(0)[0]["image"]
    image = encoder.decode(env.scene.slots[None]).image[0].permute(1, 2, 0)
    np.testing.assert_allclose(final / 255, image, atol=0.01)


def test_slots_that_compete_share_all_pixels() -> None:
    torch.manual_seed(0)
    config = GenesisV2Config(
        image_size=32, num_slots=3, component_latent_size=5, encoder_channels=8, decoder_channels=8
    )
    env = ComposeEnv(GenesisV2(config).eval(), redness, image=True, candidates=2, device="cpu")
    empty, one, *_ = (step[0]["image"] for step in play(env, [0, 1, 1]))
    decoded = env.encoder.decode(env.scene.slots[None])
    expected = decoded.mu_x[0, 0].permute(1, 2, 0)
    np.testing.assert_allclose(one / 255, expected, atol=0.01)
    assert np.abs(one.astype(int) - empty).max() > 10


# ---- rewards -------------------------------------------------------------------------------------


def final_reward(encoder: Any, reward: Any, seed: int = 0, **options: Any) -> float:
    env = ComposeEnv(encoder, reward, candidates=M, reward_options=options or None)
    return float(play(env, [0] * K, seed=seed)[-1][1])


def test_rewards_by_name_of_a_module(encoder: SlotEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    name = f"{Path(__file__).stem}:redness"
    plain, scaled = final_reward(encoder, name), final_reward(encoder, name, scale=-2.0)
    assert scaled == pytest.approx(-2 * plain) == pytest.approx(-2 * final_reward(encoder, redness))


def test_the_number_of_objects(encoder: SlotEncoder) -> None:
    counts = [final_reward(encoder, "objects", seed) for seed in range(8)]
    assert set(counts) <= {0.0, 1.0, 2.0}
    for seed, count in enumerate(counts[:3]):
        assert final_reward(encoder, "objects", seed, number=int(count)) == 1
        assert final_reward(encoder, "objects", seed, number=5) == 0


def test_a_goal_is_reached_by_its_own_slots(encoder: SlotEncoder, tmp_path: Path) -> None:
    env = ComposeEnv(encoder, "objects", candidates=M)
    slots = play(env, [1, 2, 0], seed=0)[-1][0]["slots"]
    actions = [1, 2, 0]
    swapped = slots[[2, 0, 1]]
    for goal, expected in ((slots, 0.0), (swapped, 0.0), (slots + 2, -4.0)):
        env = ComposeEnv(encoder, "goal", candidates=M, reward_options={"goal": goal})
        assert play(env, actions)[-1][1] == pytest.approx(expected, abs=1e-5)
    # An image, in memory and in a file, stands for the slots inferred from it.
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "goal.png"), frame[..., ::-1])
    inferred = encoder.features(frame, mask_geometry=False)[0]
    values = [
        final_reward(encoder, "goal", goal=goal)
        for goal in (frame, inferred, str(tmp_path / "goal.png"))
    ]
    assert values[0] == pytest.approx(values[1]) == pytest.approx(values[2])
    assert values[0] < 0


def probe(fingerprint: str) -> SceneProbe:
    torch.manual_seed(0)
    head = Head(K * (D_M + D_C), 5, 2)
    config = SceneProbeConfig("stability", (0, 1), K, D_M + D_C, 5, fingerprint, 0.9)
    return SceneProbe(config, head)


def test_a_trained_probe_gives_the_reward(encoder: SlotEncoder, tmp_path: Path) -> None:
    saved = probe(encoder.fingerprint)
    saved.save(tmp_path / "stability")
    env = ComposeEnv(
        encoder, "probe", reward_options={"probe": str(tmp_path / "stability")}, candidates=M
    )
    *_, (observation, reward, *_) = play(env, [0] * K)
    answers = saved(torch.from_numpy(observation["slots"])[None])[0]
    assert float(answers.sum()) == pytest.approx(1)
    assert reward == pytest.approx(float(answers[1]))
    other = final_reward(encoder, "probe", probe=str(tmp_path / "stability"), answer=0)
    assert other == pytest.approx(float(answers[0]))
    probe("0" * 64).save(tmp_path / "strange")
    with pytest.raises(ValueError, match="probe"):
        final_reward(encoder, "probe", probe=str(tmp_path / "strange"))
    with pytest.raises(ValueError, match="answer"):
        final_reward(encoder, "probe", probe=str(tmp_path / "stability"), answer=7)


# ---- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"bound": -1.0}, "bound"),
        ({"candidates": 1}, "candidates"),
        ({"control": "guess"}, "control"),
        ({"render_mode": "human"}, "render_mode"),
        ({"reward": "beauty"}, "reward"),
        ({"reward": "no.module:f"}, "reward"),
        ({"reward": "math:nothing"}, "reward"),
        ({"reward": "objects", "reward_options": {"count": 3}}, "reward_options"),
        ({"reward": "objects", "reward_options": {"number": -1}}, "number"),
        ({"reward": "goal", "reward_options": {"goal": "/no.png"}}, "goal"),
        ({"reward": "goal", "reward_options": {"goal": [1.0]}}, "goal"),
        ({"reward": "probe", "reward_options": {"probe": "/nothing"}}, "nothing"),
    ],
)
def test_bad_options(encoder: SlotEncoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ComposeEnv(encoder, **{"reward": redness, **options})


def test_models_without_such_a_prior() -> None:
    model = Monet(MonetConfig(image_size=32, num_slots=3, attention_channels=4)).eval()
    with pytest.raises(ValueError, match="encoder"):
        ComposeEnv(model, redness, device="cpu")


def test_rewards_must_be_numbers(encoder: SlotEncoder) -> None:
    with pytest.raises(TypeError, match="reward"):
        ComposeEnv(encoder, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reward"):
        final_reward(encoder, nothing)
    with pytest.raises(ValueError, match="reward"):
        final_reward(encoder, lambda scene: "much")
    with pytest.raises(ValueError, match="goal"):
        final_reward(encoder, "goal", goal=np.zeros((2, 9)))


def test_actions_of_other_spaces(encoder: SlotEncoder, env: ComposeEnv) -> None:
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    steer = ComposeEnv(encoder, redness, control="steer", bound=1.0)
    cases: list[tuple[ComposeEnv, list[Any]]] = [
        (env, [M, -1, 0.5, [0, 1]]),
        (steer, [np.zeros(3), np.full(D_M + D_C, 1.5), np.full(D_M + D_C, np.nan), 0]),
    ]
    for one, actions in cases:
        one.reset(seed=0)
        for action in actions:
            with pytest.raises(ValueError, match="action"):
                one.step(action)


def test_weights_that_are_broken(encoder: SlotEncoder) -> None:
    broken = SlotEncoder(encoder.model, device="cpu")
    with torch.no_grad():
        broken.model.prior_head.bias.fill_(math.nan)  # type: ignore[attr-defined]
    env = ComposeEnv(broken, redness)
    env.reset(seed=0)  # the first slot's prior is the standard normal
    with pytest.raises(ValueError, match="finite"):
        env.step(0)
