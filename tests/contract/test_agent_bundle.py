"""Agents on disk: what comes back acts as what was saved, and what is damaged is named."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from genesis_rl.agents.bundle import Agent, load_agent, save_agent
from genesis_rl.agents.config import AgentConfig, PolicyConfig, PPOConfig
from genesis_rl.agents.extractors import FlatSlotsExtractor, SlotSetExtractor
from genesis_rl.agents.stack import build_ppo, fit_scale, make_vec_env
from genesis_rl.checkpoint import Pretrained, load_pretrained, save_pretrained
from genesis_rl.frames import Preprocessing
from genesis_rl.perception import SlotEncoder

STEPS = 12


@pytest.fixture(scope="module")
def pretrained(encoder_path: str) -> Pretrained:
    return load_pretrained(encoder_path, device="cpu")


def settings(encoder_path: str, **changes: Any) -> AgentConfig:
    options: dict[str, Any] = {
        "env": "Pixel-v0",
        "vec": "dummy",
        "num_envs": 2,
        "seed": 3,
    } | changes
    return AgentConfig(encoder=encoder_path, encoder_device="cpu", **options)


def rollout(model: PPO, venv: Any) -> tuple[list[Any], list[Any]]:
    """Observations over some steps with episodes' ends, and logits and values for them."""
    venv.seed(5)
    seen, thought = [venv.reset()], []
    for step in range(STEPS):
        x = torch.as_tensor(seen[-1])
        with torch.no_grad():
            distribution: Any = model.policy.get_distribution(x)
            logits = distribution.distribution.logits
            thought.append(torch.cat([logits, model.policy.predict_values(x)], 1).numpy())
        seen.append(venv.step(np.array([step % 4, step % 3]))[0])
    return seen, thought


@pytest.fixture
def saved(encoder_path: str, pretrained: Pretrained, tmp_path: Path) -> Path:
    """An agent's folder, its policy with fresh weights."""
    config = settings(encoder_path)
    encoder = SlotEncoder(pretrained.model, device="cpu")
    with closing(make_vec_env(config, encoder)) as venv:
        save_agent(tmp_path / "agent", build_ppo(config, venv), config, pretrained)
    return tmp_path / "agent"


@pytest.mark.parametrize("extractor", ["transformer", "mlp"])
def test_a_loaded_agent_sees_and_acts_the_same(
    extractor: Any, encoder_path: str, pretrained: Pretrained, tmp_path: Path
) -> None:
    config = settings(
        encoder_path,
        policy=PolicyConfig(extractor, width=16, heads=2, layers=1),
        ppo=PPOConfig(n_steps=16, batch_size=32, gamma=0.9),
        mask_geometry=extractor == "mlp",
    )
    encoder = SlotEncoder(pretrained.model, device="cpu")
    with closing(make_vec_env(config, encoder)) as venv:
        model = build_ppo(config, venv)
        wanted = SlotSetExtractor if extractor == "transformer" else FlatSlotsExtractor
        assert isinstance(model.policy.features_extractor, wanted)
        fit_scale(model, venv)
        assert not torch.equal(
            model.policy.features_extractor.scale.scale,
            torch.ones_like(model.policy.features_extractor.scale.scale),
        )
        seen, thought = rollout(model, venv)
        assert np.std(thought, axis=0).min() > 0
        save_agent(tmp_path / "a", model, config, pretrained, metrics={"success_rate": 0.5})
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "agent.json",
        "encoder",
        "policy.safetensors",
    ]
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    loaded = load_agent(tmp_path / "elsewhere", num_envs=2, encoder_device="cpu")
    with closing(loaded.venv):
        again_seen, again_thought = rollout(loaded.model, loaded.venv)
    for a, b in zip(seen, again_seen, strict=True):
        assert a.shape == (2, 3, 9 + 3 * config.mask_geometry)
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    np.testing.assert_allclose(thought, again_thought, atol=1e-6, rtol=0)
    assert loaded.config == config
    assert loaded.model.gamma == 0.9
    assert loaded.metadata["metrics"] == {"success_rate": 0.5}
    assert loaded.metadata["versions"]["torch"] == torch.__version__


def test_a_loaded_agent_can_go_on_learning(saved: Path) -> None:
    loaded = load_agent(saved, num_envs=2, encoder_device="cpu")
    with closing(loaded.venv):
        loaded.model.n_epochs = 1
        loaded.model.learn(256)
    assert loaded.model.num_timesteps == 256


def test_every_weight_is_saved_once(saved: Path) -> None:
    from safetensors.torch import load_file

    names = load_file(saved / "policy.safetensors").keys()
    assert any(name.startswith("features_extractor.scale") for name in names)
    assert not [name for name in names if name.startswith(("pi_", "vf_"))]


def test_preprocessing_travels_with_the_agent(
    tiny_genesis: Any, encoder_path: str, tmp_path: Path
) -> None:
    how = Preprocessing("letterbox")
    save_pretrained(tiny_genesis, tmp_path / "encoder", preprocessing=how, extra={"step": 7})
    pretrained = load_pretrained(tmp_path / "encoder", device="cpu")
    config = settings(str(tmp_path / "encoder"))
    encoder = SlotEncoder(tmp_path / "encoder", device="cpu")
    with closing(make_vec_env(config, encoder)) as venv:
        save_agent(tmp_path / "a", build_ppo(config, venv), config, pretrained)
    loaded = load_agent(tmp_path / "a")
    with closing(loaded.venv):
        assert loaded.venv.slot_encoder.preprocessing == how  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "a" / "encoder" / "config.json").read_text())["step"] == 7


def test_the_folder_of_a_run_gives_its_best_agent(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run / "last")
    edit(run / "last" / "agent.json", steps=20)
    shutil.copytree(saved, run / "best.old")  # as a kill in the middle of saving leaves it
    edit(run / "best.old" / "agent.json", steps=10)
    agent = load_agent(run)
    agent.venv.close()
    assert agent.metadata["steps"] == 10
    assert (run / "best").is_dir()


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "agent.json"
    config = json.loads(path.read_text())["config"] | changes
    edit(path, config=config)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change_encoder(folder: Path) -> None:
    torch.manual_seed(1)
    pretrained = load_pretrained(folder / "encoder", device="cpu")
    with torch.no_grad():
        next(iter(pretrained.model.parameters())).add_(1e-3)  # type: ignore[attr-defined]
    save_pretrained(pretrained.model, folder / "encoder")


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing there": (shutil.rmtree, "does not exist"),
    "no settings": (lambda f: (f / "agent.json").unlink(), "holds no agent"),
    "settings cut off": (lambda f: truncate(f / "agent.json"), "agent.json cannot be read as JSON"),
    "settings a list": (lambda f: (f / "agent.json").write_text("[]"), "not of an agent of format"),
    "another format": (lambda f: edit(f / "agent.json", format=9), "not of an agent of format 1"),
    "no config": (
        lambda f: (f / "agent.json").write_text('{"format": 1}'),
        "lacks the entry config",
    ),
    "unknown setting": (
        lambda f: set_config(f, colour="red"),
        "does not fit this version: .*colour",
    ),
    "setting of another type": (lambda f: set_config(f, num_envs="x"), "does not fit this version"),
    "bad setting": (lambda f: set_config(f, ppo={"gamma": 2}), "gamma is 2; wanted"),
    "no policy": (lambda f: (f / "policy.safetensors").unlink(), "policy.safetensors is missing"),
    "policy cut off": (
        lambda f: truncate(f / "policy.safetensors"),
        "policy.safetensors is damaged or not safetensors",
    ),
    "policy of another size": (
        lambda f: set_config(f, policy={"width": 32}),
        "has shape .*want",
    ),
    "policy of another kind": (
        lambda f: set_config(f, policy={"extractor": "mlp"}),
        "has an unknown entry features_extractor.* is of another policy",
    ),
    "no encoder": (lambda f: shutil.rmtree(f / "encoder"), "encoder.* neither a folder nor a Hub"),
    "no weights of the encoder": (
        lambda f: (f / "encoder" / "model.safetensors").unlink(),
        "model.safetensors is missing",
    ),
    "encoder cut off": (
        lambda f: truncate(f / "encoder" / "model.safetensors"),
        "model.safetensors is damaged",
    ),
    "another encoder": (change_encoder, "not the encoder that the agent was trained with"),
    "unknown environment": (
        lambda f: set_config(f, env="Nowhere-v0"),
        "env 'Nowhere-v0' cannot be made: NameNotFound",
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_is_named(damage: str, saved: Path) -> None:
    do, message = DAMAGES[damage]
    do(saved)
    with pytest.raises(ValueError, match=message):
        load_agent(saved)


def test_saving_that_fails_leaves_the_old_agent(
    saved: Path, encoder_path: str, pretrained: Pretrained
) -> None:
    before = (saved / "agent.json").read_bytes()
    loaded = load_agent(saved)
    with closing(loaded.venv), pytest.raises(TypeError, match="JSON serializable"):
        save_agent(saved, loaded.model, loaded.config, pretrained, metrics={"bad": object()})
    assert (saved / "agent.json").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["agent"]


class Symbols(gym.Env[Any, Any]):
    """Observations that are no frames, or actions that PPO cannot take."""

    def __init__(self, pixels: bool = False, fails: bool = False) -> None:
        if fails:
            raise RuntimeError("the simulator\nis not installed")
        shape = (24, 24, 3) if pixels else (7, 7, 3)
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
        ({"env": "Nowhere-v0"}, "env 'Nowhere-v0' cannot be made: NameNotFound"),
        ({"env": "no_such_module:X-v0"}, "cannot be made: ModuleNotFoundError"),
        ({"env": "a b"}, "env 'a b' cannot be made"),
        ({"env_options": '{"wings": 2}'}, "cannot be made: TypeError: .*wings"),
        ({"env": "Symbols-v0"}, "7 x 7 is a symbolic grid"),
        ({"env": "Symbols-v0", "env_options": '{"pixels": true}'}, "PPO takes Box, Discrete"),
        (
            {"env": "Symbols-v0", "env_options": '{"fails": true}'},
            "cannot be made: RuntimeError: the simulator is not installed",
        ),
        ({"env": "State-v0"}, "not an image.*render"),
        ({"obs_key": "pixels"}, "key is 'pixels', but the observation is Box"),
        ({"env_options": '{"entry": "image"}', "obs_key": "goal"}, "goal"),
        ({"frame_layout": "HW"}, "wanted 2 axes"),
    ],
)
@pytest.mark.parametrize("vec", ["dummy", "subproc"])
def test_environments_that_do_not_fit_are_named(
    vec: str, changes: dict[str, Any], message: str, encoder_path: str, encoder: SlotEncoder
) -> None:
    config = settings(encoder_path, **{"vec": vec, **changes})
    with pytest.raises(ValueError, match=message):
        make_vec_env(config, encoder)


def test_an_environment_that_only_this_process_knows(
    encoder_path: str, encoder: SlotEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="not in one of its own; wanted module:id"):
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
        {"env_options": '{"entry": "camera"}', "obs_key": "camera"},
        {"env_options": '{"layout": "CWH"}', "frame_layout": "CWH"},
    ],
    ids=["rendered", "entry found", "entry named", "layout named"],
)
def test_frames_come_from_where_the_settings_say(
    changes: dict[str, Any], encoder_path: str, encoder: SlotEncoder
) -> None:
    with closing(make_vec_env(settings(encoder_path), encoder, seed=9)) as venv:
        plain = np.asarray(venv.reset())
    with closing(make_vec_env(settings(encoder_path, **changes), encoder, seed=9)) as venv:
        # The same world is drawn, whichever way its frames come.
        np.testing.assert_allclose(np.asarray(venv.reset()), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": ""}, "env is empty"),
        ({"vec": "threads"}, "vec is 'threads'; wanted one of subproc, dummy"),
        ({"env_options": "{"}, "env_options is '{', which is not JSON"),
        ({"env_options": "[]"}, "wanted a JSON object"),
        ({"env_options": '{"render_mode": "human"}'}, "wanted the flags env and render"),
        ({"frame_layout": "XY"}, "frame_layout is 'XY'"),
        ({"num_envs": 0}, "num_envs is 0; wanted a whole number >= 1"),
        ({"total_steps": 1.5}, "total_steps is 1.5"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"eval_episodes": 0}, "eval_episodes is 0"),
        ({"max_minutes": 0}, "max_minutes is 0; wanted a value > 0"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings("encoder", **changes)


@pytest.mark.parametrize(
    ("config_class", "changes", "message"),
    [
        (PolicyConfig, {"extractor": "rnn"}, "extractor is 'rnn'; wanted one of transformer, mlp"),
        (PolicyConfig, {"heads": 5}, "heads is 5; wanted a divisor of width, 64"),
        (PolicyConfig, {"layers": 0}, "layers is 0"),
        (PPOConfig, {"n_steps": 0}, "n_steps is 0"),
        (PPOConfig, {"batch_size": 1}, "batch_size is 1; wanted at least 2"),
        (PPOConfig, {"learning_rate": float("nan")}, "learning_rate is nan"),
        (PPOConfig, {"gamma": 0.0}, r"gamma is 0.0; wanted a value in \(0, 1\]"),
        (PPOConfig, {"gae_lambda": 1.1}, "gae_lambda is 1.1"),
        (PPOConfig, {"ent_coef": -0.1}, "ent_coef is -0.1"),
        (PPOConfig, {"clip_range": 0}, "clip_range is 0"),
    ],
)
def test_bad_nested_settings_are_named(
    config_class: type[Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_class(**changes)


def test_settings_survive_json(encoder_path: str) -> None:
    config = settings(encoder_path, max_minutes=2.5, policy=PolicyConfig("mlp"))
    assert AgentConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ValueError, match="config is list"):
        AgentConfig.from_json([])
    assert Agent._fields == ("model", "venv", "config", "metadata")
