"""Files of earlier versions: the present names of their keys."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.imagination import ImaginationConfig
from genesis_rl.checkpoints.loading import fingerprint, load, save_pretrained
from genesis_rl.checkpoints.weights import OLD_KEYS, rename_old_keys
from genesis_rl.evaluation.probes.heads import Head
from genesis_rl.evaluation.probes.saved import SceneProbe, SceneProbeConfig
from genesis_rl.models import build_model
from genesis_rl.models.distilled import Distilled, DistilledConfig
from genesis_rl.training import PretrainConfig
from genesis_rl.training.folder import RunFolder, parse_settings, settings
from genesis_rl.training.presets import PRESETS

RESULTS = Path(__file__).parents[3] / "results"
FIRST_KEYS = {new: old for old, new in OLD_KEYS.items()}
MODEL: Any = dataclasses.replace(PRESETS["smoke"].config.model, posterior_sigma_min=0.02)


def with_old_keys(data: Any) -> Any:
    """JSON data with the oldest names of its keys, at every depth."""
    if not isinstance(data, dict):
        return data
    return {FIRST_KEYS.get(key, key): with_old_keys(value) for key, value in data.items()}


def stored_settings(key: str) -> list[Any]:
    """Settings of the runs in results/*.json."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        data = json.loads(path.read_text())
        runs = data.get("runs", []) if isinstance(data, dict) else []
        found += [run[key] for run in runs if isinstance(run, dict) and key in run]
    return found


def test_present_names_are_not_renamed() -> None:
    assert not set(OLD_KEYS) & set(OLD_KEYS.values())
    assert rename_old_keys({"num_envs": 3, "seed": 1}) == {"n_envs": 3, "seed": 1}


def test_settings_of_earlier_versions() -> None:
    old = {"obs": "state", "num_envs": 3, "total_steps": 5, "obs_key": "rgb", "eval_greedy": True}
    old["frame_layout"] = "HWC"
    config = AgentConfig(
        obs="state",
        n_envs=3,
        total_timesteps=5,
        image_key="rgb",
        image_layout="HWC",
        eval_deterministic=True,
        out=Path("."),
    )
    assert AgentConfig.from_json(old) == config
    old = {"encoder": "e", "world_model": "w", "data": "d", "num_dreams": 8, "trust": 0.5}
    imagined = ImaginationConfig.from_json({**old, "iterate": 2})
    assert (imagined.n_imagined_envs, imagined.uncertainty_quantile, imagined.rounds) == (8, 0.5, 2)


def test_settings_of_earlier_pretrainings(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, background="predicted")
    config = PretrainConfig(
        model=model,
        init="runs/start",
        reinit_modules=("component_decoder",),
        beta_anneal_fraction=0.3,
        trained_modules="objects",
        sigma_x_anneal_fraction=0.4,
        foreground_anneal_fraction=0.7,
        activation_checkpointing=True,
        out=tmp_path,
    )
    old = with_old_keys(settings(config))
    changed = {"fresh", "beta_until", "trains", "sigma_x_fraction", "foreground_until", "recompute"}
    assert changed <= old.keys() and "posterior_sigma_floor" in old["model"]
    assert parse_settings(old) == config

    for name in ("train.json", "last/training.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(old))
    resumed_config = dataclasses.replace(config, resume=True)
    wider = dataclasses.replace(model, feature_size=8)
    assert RunFolder(resumed_config).started
    with pytest.raises(ValueError, match="model"):
        RunFolder(dataclasses.replace(resumed_config, model=wider))
    # Fields that the earlier version did not have are at their defaults.
    stored = json.loads((tmp_path / "train.json").read_text())
    del stored["model"]["prior_components"], stored["precision"]
    (tmp_path / "train.json").write_text(json.dumps(stored))
    assert RunFolder(resumed_config).started
    with pytest.raises(ValueError, match="model"):
        RunFolder(
            dataclasses.replace(
                resumed_config, model=dataclasses.replace(model, prior_components=2)
            )
        )


def test_models_of_earlier_versions(tmp_path: Path) -> None:
    teacher = {**dataclasses.asdict(MODEL), "posterior_sigma_min": 0.02}
    student = Distilled(DistilledConfig("genesis", teacher, channels=(2, 2, 2)))
    for model in (build_model(MODEL), student):
        save_pretrained(model, tmp_path)
        path = tmp_path / "config.json"
        data = json.loads(path.read_text())
        old = with_old_keys(data["config"])
        assert "posterior_sigma_floor" in old.get("teacher_config", old)
        path.write_text(json.dumps({**data, "config": old}))
        loaded = load(tmp_path, device="cpu")
        assert loaded.config == model.config
        assert fingerprint(loaded) == fingerprint(model)


def test_scene_probes_of_earlier_versions(tmp_path: Path) -> None:
    config = SceneProbeConfig("height", (2, 3), 2, 4, 3, "f" * 64, 0.9)
    SceneProbe(config, Head(8, 3, 2)).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(with_old_keys(json.loads(path.read_text()))))
    assert "question" in json.loads(path.read_text())
    assert SceneProbe.load(tmp_path, device="cpu").config == config


@pytest.mark.skipif(not RESULTS.is_dir(), reason="results/ is not here")
def test_settings_of_published_runs() -> None:
    agents = [data for data in stored_settings("config") if "ppo" in data]
    settings = [data for data in stored_settings("settings") if "ppo" in data]
    assert agents and settings
    for data in agents:
        assert AgentConfig.from_json(data).n_envs == rename_old_keys(data)["n_envs"]
    for data in settings:
        cls = ImaginationConfig if "world_model" in data else AgentConfig
        assert cls.from_json(data).total_timesteps == rename_old_keys(data)["total_timesteps"]
