"""The demonstration in a few seconds: report, earlier results, signals, invalid flags."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.training import Trainer

FLAGS = ("--pretrain-minutes", "0.05", "--agent-minutes", "0.05", "--train-scenes", "64")
PRIOR = ("--prior-steps", "3")
MORE = ("--test-scenes", "16", "--episodes", "4", "--threads", "1")


def test_the_report_is_complete(
    tmp_path: Path, run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))
    earlier = tmp_path / "demo"
    earlier.mkdir()
    (earlier / "precious").write_text("of an earlier run")
    flags = (*FLAGS, *PRIOR, *MORE, "--out", str(earlier))
    status, text, errors = run_program("tools/demo.py", *flags)
    assert status == 0, errors
    out = tmp_path / "demo-2"
    assert str(out / "report.html") in text
    assert [path.name for path in earlier.iterdir()] == ["precious"]
    assert re.findall(r"(\d)/5: ", errors) == ["1", "2", "3", "4", "5"]

    figures = json.loads((out / "figures.json").read_text())
    assert set(figures["segmentation"]) == {"GENESIS", "one_slot", "fixed_grid", "colour_palette"}
    assert figures["segmentation"]["colour_palette"]["same_colour_shared"] == 1
    agents = figures["agents"]
    assert agents["slots"]["agent"]["episodes"] == agents["pixels"]["agent"]["episodes"] == 4
    assert agents["slots"]["random"]["episodes"] == 4 and "random" not in agents["pixels"]
    assert figures["pretraining"]["images"] == 16 * figures["pretraining"]["steps"] > 0
    assert figures["imagined"]["real"]["valid"] == 1
    assert all(0 <= figures["imagined"][name]["valid"] <= 1 for name in figures["imagined"])
    assert len(figures["slots"]) == figures["num_slots"] == 5
    assert sum(slot["area"] for slot in figures["slots"]) == pytest.approx(1, abs=1e-3)
    assert 0 < figures["minutes"] < 10

    html = (out / "report.html").read_text()
    # Frames, the scene, a mask and a colour of each slot that is not empty, and further pictures.
    filled = sum(slot["area"] >= 1e-3 for slot in figures["slots"])
    assert html.count("data:image/png;base64,") == 2 + 5 + filled + 3
    assert html.count("data:video/mp4;base64,") == 1
    for words in ("fixed grid", "95 % interval", "random actions", "identical", "z_m"):
        assert words in html
    assert f"{figures['segmentation']['GENESIS']['ari']:.3f}" in html
    assert 'src="http' not in html and "prefers-color-scheme: dark" in html


def test_with_an_encoder_only_an_agent_is_trained(
    tmp_path: Path, run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))
    out = tmp_path / "demo"
    flags = ("--encoder", "sprites-fast", *FLAGS, *MORE)
    status, _, errors = run_program("tools/demo.py", *flags, "--out", str(out))
    assert status == 0, errors
    figures = json.loads((out / "figures.json").read_text())
    assert figures["pretraining"] is figures["imagined"] is None and not (out / "encoder").exists()
    html = (out / "report.html").read_text()
    assert "by its published rules" in html and "Imagined scenes" not in html


@pytest.mark.parametrize(
    ("stage", "home", "method", "stop", "code"),
    [
        ("pretraining", Trainer, "_train_step", signal.SIGINT, 130),
        ("the training of an agent", AgentTrainer, "_learn", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_the_demonstration(
    stage: str,
    home: Any,
    method: str,
    stop: signal.Signals,
    code: int,
    tmp_path: Path,
    run_program: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))
    begin = getattr(home, method)

    def stopped(self: Any, *args: Any) -> Any:
        os.kill(os.getpid(), stop)
        return begin(self, *args)

    monkeypatch.setattr(home, method, stopped)
    # Long time limits, so that the signal arrives before them.
    minutes = {
        "--pretrain-minutes": "9" if stage == "pretraining" else "0.1",
        "--agent-minutes": "9",
    }
    flags = (*(part for pair in minutes.items() for part in pair), "--train-scenes", "64", *PRIOR)
    out = tmp_path / "demo"
    status, _, errors = run_program("tools/demo.py", *flags, *MORE, "--out", str(out))
    assert status == code and f"stopped in {stage}" in errors
    assert (out / "agent").exists() == (stage != "pretraining") and not (
        out / "report.html"
    ).exists()


def test_invalid_flags(run_program: Any, tmp_path: Path) -> None:
    status, _, errors = run_program("tools/demo.py", "--pretrain-minutes", "0")
    assert status == 2 and "--pretrain-minutes" in errors
