"""RL Zoo trains on slots with agents/zoo.yml."""

import importlib
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

ROOT = Path(__file__).parents[2]
ID = "genesis_rl/ObjectGoal-v0"
WRAPPERS = {"vec_env_wrapper": "genesis_rl.VecGenesisObs", "env_wrapper": "genesis_rl.GenesisObs"}


@pytest.mark.smoke
@pytest.mark.parametrize("key", WRAPPERS)
def test_rl_zoo_trains(
    key: str, encoder_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rl_zoo3 replaces this class when it is imported; the original is restored after the test.
    for module in (gym.wrappers, gym.wrappers.common):
        monkeypatch.setattr(module, "TimeLimit", gym.wrappers.TimeLimit)
    pytest.importorskip("rl_zoo3", reason="rl_zoo3 is not installed (extra zoo)")
    yaml: Any = pytest.importorskip("yaml")
    content = yaml.safe_load((ROOT / "agents/zoo.yml").read_text())
    settings = content[ID]
    [wrapper] = settings.pop("vec_env_wrapper")
    settings |= {key: [{WRAPPERS[key]: {**wrapper[WRAPPERS["vec_env_wrapper"]]}}]}
    settings[key][0][WRAPPERS[key]]["encoder"] = encoder_path
    settings |= {"n_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1, "frame_stack": 2}
    settings["normalize"] = "{'norm_obs': False}"
    conf = tmp_path / "zoo.yml"
    conf.write_text(yaml.safe_dump(content))
    options = f"--algo ppo --env {ID} --gym-packages genesis_rl --conf-file {conf} -n 64"
    options += f" -f {tmp_path / 'logs'} --eval-freq 32 --eval-episodes 1 --seed 0 --device cpu"
    monkeypatch.setattr(sys, "argv", ["train.py", *options.split()])
    importlib.import_module("rl_zoo3.train").train()
    run = tmp_path / "logs/ppo/genesis_rl-ObjectGoal-v0_1"
    assert (run / "best_model.zip").is_file()
    assert len(np.load(run / "evaluations.npz")["results"]) == 2
    agent = PPO.load(run / "genesis_rl-ObjectGoal-v0.zip", device="cpu")
    assert agent.observation_space.shape == (3, 2 * 12)
    assert type(agent.policy.features_extractor).__name__ == "SlotSetExtractor"
