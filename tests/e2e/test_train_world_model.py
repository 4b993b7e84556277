"""pretrain/train_world_model.py on a tiny recording: training, resuming, report, errors."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import Tensor

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.data import PackWriter
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.training import State
from genesis_rl.utils.log import read
from genesis_rl.world_model import WorldModel
from genesis_rl.world_model.training import WorldTrainer

Run = Callable[..., tuple[int, str, str]]
PROGRAM = "pretrain/train_world_model.py"
SIDE = 32
DISCRETE = {"type": "Discrete", "dtype": "int64", "n": 2, "start": 0}
BOX = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-1.0], "high": [1.0]}
QUICK = (
    *("--steps", "6", "--batch-size", "8", "--horizon", "2", "--log-every", "2"),
    *("--eval-every", "3", "--save-every", "3", "--eval-windows", "16", "--report-windows", "16"),
    *("--report-horizon", "4", "--model.width", "16", "--model.layers", "1", "--device", "cpu"),
)


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))


def record(folder: Path, episodes: int, seed: int, space: dict[str, Any]) -> None:
    """A white square moves left or right until it reaches a wall; the right wall has a reward."""
    rng = np.random.default_rng(seed)
    with PackWriter(folder, None, SIDE, masks=False, meta={"action_space": space}) as writer:
        for _ in range(episodes):
            frames, rows, place = [], [], int(rng.integers(1, 6))
            while True:
                frames.append(np.zeros((SIDE, SIDE, 3), np.uint8))
                frames[-1][12:20, 4 * place : 4 * place + 8] = 255
                if place in (0, 6):
                    break
                push = int(rng.integers(2))
                place += 2 * push - 1
                rows.append((push, place == 6, place in (0, 6)))
            pushes, rewards, ends = zip(*rows, (0, 0, False), strict=True)
            actions = np.array(pushes)
            if space is BOX:
                actions = (2 * actions - 1).astype(np.float32)[:, None]
            writer.write(
                np.stack(frames),
                action=actions,
                reward=np.array(rewards, np.float32),
                terminated=np.array(ends),
                truncated=np.zeros(len(frames), np.bool_),
                first=np.arange(len(frames)) == 0,
            )


def recorded(folder: Path, space: dict[str, Any] = DISCRETE) -> Path:
    for seed, (split, episodes) in enumerate({"train": 12, "validation": 4, "test": 6}.items()):
        record(folder / split, episodes, seed, space)
    return folder


@pytest.fixture
def encoder(tmp_path: Path, small_model: Callable[..., Any]) -> Path:
    save_pretrained(small_model(num_slots=2), tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def given(encoder: Path, tmp_path: Path) -> tuple[str, ...]:
    """Flags of a tiny encoder and recording."""
    return ("--encoder", str(encoder), "--data", str(recorded(tmp_path / "pack")))


def test_from_a_recording_to_a_report(
    given: tuple[str, ...], run_program: Run, tmp_path: Path
) -> None:
    out = tmp_path / "world"
    status, shown, errors = run_program(
        PROGRAM, *given, *QUICK, "--out", str(out), "--baseline", "mlp"
    )
    assert status == 0, errors
    assert "world model" in shown and "terminated" in shown
    encoder = SlotEncoder(tmp_path / "encoder", device="cpu")
    report = json.loads((out / "report.json").read_text())
    assert report["encoder_fingerprint"] == encoder.fingerprint
    rows = report["open_loop"]
    assert [row["horizon"] for row in rows] == [1, 2, 3]
    assert set(rows[0]["latent_error"]) == {"world model", "mlp", "copy"}
    assert set(rows[0]["psnr"]) == {"world model", "mlp", "copy", "encoded"}
    assert rows[0]["windows"] >= rows[1]["windows"] >= rows[2]["windows"] > 0
    # All of the 16 windows have a first step, where the error of copied slots is about 1.
    assert rows[0]["windows"] == 16 and rows[0]["latent_error"]["copy"] > 0
    assert 0 < rows[0]["psnr"]["encoded"] < 100
    doubt = rows[0]["uncertainty"]["world model"]
    assert doubt["mean"] > 0 and -1 <= doubt["correlation"] <= 1
    for name in ("world model", "mlp"):
        ends = report["events"][name]["one_step"]["terminated"]
        assert 0 < ends["rate"] < 1 and 0 <= ends["auc"] <= 1
    log = read(out)
    assert [row["step"] for row in log if "train/dynamics" in row] == [2, 4, 6]
    validations = [row for row in log if "validation/rollout" in row]
    assert [row["step"] for row in validations] == [3, 6]
    model = WorldModel.from_pretrained(out, encoder_fingerprint=encoder.fingerprint)
    best = json.loads((out / "best" / "config.json").read_text())
    assert best["validation"]["rollout"] == pytest.approx(
        min(row["validation/rollout"] for row in validations)
    )
    assert model.mask_geometry and model.slot_spec.aligned and model.action_spec.n == 2
    flat = WorldModel.from_pretrained(out / "baseline-mlp")
    assert flat.config.trunk == "mlp" and flat.slot_spec == model.slot_spec
    for picture in ("rollouts.png", "errors.png"):
        assert min(Image.open(out / picture).size) > 64
    assert 2 <= getattr(Image.open(out / "rollouts.gif"), "n_frames", 1) <= 5
    assert (out / "tensorboard").is_dir()


def test_a_run_is_exported_for_sharing(
    given: tuple[str, ...], run_program: Run, tmp_path: Path
) -> None:
    out, shared = tmp_path / "world", tmp_path / "shared"
    share = ("pretrain/share.py", str(out), "--out", str(shared), "--name", "square-world")
    assert run_program(PROGRAM, *given, *QUICK, "--out", str(out))[0] == 0
    status, _, errors = run_program(*share, "--precision", "bf16")
    assert status == 2 and "--precision " in errors
    (out / "report.json").rename(out / "gone")
    status, _, errors = run_program(*share)
    assert status == 2 and "must be a finished run" in errors
    assert not shared.exists()
    (out / "gone").rename(out / "report.json")
    status, _, errors = run_program(*share)
    assert status == 0, errors
    assert sorted(path.name for path in shared.iterdir()) == [
        *("README.md", "config.json", "model.safetensors")
    ]
    for file in ("README.md", "config.json"):
        assert str(tmp_path) not in (shared / file).read_text()
    mine, theirs = (
        WorldModel.from_pretrained(folder, device="cpu").state_dict() for folder in (out, shared)
    )
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    card = ModelCard.load(shared / "README.md")
    assert "world-model" in card.data.to_dict()["tags"]
    assert 'world_model="square-world"' in card.text and 'encoder="encoder"' in card.text
    report = json.loads((out / "report.json").read_text())
    assert f"{report['open_loop'][0]['latent_error']['world model']:.3f}" in card.text


def test_boxes_and_slots_without_geometry(encoder: Path, run_program: Run, tmp_path: Path) -> None:
    data, out = recorded(tmp_path / "pack", BOX), str(tmp_path / "world")
    flags = ("--encoder", str(encoder), "--data", str(data), "--out", out, "--no-mask-geometry")
    status, _, errors = run_program(PROGRAM, *flags, *QUICK, "--no-align", "--no-tensorboard")
    assert status == 0, errors
    model = WorldModel.from_pretrained(out)
    assert model.action_spec.to_json() == {"kind": "box", "low": [-1.0], "high": [1.0]}
    assert model.slot_spec.num_features == 9 and not model.slot_spec.aligned
    assert not Path(out, "tensorboard").exists()


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Send SIGINT before an update."""
    update = WorldTrainer._train_step

    def arm(step: int) -> None:
        def stopped(trainer: WorldTrainer, state: State) -> Tensor:
            if state.step == step:
                os.kill(os.getpid(), signal.SIGINT)
            return update(trainer, state)

        monkeypatch.setattr(WorldTrainer, "_train_step", stopped)

    yield arm
    monkeypatch.undo()


def test_a_resumed_training_equals_an_uninterrupted_one(
    given: tuple[str, ...],
    run_program: Run,
    stop_at: Callable[[int], None],
    tmp_path: Path,
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = (*given, *QUICK, "--no-tensorboard", "--out")
    assert run_program(PROGRAM, *flags, str(whole))[0] == 0
    stop_at(4)
    status, _, errors = run_program(PROGRAM, *flags, str(broken))
    assert status == 130 and "stopped at step 5; --resume" in errors
    assert not (broken / "report.json").exists()
    stop_at(-1)
    status, _, errors = run_program(PROGRAM, *flags, str(broken))
    assert status == 2 and ": --out " in errors and "--resume" in errors
    status, _, errors = run_program(PROGRAM, *flags, str(broken), "--resume")
    assert status == 0, errors
    for name in ("last", "best"):
        weights = [(run / name / "model.safetensors").read_bytes() for run in (whole, broken)]
        assert weights[0] == weights[1]
    figures = [json.loads((run / "report.json").read_text()) for run in (whole, broken)]
    assert figures[0]["open_loop"] == figures[1]["open_loop"]
    status, _, errors = run_program(PROGRAM, *flags, str(broken), "--resume", "--seed", "1")
    assert status == 2 and "seed" in errors


def test_invalid_flags(given: tuple[str, ...], run_program: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "world"), "--no-tensorboard")
    images = tmp_path / "images"
    with PackWriter(images, 4, SIDE, masks=False) as writer:
        writer.write(np.zeros((4, SIDE, SIDE, 3), np.uint8))
    mixed = recorded(tmp_path / "mixed")
    (mixed / "validation").rename(mixed / "gone")
    record(mixed / "validation", 3, 0, BOX)
    cases: list[tuple[tuple[str, ...], str]] = [
        (("--data", str(images)), "images only"),
        (("--data", str(mixed)), "must have the actions"),
        (("--data", str(tmp_path / "nowhere")), "nowhere"),
        (("--encoder", str(tmp_path / "pack")), "encoder must be a folder with"),
        (("--batch-size", "1000"), "--batch-size"),
    ]
    for flags, message in cases:
        status, _, errors = run_program(PROGRAM, *given, *QUICK, *out, *flags)
        assert status == 2, flags
        assert errors.startswith("train_world_model.py: ") and message in errors, errors
    for flags, message in (
        (("--horizon", "0"), "horizon"),
        (("--learning-rate", "0"), "--learning-rate must"),
        (("--model.attention-heads", "3"), "--model.attention-heads"),
    ):
        status, _, errors = run_program(PROGRAM, *given, *QUICK, *out, *flags)
        assert status == 2 and message in errors, errors


def test_a_loss_that_is_not_finite(
    given: tuple[str, ...], run_program: Run, tmp_path: Path
) -> None:
    out = tmp_path / "world"
    flags = (*given, *QUICK, "--out", str(out), "--learning-rate", "1e30", "--no-tensorboard")
    status, _, errors = run_program(PROGRAM, *flags)
    assert status == 1
    assert "the last checkpoint is in" in errors and "lower --learning-rate" in errors
    assert not (out / "report.json").exists()
