"""pretrain/doctor.py on runs of pretrain/train.py: its report and exit status."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_rl.evaluation.diagnostics import CHECKS

Program = Callable[..., tuple[int, str, str]]
TRAIN = ("--preset", "smoke", "--device", "cpu", "--threads", "1", "--no-tensorboard")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def run(
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_program: Program,
) -> Path:
    """Return a run of a few steps, trained once."""
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    made = data_root / "run"
    if not made.exists():
        status, _, errors = run_program("pretrain/train.py", *TRAIN, "--out", str(made))
        assert status == 0, errors
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_few_steps_are_not_enough(run: Path, run_program: Program) -> None:
    status, out, errors = run_program("pretrain/doctor.py", str(run), "--device", "cpu")
    assert status == 1, errors
    assert f"{run}: Genesis, step 20, 80 images" in out
    assert "best/ (step" in out and "on 16 validation images" in out
    assert "warning too_few_updates: 20 updates are few" in out
    assert "updates: 20, expected at least 2,000 try --steps 2000" in out
    assert "Not healthy:" in out


def test_the_same_as_json(run: Path, run_program: Program) -> None:
    flags = ("--device", "cpu", "--which", "last", "--images", "8", "--json")
    status, out, _ = run_program("pretrain/doctor.py", str(run), *flags)
    diagnosis = json.loads(out)
    assert status == 1 and diagnosis["healthy"] is False
    assert "last/ (step 20) on 8 validation images" in diagnosis["summary"]
    (few,) = [f for f in diagnosis["findings"] if f["name"] == "too_few_updates"]
    assert few["value"] == 20 and few["severity"] == "warning"
    assert few["suggestions"][0]["flags"] == ["--steps", "2000"]
    names = [finding["name"] for finding in diagnosis["findings"]]
    assert {*names, *diagnosis["passed"], *diagnosis["skipped"]} == set(CHECKS)
    assert len(names) + len(diagnosis["passed"]) + len(diagnosis["skipped"]) == len(CHECKS)


def test_only_the_log_is_read_on_request(run: Path, run_program: Program) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:  # a run that passes
        if "train/nll" in row:
            row["train/nll"] = 3 * 32 * 32 * (0.5656 if row["step"] < 20 else 0.5650)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for folder in ("best", "last"):
        shutil.rmtree(run / folder)
    flags = ("--images", "0", "--thresholds.min-updates", "20")
    status, out, errors = run_program("pretrain/doctor.py", str(run), *flags)
    assert status == 0, (out, errors)
    assert "Healthy: no findings." in out
    assert "skipped no model was evaluated: reconstruction_not_learnt" in out


def test_interrupted_trainings(run: Path, run_program: Program) -> None:
    shutil.rmtree(run / "best")
    _, out, _ = run_program("pretrain/doctor.py", str(run), "--device", "cpu")
    assert "last/ (step 20) on 16 validation images" in out
    shutil.rmtree(run / "last")
    with (run / "metrics.jsonl").open("a") as rows:
        rows.write('{"step": 21, "train/nll": "nan"}\n')
    status, out, _ = run_program("pretrain/doctor.py", str(run), "--device", "cpu")
    assert status == 1 and "log only (no checkpoint)" in out
    assert "error non_finite: Not finite: nll at step 21." in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--images", "1"), "images must be"),
        (("--thresholds.max-kl", "-1"), "--thresholds.max-kl "),
        (("--device", "tpu"), "device"),
        (("--which", "first"), "first"),
    ],
)
def test_bad_flags_end_with_status_2(
    run: Path, run_program: Program, flags: tuple[str, ...], words: str
) -> None:
    status, out, errors = run_program("pretrain/doctor.py", str(run), *flags)
    assert status == 2 and words in errors and out == ""


def test_what_is_no_run_ends_with_status_2(run: Path, run_program: Program) -> None:
    status, _, errors = run_program("pretrain/doctor.py", str(run / "best"))
    assert status == 2 and str(run / "best") in errors
    (run / "best" / "model.safetensors").write_bytes(b"damaged")
    status, _, errors = run_program("pretrain/doctor.py", str(run))
    assert status == 2 and "model.safetensors" in errors
    settings = json.loads((run / "train.json").read_text())
    (run / "train.json").write_text(json.dumps(settings | {"data": "moved away"}))
    status, _, errors = run_program("pretrain/doctor.py", str(run), "--which", "last")
    assert status == 2 and "moved away" in errors
