"""Observations of agents: slots, states, pixels, feature maps, random encoders; saving, errors."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack

import genesis_rl  # noqa: F401 (registers the ids)
from genesis_rl.agents.algorithms import build_model, fit_scale
from genesis_rl.agents.bundle import load_agent, save_agent
from genesis_rl.agents.config import (
    ENCODED,
    AgentConfig,
    Obs,
    PolicyConfig,
    PPOConfig,
    preset_flags,
)
from genesis_rl.agents.evaluation import record_video
from genesis_rl.agents.extractors import EXTRACTORS
from genesis_rl.agents.extractors.encoder import FeatureMapExtractor
from genesis_rl.agents.observations import VecFrames, load_encoder, make_encoder
from genesis_rl.agents.stack import check_same_stack, make_vec_env
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.checkpoints.loading import load_pretrained, save_pretrained

ENV_OPTIONS: dict[str, Any] = {
    "image_size": 32,
    "num_objects": 2,
    "object_scale": 0.25,
    "agent_scale": 0.25,
    "max_episode_steps": 8,
}
SHAPES = {
    "encoder": (3, 12),
    "genesis": (3, 12),
    "random": (3, 12),
    "monet": (3, 7),
    "vae": (1, 8),
    "state": (3, 11),
    "pixels": (3, 40, 40),
    "feature_map": (3, 40, 40),
}


@pytest.fixture(scope="module")
def encoders(
    encoder_path: str, small_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Encoders by obs."""
    folder = tmp_path_factory.mktemp("encoders")
    save_pretrained(small_model("bd_vae", latent_size=5), folder / "vae")
    save_pretrained(small_model("monet", component_latent_size=4), folder / "monet")
    return {
        **dict.fromkeys(("encoder", "genesis", "random"), encoder_path),
        **{name: str(folder / name) for name in ("vae", "monet")},
    }


def settings(obs: Any, encoders: dict[str, str], **changes: Any) -> AgentConfig:
    options: dict[str, Any] = {
        "env_options": json.dumps(ENV_OPTIONS),
        "encoder": encoders.get(obs),
        "encoder_device": "cpu",
        "frame_size": 40,
        "policy": PolicyConfig(width=16, heads=2, layers=1),
        "vec": "dummy",
        "n_envs": 2,
    } | changes
    return AgentConfig(obs=obs, **options)


def make_venv(config: AgentConfig, **options: Any) -> Any:
    pretrained = load_encoder(config)
    encoder = None if pretrained is None else make_encoder(config, pretrained.model)
    return make_vec_env(config, encoder, **options)


def rollout(model: Any, venv: Any) -> list[Any]:
    """Return observations, terminal observations and the policy's outputs."""
    venv.seed(5)
    outputs = [venv.reset()]
    for step in range(12):
        observations, _, _, infos = venv.step(np.array([step % 2, 2 + step % 2]))
        outputs += [
            observations,
            *(i["terminal_observation"][None] for i in infos if i.get("episode")),
        ]
    with torch.no_grad():
        values = [model.policy.predict_values(torch.as_tensor(x)).numpy() for x in outputs]
    return [*outputs, *values]


@pytest.mark.parametrize("obs", get_args(Obs))
def test_saved_agents_of_every_observation(
    obs: str, encoders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genesis_rl.agents.algorithms._SCALE_FRAMES", 16)
    config = settings(obs, encoders)
    with closing(make_venv(config)) as venv:
        assert venv.observation_space.shape == SHAPES[obs]
        model = build_model(config, venv)
        fit_scale(model, venv)
        before = rollout(model, venv)
        save_agent(tmp_path / "agent", model, config, load_encoder(config))
    assert (tmp_path / "agent" / "encoder").exists() == (obs in ENCODED)
    loaded = load_agent(tmp_path / "agent", n_envs=2, encoder_device="cpu")
    with closing(loaded.venv):
        after = rollout(loaded.model, loaded.venv)
    assert loaded.config == config
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)
    recorded = load_agent(tmp_path / "agent", encoder_device="cpu", info_keys=("frame", "masks"))
    with closing(recorded.venv):
        record_video(recorded.venv, recorded.model, tmp_path / "video.mp4", episodes=1)
    assert (tmp_path / "video.mp4").stat().st_size > 500


def test_a_trained_encoder_is_saved(
    encoders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genesis_rl.agents.algorithms._SCALE_FRAMES", 16)
    ppo = PPOConfig(n_steps=8, batch_size=8, n_epochs=1, learning_rate=1e-2)
    config = settings("genesis", encoders, finetune=True, ppo=ppo)
    pretrained = load_encoder(config)
    assert pretrained is not None
    with closing(make_venv(config)) as venv:
        assert venv.observation_space.shape == (3, 32, 32)
        model = build_model(config, venv, encoder=pretrained.model)
        fit_scale(model, venv)
        extractor: Any = model.policy.features_extractor
        slots = extractor.slots(torch.as_tensor(venv.reset()) / 255)
        np.testing.assert_allclose(
            extractor.scale.mean, slots.flatten(0, 1).mean(0).detach(), atol=0.3
        )
        model.learn(16)
        before = rollout(model, venv)
        save_agent(tmp_path / "agent", model, config, pretrained)
    model_before: Any = pretrained.model
    name, weight = next(iter(model_before.named_parameters()))
    assert not torch.equal(weight, dict(extractor.encoder.named_parameters())[name])
    loaded = load_agent(tmp_path / "agent", n_envs=2, encoder_device="cpu")
    with closing(loaded.venv):
        for a, b in zip(before, rollout(loaded.model, loaded.venv), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("extractor", list(EXTRACTORS))
@pytest.mark.parametrize("obs", ["state", "feature_map"])
def test_every_extractor_accepts_every_set(obs: str, extractor: Any) -> None:
    policy = PolicyConfig(extractor, width=16, heads=2, layers=1)
    config = settings(obs, {}, policy=policy, ppo=settings(obs, {}).ppo)
    with closing(make_venv(config)) as venv:
        model = build_model(config, venv)
        assert model.predict(venv.reset())[0].shape == (2,)


def test_settings_have_every_extractor() -> None:
    annotation = PolicyConfig.__dataclass_fields__["extractor"].type
    assert get_args(annotation) == tuple(EXTRACTORS)


def test_state_observations_are_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make("genesis_rl/ObjectGoal-v0", state_in_info=True, **ENV_OPTIONS)
    env.reset(seed=4)
    true_state = env.step(1)[4]["true_state"]
    monkeypatch.setattr("genesis_rl.envs.relational.env.render", None)
    with closing(make_venv(settings("state", {}), n_envs=1, seed=4)) as venv:
        venv.reset()
        np.testing.assert_array_equal(venv.step(np.array([1]))[0][0], true_state)


def test_vector_observations_are_the_state() -> None:
    config = settings("state", {}, env="CartPole-v1", env_options="{}")
    with closing(make_venv(config, seed=0)) as venv:
        observations = np.asarray(venv.reset())
    assert observations.shape == (2, 1, 4)
    assert observations.dtype == np.float32
    env = gym.make("CartPole-v1")
    np.testing.assert_array_equal(observations[0, 0], env.reset(seed=0)[0])


@pytest.mark.parametrize(
    "options",
    [{}, {"layout": "CHW"}, {"values": "unit"}, {"entry": "image"}],
    ids=["HWC", "CHW", "floats", "entry"],
)
def test_pixels_of_all_axis_orders_and_ranges(
    options: dict[str, Any], pixel_env: Callable[..., gym.Env[Any, Any]]
) -> None:
    raw = pixel_env(size=(40, 40))
    venv = VecFrames(
        DummyVecEnv([lambda: pixel_env(size=(40, 40), **options)]), size=40, frame_in_info=True
    )
    venv.seed(1)
    frames: Any = venv.reset()
    ends = 0
    _, info = raw.reset(seed=1)
    np.testing.assert_array_equal(frames[0].transpose(1, 2, 0), info["raw"])
    np.testing.assert_array_equal(venv.reset_infos[0]["frame"], info["raw"])
    for step in range(20):
        action = step % 4
        frames, _, dones, infos = venv.step(np.array([action]))
        _, _, terminated, truncated, info = raw.step(action)
        assert dones[0] == (terminated or truncated)
        np.testing.assert_array_equal(infos[0]["frame"], info["raw"])
        last_frame = frames[0]
        if dones[0]:
            ends += 1
            last_frame = infos[0]["terminal_observation"]
            first = raw.reset()[1]["raw"]
            np.testing.assert_array_equal(frames[0].transpose(1, 2, 0), first)
            np.testing.assert_array_equal(venv.reset_infos[0]["frame"], first)
        np.testing.assert_array_equal(last_frame.transpose(1, 2, 0), info["raw"])
    assert ends >= 2


def test_kept_entries_do_not_replace_the_frames() -> None:
    box = spaces.Box(0, 255, (40, 40, 3), np.uint8)

    class Frames(gym.Env[Any, Any]):
        observation_space = spaces.Dict(image=box, frames=spaces.Box(0, 1))
        action_space = spaces.Discrete(2)

    with pytest.raises(ValueError, match="keep must not contain 'frames'"):
        VecFrames(DummyVecEnv([Frames]), size=40, keep=["frames"])


class NestedEnv(gym.ObservationWrapper[Any, Any, Any]):
    """Nests the observation in Dicts."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        other = spaces.Box(0, 255, (40, 40, 3), np.uint8)
        camera = spaces.Dict(rgb=env.observation_space, other=other)
        self.observation_space = spaces.Dict(camera=camera)

    def observation(self, observation: Any) -> Any:
        return {"camera": {"rgb": observation, "other": np.zeros((40, 40, 3), np.uint8)}}


@pytest.fixture
def nested_env(pixel_env: Callable[..., gym.Env[Any, Any]]) -> Iterator[str]:
    gym.register("Nested-v0", lambda **_: NestedEnv(pixel_env(size=(40, 40))))
    gym.register("NestedState-v0", lambda **_: NestedEnv(gym.make("CartPole-v1")))
    yield "Nested-v0"
    del gym.registry["Nested-v0"], gym.registry["NestedState-v0"]


@pytest.mark.parametrize("obs", ["pixels", "encoder"])
def test_image_key_selects_nested_frames(
    obs: Any, encoders: dict[str, str], nested_env: str
) -> None:
    config = settings(obs, encoders, env=nested_env, env_options="{}")
    flat_config = settings(obs, encoders, env="Pixel-v0", env_options='{"size": [40, 40]}')
    with pytest.raises(ValueError, match=r"camera/rgb: Box.*image_key"):
        make_venv(config, seed=0)
    with (
        closing(make_venv(replace(config, image_key="camera/rgb"), seed=0)) as venv,
        closing(make_venv(flat_config, seed=0)) as flat,
    ):
        np.testing.assert_allclose(venv.reset(), flat.reset(), atol=1e-6)
        for _ in range(6):
            one, two = (envs.step(np.array([0, 1])) for envs in (venv, flat))
            np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_image_key_selects_a_nested_state(nested_env: str) -> None:
    config = settings(
        "state", {}, env="NestedState-v0", env_options="{}", image_key="camera/rgb", n_envs=1
    )
    with closing(make_venv(config, seed=0)) as venv:
        assert np.asarray(venv.reset()).shape == (1, 1, 4)


class NestedVecEnv(VecEnvWrapper):
    """Vector environment of nested Dicts, which Stable-Baselines3 does not support."""

    def __init__(self, venv: VecEnv) -> None:
        space = spaces.Dict(camera=spaces.Dict(rgb=venv.observation_space))
        super().__init__(venv, observation_space=space)

    def reset(self) -> Any:
        return {"camera": {"rgb": self.venv.reset()}}

    def step_wait(self) -> Any:
        frames, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = {"camera": {"rgb": info["terminal_observation"]}}
        return {"camera": {"rgb": frames}}, rewards, dones, infos


def test_image_key_selects_nested_frames_of_a_vector_environment(
    encoder_path: str, pixel_env: Callable[..., gym.Env[Any, Any]]
) -> None:
    inner = DummyVecEnv([pixel_env] * 2)
    options: dict[str, Any] = {"encoder": encoder_path, "device": "cpu"}
    venv: Any = VecGenesisObs(NestedVecEnv(inner), image_key="camera/rgb", **options)
    flat: Any = VecGenesisObs(DummyVecEnv([pixel_env] * 2), **options)
    for envs in (venv, flat):
        envs.seed(3)
    np.testing.assert_allclose(venv.reset(), flat.reset(), atol=1e-6)
    ends = 0
    for _ in range(9):
        one, two = (envs.step(np.array([0, 1])) for envs in (venv, flat))
        np.testing.assert_allclose(one[0], two[0], atol=1e-6)
        for a, b in zip(one[3], two[3], strict=True):
            if "terminal_observation" in b:
                ends += 1
                last, expected = (info["terminal_observation"] for info in (a, b))
                np.testing.assert_allclose(last, expected, atol=1e-6)
    assert ends


def test_cells_of_a_feature_map_have_positions() -> None:
    torch.manual_seed(0)
    space = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    extractor = FeatureMapExtractor(space, EXTRACTORS["deep_sets"], features_dim=8, width=16)
    assert extractor.places.shape == (16, 64)
    frames = torch.rand(2, 3, 64, 64)
    before = extractor(frames)
    assert before.shape == (2, 8)
    with torch.no_grad():
        extractor.places.zero_()
    assert not torch.allclose(extractor(frames), before)


def test_random_encoders_differ_by_seed_alone(encoder_path: str) -> None:
    def load_random(seed: int, encoder: str = encoder_path) -> Any:
        return load_encoder(AgentConfig(obs="random", encoder=encoder, seed=seed))

    def weights(seed: int) -> Any:
        return next(iter(load_random(seed).model.parameters()))

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    trained = load_pretrained(encoder_path, device="cpu").model
    assert load_random(1).model.config == trained.config
    assert load_random(0, "sprites-large").model.config.image_size == 32


@pytest.mark.parametrize(
    ("obs", "changes", "message"),
    [
        ("encoder", {"encoder": None}, "obs"),
        ("random", {"encoder": ""}, "obs"),
        ("state", {"encoder": "runs/a"}, "encoder"),
        ("pixels", {"encoder": "runs/a"}, "encoder"),
        ("state", {"render": True}, "render"),
        ("pixels", {"frame_size": 35}, "frame_size"),
        ("pixels", {"finetune": True}, "finetune"),
        ("pixels", {"encoder_refine_steps": -1}, "encoder_refine_steps"),
        (
            "encoder",
            {"encoder": "runs/a", "finetune": True, "encoder_refine_steps": 3},
            "encoder_refine_steps",
        ),
        ("sound", {}, "obs"),
    ],
)
def test_invalid_settings_raise(obs: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(obs, {}, **changes)


@pytest.mark.parametrize(
    ("obs", "name", "message"),
    [
        ("vae", "genesis", r"^encoder .*bd_vae.* genesis "),
        ("genesis", "monet", r"^encoder .*genesis_s.* monet "),
    ],
)
def test_an_encoder_of_another_class_raises(
    obs: str, name: str, message: str, encoders: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=message):
        load_encoder(settings(obs, encoders, encoder=encoders[name]))


@pytest.mark.parametrize("env", ["Pixel-v0", "CarRacing-v3"])
def test_an_environment_without_a_state_raises(env: str) -> None:
    with pytest.raises(ValueError, match=f"env '{env}'"):
        make_venv(settings("state", {}, env=env, env_options="{}"))


def test_pixels_need_frames() -> None:
    with pytest.raises(ValueError, match=r"^the observation "):
        make_venv(settings("pixels", {}, env="CartPole-v1", env_options="{}"))


@pytest.fixture
def agent_folder(tmp_path: Path) -> Path:
    config = settings("state", {})
    with closing(make_venv(config)) as venv:
        save_agent(tmp_path / "agent", build_model(config, venv), config, None)
    return tmp_path / "agent"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "agent.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_changed_spaces_raise(agent_folder: Path) -> None:
    options = json.dumps({**ENV_OPTIONS, "num_objects": 4})
    edit(agent_folder, lambda content: content["config"].update(env_options=options))
    with pytest.raises(ValueError, match=r"observations .*\(3, 11\).*\(5, 11\)"):
        load_agent(agent_folder)


def test_agents_without_newer_settings_load(encoder_path: str, tmp_path: Path) -> None:
    config = settings("encoder", {"encoder": encoder_path})
    with closing(make_venv(config)) as venv:
        save_agent(tmp_path / "agent", build_model(config, venv), config, load_encoder(config))

    def remove_newer_settings(content: dict[str, Any]) -> None:
        del content["spaces"], content["config"]["obs"], content["config"]["frame_size"]

    edit(tmp_path / "agent", remove_newer_settings)
    agent = load_agent(tmp_path / "agent", encoder_device="cpu")
    agent.venv.close()
    assert agent.config == replace(config, frame_size=64)


def test_different_stacks_raise(encoders: dict[str, str]) -> None:
    config = settings("genesis", encoders)
    stacks = {
        "same": make_venv(config, n_envs=1),
        "encoder": make_venv(settings("random", encoders)),
        "observations": make_venv(replace(config, mask_geometry=False)),
        "wrappers": VecFrameStack(make_venv(config), 2),
    }
    training = make_venv(config)
    check_same_stack(training, stacks.pop("same"))
    for name, venv in stacks.items():
        with closing(venv), pytest.raises(ValueError, match=rf"^the {name} "):
            check_same_stack(training, venv)


def test_presets_are_flags() -> None:
    assert preset_flags("default") == []
    assert preset_flags("published", "agent.")[:2] == ["--agent.n-envs", "4"]
    assert preset_flags("relational")[:2] == ["--ppo.n-steps", "512"]
    with pytest.raises(ValueError, match="preset"):
        preset_flags("theirs")
