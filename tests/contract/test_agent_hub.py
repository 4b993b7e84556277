"""Agents on the Hub: pushed, downloaded, with equal actions."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from genesis_rl.agents.algorithms import build_model
from genesis_rl.agents.bundle import load_agent, save_agent
from genesis_rl.agents.config import AgentConfig, PPOConfig
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints import hub
from genesis_rl.checkpoints.hub import download, push_folder
from genesis_rl.checkpoints.loading import load_pretrained
from genesis_rl.perception.encoder import SlotEncoder


class Commit(NamedTuple):
    commit_url: str


def test_an_agent_is_pushed_and_loaded(
    encoder_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"

    class Api:
        """Stands for HfApi; test_hub checks that the real one would understand."""

        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> None:
            (remote / repo_id).mkdir(parents=True)

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> Commit:
            shutil.copytree(folder_path, remote / repo_id, dirs_exist_ok=True)
            return Commit("https://hub/commit/1")

    def snapshot(repo_id: str, *, allow_patterns: list[str], **_: Any) -> str:
        assert allow_patterns == ["*"]
        return str(remote / repo_id)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)

    pretrained = load_pretrained(encoder_path, device="cpu")
    ppo = PPOConfig(n_steps=16, batch_size=16)
    config = AgentConfig(
        encoder=encoder_path, env="Pixel-v0", vec="dummy", encoder_device="cpu", ppo=ppo
    )
    encoder = SlotEncoder(pretrained.model, device="cpu")
    with closing(make_vec_env(config, encoder, n_envs=1)) as venv:
        agent: Any = build_model(config, venv)
        save_agent(tmp_path / "agent", agent, config, pretrained)
        venv.seed(1)
        seen: Any = venv.reset()
    push_folder(tmp_path / "agent", "me/agent")
    shutil.rmtree(tmp_path / "agent")

    loaded: Any = load_agent(download("me/agent", ["*"]), encoder_device="cpu")
    with closing(loaded.venv):
        loaded.venv.seed(1)
        again: Any = loaded.venv.reset()
        np.testing.assert_allclose(again, seen, atol=1e-5)
        wanted = agent.policy.get_distribution(agent.policy.obs_to_tensor(seen)[0])
        got = loaded.model.policy.get_distribution(agent.policy.obs_to_tensor(seen)[0])
        assert np.array_equal(got.mode().numpy(), wanted.mode().numpy())
        np.testing.assert_allclose(
            got.log_prob(got.mode()).detach(), wanted.log_prob(got.mode()).detach(), atol=1e-6
        )
