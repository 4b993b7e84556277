"""Settings and environments of agents: sources of frames, and errors of invalid settings."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from genesis_rl.agents.config import AgentConfig, OffPolicyConfig, PolicyConfig, PPOConfig
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.perception.encoder import SlotEncoder


def settings(encoder_path: str, **changes: Any) -> AgentConfig:
    options: dict[str, Any] = {
        "env": "Pixel-v0",
        "vec": "dummy",
        "n_envs": 2,
        "seed": 3,
    } | changes
    return AgentConfig(encoder=encoder_path, encoder_device="cpu", **options)


class Symbols(gym.Env[Any, Any]):
    """Environment with symbolic observations, or actions that PPO does not support."""

    def __init__(self, pixels: bool = False, fails: bool = False) -> None:
        if fails:
            raise RuntimeError("the simulator\nis not installed")
        shape = (32, 32, 3) if pixels else (7, 7, 3)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Dict({"a": spaces.Discrete(2)})
        if not pixels:
            self.action_space = spaces.Discrete(2)


@pytest.fixture
def symbols() -> Iterator[None]:
    gym.register("Symbols-v0", lambda **options: Symbols(**options))
    yield
    del gym.registry["Symbols-v0"]


@pytest.mark.usefixtures("symbols")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Nowhere-v0"}, r"^env 'Nowhere-v0' .*NameNotFound"),
        ({"env": "no_such_module:X-v0"}, r"^env .*ModuleNotFoundError"),
        ({"env": "a b"}, r"^env 'a b' "),
        ({"env_options": '{"wings": 2}'}, r"^env .*TypeError: .*wings"),
        ({"env": "Symbols-v0"}, "RGBImgObsWrapper"),
        ({"env": "Symbols-v0", "env_options": '{"pixels": true}'}, "Box, Discrete"),
        (
            {"env": "Symbols-v0", "env_options": '{"fails": true}'},
            r"^env .*RuntimeError: the simulator",
        ),
        ({"env": "State-v0"}, r"^the observation "),
        ({"image_key": "pixels"}, "image_key"),
        ({"env_options": '{"entry": "image"}', "image_key": "goal"}, "goal"),
        ({"image_layout": "HW"}, "2 axes"),
    ],
)
@pytest.mark.parametrize("vec", ["dummy", "subproc"])
def test_environments_that_do_not_fit_are_named(
    vec: str, changes: dict[str, Any], message: str, encoder_path: str, encoder: SlotEncoder
) -> None:
    config = settings(encoder_path, **{"vec": vec, **changes})
    with pytest.raises(ValueError, match=message):
        make_vec_env(config, encoder)


def test_an_environment_registered_in_this_process_only(
    encoder_path: str, encoder: SlotEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ValueError,
        match=r"^env .*genesis_rl/ObjectGoal-v0",
    ):
        make_vec_env(settings(encoder_path, vec="subproc"), encoder)
    assert "NameNotFound" in capfd.readouterr().err  # the process's own message


def test_module_and_id_name_an_environment(encoder_path: str, encoder: SlotEncoder) -> None:
    config = settings(
        encoder_path,
        env="genesis_rl:genesis_rl/ObjectGoal-v0",
        env_options='{"image_size": 32}',
        vec="subproc",
    )
    with closing(make_vec_env(config, encoder, seed=2)) as venv:
        first = np.asarray(venv.reset())
    with closing(make_vec_env(replace(config, vec="dummy"), encoder, seed=2)) as venv:
        np.testing.assert_allclose(np.asarray(venv.reset()), first, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"env": "State-v0", "render": True},
        {"env_options": '{"entry": "image"}'},
        {"env_options": '{"entry": "camera"}', "image_key": "camera"},
        {"env_options": '{"layout": "CWH"}', "image_layout": "CWH"},
    ],
    ids=["rendered", "entry found", "entry named", "layout named"],
)
def test_sources_of_frames(
    changes: dict[str, Any], encoder_path: str, encoder: SlotEncoder
) -> None:
    with closing(make_vec_env(settings(encoder_path), encoder, seed=9)) as venv:
        plain = np.asarray(venv.reset())
    with closing(make_vec_env(settings(encoder_path, **changes), encoder, seed=9)) as venv:
        # The frames are equal for every source.
        np.testing.assert_allclose(np.asarray(venv.reset()), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": ""}, r"^env "),
        ({"vec": "threads"}, "vec"),
        ({"env_options": "{"}, "env_options"),
        ({"env_options": "[]"}, "env_options"),
        ({"env_options": '{"render_mode": "human"}'}, "env_options"),
        ({"image_layout": "XY"}, "image_layout"),
        ({"n_envs": 0}, "n_envs"),
        ({"total_timesteps": 1.5}, "total_timesteps"),
        ({"eval_every": 0}, "eval_every"),
        ({"eval_episodes": 0}, "eval_episodes"),
        ({"max_minutes": 0}, "max_minutes"),
        ({"threads": 0}, "threads"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings("encoder", **changes)


@pytest.mark.parametrize(
    ("config_class", "changes", "message"),
    [
        (PolicyConfig, {"extractor": "rnn"}, "extractor"),
        (PolicyConfig, {"heads": 5}, "heads"),
        (PolicyConfig, {"layers": 0}, "layers"),
        (PPOConfig, {"n_steps": 0}, "n_steps"),
        (PPOConfig, {"batch_size": 1}, "batch_size"),
        (PPOConfig, {"learning_rate": float("nan")}, "learning_rate"),
        (PPOConfig, {"gamma": 0.0}, "gamma"),
        (PPOConfig, {"gae_lambda": 1.1}, "gae_lambda"),
        (PPOConfig, {"ent_coef": -0.1}, "ent_coef"),
        (PPOConfig, {"clip_range": 0}, "clip_range"),
        (PolicyConfig, {"lstm_size": 16_384}, "parameters"),
        (OffPolicyConfig, {"buffer_size": 2**23}, "buffer_size must be at most"),
        (OffPolicyConfig, {"learning_starts": -1}, "learning_starts"),
        (OffPolicyConfig, {"gradient_steps": 0}, "gradient_steps must be at least 1, or -1"),
        (OffPolicyConfig, {"net_arch": (64, 0)}, "net_arch must be at least 1"),
        (OffPolicyConfig, {"net_arch": (16_384,) * 8}, "net_arch must have .* parameters"),
        (OffPolicyConfig, {"tau": 0.0}, "tau"),
        (OffPolicyConfig, {"action_noise": float("inf")}, "action_noise"),
    ],
)
def test_bad_nested_settings_are_named(
    config_class: type[Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_class(**changes)
