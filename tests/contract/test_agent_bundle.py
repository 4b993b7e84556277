"""Saving and loading agents: equal actions after loading, and errors of damaged folders."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genesis_rl.agents.algorithms import build_model, fit_scale
from genesis_rl.agents.bundle import load_agent, save_agent
from genesis_rl.agents.config import AgentConfig, PolicyConfig, PPOConfig
from genesis_rl.agents.extractors import FlatSlotsExtractor, SlotSetExtractor
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints.loading import Pretrained, load_pretrained, save_pretrained
from genesis_rl.checkpoints.weights import OLD_KEYS
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing

STEPS = 12


@pytest.fixture(scope="module")
def pretrained(encoder_path: str) -> Pretrained:
    return load_pretrained(encoder_path, device="cpu")


def settings(encoder_path: str, **changes: Any) -> AgentConfig:
    options: dict[str, Any] = {
        "env": "Pixel-v0",
        "vec": "dummy",
        "n_envs": 2,
        "seed": 3,
    } | changes
    return AgentConfig(encoder=encoder_path, encoder_device="cpu", **options)


def rollout(model: Any, venv: Any) -> tuple[list[Any], list[Any]]:
    """Return observations of steps with episode ends, and their logits and values."""
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
    """Folder of an agent with initial weights."""
    config = settings(encoder_path)
    encoder = SlotEncoder(pretrained.model, device="cpu")
    with closing(make_vec_env(config, encoder)) as venv:
        save_agent(tmp_path / "agent", build_model(config, venv), config, pretrained)
    return tmp_path / "agent"


@pytest.mark.parametrize("extractor", ["transformer", "mlp"])
def test_a_loaded_agent_has_equal_observations_and_actions(
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
        model = build_model(config, venv)
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
    loaded: Any = load_agent(tmp_path / "elsewhere", n_envs=2, encoder_device="cpu")
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


def test_a_loaded_agent_can_be_trained(saved: Path) -> None:
    loaded: Any = load_agent(saved, n_envs=2, encoder_device="cpu")
    with closing(loaded.venv):
        loaded.model.n_epochs = 1
        loaded.model.learn(256)
    assert loaded.model.num_timesteps == 256


def test_agents_of_earlier_versions_load(saved: Path) -> None:
    old = {new: key for key, new in OLD_KEYS.items()}
    data = json.loads((saved / "agent.json").read_text())
    for key in ("num_envs", "obs_key"):
        assert OLD_KEYS[key] in data["config"]
    data["config"] = {old.get(key, key): value for key, value in data["config"].items()}
    (saved / "agent.json").write_text(json.dumps(data))
    loaded = load_agent(saved, encoder_device="cpu")
    loaded.venv.close()
    assert loaded.config.n_envs == data["config"]["num_envs"]


def test_every_weight_is_saved_once(saved: Path) -> None:
    names = load_file(saved / "policy.safetensors").keys()
    assert any(name.startswith("features_extractor.scale") for name in names)
    assert not [name for name in names if name.startswith(("pi_", "vf_"))]


def test_preprocessing_is_saved_with_the_agent(
    tiny_genesis: Any, encoder_path: str, tmp_path: Path
) -> None:
    how = Preprocessing("letterbox")
    save_pretrained(tiny_genesis, tmp_path / "encoder", preprocessing=how, extra={"step": 7})
    pretrained = load_pretrained(tmp_path / "encoder", device="cpu")
    config = settings(str(tmp_path / "encoder"))
    encoder = SlotEncoder(tmp_path / "encoder", device="cpu")
    with closing(make_vec_env(config, encoder)) as venv:
        save_agent(tmp_path / "a", build_model(config, venv), config, pretrained)
    loaded = load_agent(tmp_path / "a")
    with closing(loaded.venv):
        assert loaded.venv.slot_encoder.preprocessing == how  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "a" / "encoder" / "config.json").read_text())["step"] == 7


def test_the_folder_of_a_run_gives_its_best_agent(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run / "last")
    edit(run / "last" / "agent.json", steps=20)
    private = run / ".best.genesis_rl"  # as left by a kill during saving
    shutil.copytree(saved, private / "old")
    (private / "owner.json").write_text('{"made_by": "genesis_rl"}')
    edit(private / "old" / "agent.json", steps=10)
    agent = load_agent(run)
    agent.venv.close()
    assert agent.metadata["steps"] == 10
    assert (private / "old").is_dir() and not (run / "best").exists()


def test_loading_an_agent_keeps_other_folders(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "runs" / "agent.old")
    with pytest.raises(ValueError, match=r"^folder "):
        load_agent(tmp_path / "runs" / "agent")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["agent.old"]


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
    "nothing there": (shutil.rmtree, r"^folder "),
    "no settings": (lambda f: (f / "agent.json").unlink(), r"^folder .*agent\.json"),
    "settings cut off": (lambda f: truncate(f / "agent.json"), r"agent.json .*JSON"),
    "settings a list": (lambda f: (f / "agent.json").write_text("[]"), "format 1"),
    "another format": (lambda f: edit(f / "agent.json", format=9), "format 1"),
    "no config": (
        lambda f: (f / "agent.json").write_text('{"format": 1}'),
        "config",
    ),
    "unknown setting": (lambda f: set_config(f, colour="red"), r"^config .*colour"),
    "setting of another type": (lambda f: set_config(f, n_envs="x"), "^n_envs must be an integer"),
    "bad setting": (lambda f: set_config(f, ppo={"gamma": 2}), "gamma"),
    "no policy": (lambda f: (f / "policy.safetensors").unlink(), r"policy.safetensors .*missing"),
    "policy cut off": (
        lambda f: truncate(f / "policy.safetensors"),
        r"policy.safetensors .*damaged",
    ),
    "policy of another size": (
        lambda f: set_config(f, policy={"width": 32}),
        r"features_extractor.cls .*shape",
    ),
    "policy of another kind": (
        lambda f: set_config(f, policy={"extractor": "mlp"}),
        r"unknown .*features_extractor",
    ),
    "no encoder": (lambda f: shutil.rmtree(f / "encoder"), r"encoder .*missing"),
    "no weights of the encoder": (
        lambda f: (f / "encoder" / "model.safetensors").unlink(),
        r"model.safetensors .*missing",
    ),
    "encoder cut off": (
        lambda f: truncate(f / "encoder" / "model.safetensors"),
        r"model.safetensors .*damaged",
    ),
    "another encoder": (change_encoder, r"encoder .*fingerprint"),
    "unknown environment": (
        lambda f: set_config(f, env="Nowhere-v0"),
        r"^env 'Nowhere-v0' .*NameNotFound",
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damage_is_named(damage: str, saved: Path) -> None:
    do, message = DAMAGES[damage]
    do(saved)
    with pytest.raises(ValueError, match=message):
        load_agent(saved)


def test_a_failed_save_keeps_the_old_agent(
    saved: Path, encoder_path: str, pretrained: Pretrained
) -> None:
    before = (saved / "agent.json").read_bytes()
    loaded = load_agent(saved)
    with closing(loaded.venv), pytest.raises(TypeError, match="JSON serializable"):
        save_agent(saved, loaded.model, loaded.config, pretrained, metrics={"bad": object()})
    assert (saved / "agent.json").read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["agent"]


def test_settings_as_json(encoder_path: str) -> None:
    config = settings(encoder_path, max_minutes=2.5, policy=PolicyConfig("mlp"))
    assert AgentConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ValueError, match="config"):
        AgentConfig.from_json([])
