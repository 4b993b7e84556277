"""pretrain/share.py on a run of pretrain/train.py, with a fake Hub."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch import nn

import genesis_rl
from genesis_rl.checkpoints import hub

Program = Callable[..., tuple[int, str, str]]
TRAIN = ("--preset", "smoke", "--device", "cpu", "--threads", "1", "--no-tensorboard")
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def run(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_program: Program
) -> Path:
    """A run of a few steps, made once."""
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    made = data_root / "run"
    if not made.exists():
        status, _, errors = run_program("pretrain/train.py", *TRAIN, "--out", str(made))
        assert status == 0, errors
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What reaches the Hub."""
    seen: dict[str, Any] = {}

    class FakeApi:
        def __init__(self, **_: Any) -> None:
            pass

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            if repo_id.startswith("other/"):
                raise PermissionError("403 Forbidden")
            seen.update(repo=repo_id, private=private)

        def upload_folder(self, *, folder_path: Path, **_: Any) -> Any:
            seen["files"] = {path.name: path.read_text("latin-1") for path in folder_path.iterdir()}
            return type("Commit", (), {"commit_url": "https://hub/commit"})

    monkeypatch.setattr(hub, "HfApi", FakeApi)
    return seen


def test_a_run_is_made_ready_for_others(run: Path, tmp_path: Path, run_program: Program) -> None:
    out = tmp_path / "shared" / "encoder"
    status, printed, errors = run_program("pretrain/share.py", str(run), "--out", str(out), *CPU)
    assert (status, printed) == (0, str(out)), errors
    names = sorted(path.name for path in out.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    ours, theirs = genesis_rl.load(run, "cpu"), genesis_rl.load(out, "cpu")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(ours.infer(x).features, theirs.infer(x).features)

    card = ModelCard.load(out / "README.md")
    assert card.data.to_dict()["datasets"] == ["object_goal"]
    assert "On 16 held-out images (test split of object_goal):" in card.text
    assert "| mSC | high |" in card.text and "fixed grid" in card.text
    assert "20 updates are few" in card.text  # what the doctor finds
    assert re.search(r"\| hardware \| .+ \(1 thread\) \|", card.text)
    assert f"torch {torch.__version__}" in card.text
    for path in out.glob("*.*s*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "out" not in json.loads((out / "config.json").read_text())["training"]


def test_weights_are_rounded_on_request(run: Path, tmp_path: Path, run_program: Program) -> None:
    out = tmp_path / "encoder"
    flags = ("--out", str(out), "--precision", "bf16", "--name", "encoder", *CPU)
    status, _, errors = run_program("pretrain/share.py", str(run), *flags)
    assert status == 0, errors
    state = load_file(out / "model.safetensors")
    assert state["encoder.head.weight"].dtype == torch.bfloat16
    assert state["encoder.convs.0.norm.running_var"].dtype == torch.float32
    rounded, whole = (cast("nn.Module", genesis_rl.load(path, "cpu")) for path in (out, run))
    for name, parameter in whole.named_parameters():
        again = rounded.get_parameter(name)
        assert again.dtype == torch.float32
        torch.testing.assert_close(again, parameter, rtol=2**-8, atol=0)
    assert 'genesis_rl.load("encoder")' in (out / "README.md").read_text()


def test_the_use_that_the_card_shows_works(run: Path, tmp_path: Path, run_program: Program) -> None:
    out = tmp_path / "encoder"
    assert run_program("pretrain/share.py", str(run), "--out", str(out), *CPU)[0] == 0
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {"images": torch.rand(2, 3, 32, 32)}
    exec(code.replace("OWNER/NAME", str(out)), names)
    assert names["slots"].z_m.shape[:2] == (2, 3)  # type: ignore[attr-defined]


def test_an_evaluation_is_used(run: Path, tmp_path: Path, run_program: Program) -> None:
    step = json.loads((run / "last" / "config.json").read_text())["step"]
    record = {
        "data": "object_goal",
        "num_images": 4321,
        "scores": {"msc": 0.75},
        "baselines": {"one_slot": {"msc": 0.125}},
        "training": {"checkpoint": "last", "checkpoint_step": step},
    }
    (run / "evaluation-validation.json").write_text(json.dumps(record))
    flags = ("--which", "last", "--split", "validation", *CPU)

    def scores(name: str, *flags: str) -> str:
        status, _, errors = run_program(
            "pretrain/share.py", str(run), "--out", str(tmp_path / name), *flags
        )
        assert status == 0, errors
        return (tmp_path / name / "README.md").read_text()

    text = scores("a", *flags)
    assert "On 4,321 held-out images (validation split" in text
    assert "| mSC | high | 0.75 | 0.125 |" in text
    for key, other in (("checkpoint", "best"), ("checkpoint_step", step - 1)):
        changed = record | {"training": record["training"] | {key: other}}  # type: ignore[operator]
        (run / "evaluation-validation.json").write_text(json.dumps(changed))
        assert "On 16 held-out images" in scores(key, *flags)
    (run / "evaluation-validation.json").write_text("{")
    assert "On 16 held-out images" in scores("broken", *flags)


def test_without_images_the_validation_is_told(
    run: Path, tmp_path: Path, run_program: Program
) -> None:
    settings = json.loads((run / "train.json").read_text())
    (run / "train.json").write_text(json.dumps(settings | {"data": str(tmp_path / "moved")}))
    out = tmp_path / "encoder"
    status, _, errors = run_program(
        "pretrain/share.py", str(run), "--out", str(out), "--images", "0", *CPU
    )
    assert status == 0, errors
    text = (out / "README.md").read_text()
    best = json.loads((run / "best" / "config.json").read_text())["validation"]["mse"]
    assert "the validation images that selected the checkpoint" in text
    assert f"| MSE of the reconstruction | low | {best:.4g} |" in text
    assert "datasets:\n- moved\n" in text and str(tmp_path) not in text


def test_a_run_is_pushed(run: Path, run_program: Program, pushed: dict[str, Any]) -> None:
    flags = ("--push", "me/encoder", "--private", "--license", "mit", "--title", "Encoder", *CPU)
    status, printed, errors = run_program("pretrain/share.py", str(run), *flags)
    assert (status, printed) == (0, "https://hub/commit"), errors
    assert (pushed["repo"], pushed["private"]) == ("me/encoder", True)
    assert sorted(pushed["files"]) == ["README.md", "config.json", "model.safetensors"]
    assert 'genesis_rl.load("me/encoder")' in pushed["files"]["README.md"]
    assert "# Encoder" in pushed["files"]["README.md"]


def test_what_was_written_survives_a_refused_push(
    run: Path, tmp_path: Path, run_program: Program, pushed: dict[str, Any]
) -> None:
    out = tmp_path / "encoder"
    flags = ("--push", "other/encoder", *CPU)
    status, _, errors = run_program("pretrain/share.py", str(run), "--out", str(out), *flags)
    assert status == 2 and "403 Forbidden" in errors
    assert f"hf upload other/encoder {out}" in errors
    assert genesis_rl.load(out, "cpu") and pushed == {}
    status, _, errors = run_program("pretrain/share.py", str(run), *flags)
    assert status == 2 and "403 Forbidden" in errors and "written" not in errors


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--out or --push "),
        (("--push", "encoder"), "push must be"),
        (("--out", "{run}"), "out must be"),
        (("--out", "{run}/train.json"), "out must be"),
        (("--out", "new", "--images", "1"), "images must be"),
    ],
)
def test_misuse_ends_with_status_2(
    run: Path, run_program: Program, flags: tuple[str, ...], words: str
) -> None:
    flags = tuple(flag.replace("{run}", str(run)) for flag in flags)
    status, printed, errors = run_program("pretrain/share.py", str(run), *flags)
    assert status == 2 and words in errors and printed == ""


def test_what_is_no_run_is_refused(tmp_path: Path, run_program: Program) -> None:
    status, _, errors = run_program(
        "pretrain/share.py", str(tmp_path), "--out", str(tmp_path / "new")
    )
    assert status == 2 and "pretrain/train.py" in errors
    assert not (tmp_path / "new").exists()
