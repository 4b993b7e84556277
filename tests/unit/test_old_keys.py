"""Files of earlier versions: the present names of their keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.imagination import ImaginationConfig
from genesis_rl.old_keys import OLD_KEYS, rename_old_keys

RESULTS = Path(__file__).parents[2] / "results"


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
    config = AgentConfig(
        obs="state",
        n_envs=3,
        total_timesteps=5,
        image_key="rgb",
        eval_deterministic=True,
        out=Path("."),
    )
    assert AgentConfig.from_json(old) == config
    old = {"encoder": "e", "world_model": "w", "data": "d", "num_dreams": 8, "trust": 0.5}
    imagined = ImaginationConfig.from_json({**old, "iterate": 2})
    assert (imagined.n_imagined_envs, imagined.uncertainty_quantile, imagined.rounds) == (8, 0.5, 2)


@pytest.mark.skipif(not RESULTS.is_dir(), reason="results/ is not here")
def test_settings_of_published_runs() -> None:
    agents = [data for data in stored_settings("config") if "ppo" in data]
    settings = stored_settings("settings")
    assert agents and settings
    for data in agents:
        assert AgentConfig.from_json(data).n_envs == rename_old_keys(data)["n_envs"]
    for data in settings:
        cls = ImaginationConfig if "world_model" in data else AgentConfig
        assert cls.from_json(data).total_timesteps == rename_old_keys(data)["total_timesteps"]
