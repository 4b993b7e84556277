"""pretrain/export.py: output files, and invalid flags."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import genesis_rl.checkpoints.export
from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.models import MODELS, build_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_a_run_is_exported(
    data_root: Path, tmp_path: Path, run_program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(data_root))
    run = tmp_path / "run"
    flags = ("--preset", "smoke", "--out", str(run), "--steps", "2", "--no-tensorboard")
    status, _, errors = run_program("pretrain/train.py", *flags, "--device", "cpu")
    assert status == 0, errors
    status, text, errors = run_program("pretrain/export.py", str(run), "--repeats", "1")
    assert status == 0 and not errors
    assert str(run / "encoder.onnx") in text
    for words in ("opset 18", "largest deviation from PyTorch: z_m", "onnxruntime", "batch 32"):
        assert words in text
    # Run the docstring's example verbatim.
    _, example = (genesis_rl.checkpoints.export.__doc__ or "").split("    import json\n")
    code = "\n".join(line.strip() for line in example.splitlines() if line.startswith("    "))
    namespace: dict[str, np.ndarray] = {}
    monkeypatch.chdir(run)
    exec("import json\n" + code, namespace)
    assert namespace["features"].shape == (1, 3, 8 + 4)
    assert namespace["log_pi"].shape == (1, 3, 1, 32, 32)


def test_a_saved_model_is_exported_to_out(tmp_path: Path, run_program: Run) -> None:
    torch.manual_seed(0)
    model = build_model(MODELS["dc_vae"][0](image_size=32, encoder_channels=(4,) * 5))
    save_pretrained(model, tmp_path / "model")
    out = tmp_path / "a" / "b.onnx"
    status, text, errors = run_program(
        "pretrain/export.py", str(tmp_path / "model"), "--out", str(out), "--repeats", "0"
    )
    assert status == 0, errors
    assert str(out) in text and "ms/pass" not in text
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["model"] == "dc_vae"


def test_invalid_flags_exit_with_status_2(tmp_path: Path, run_program: Run) -> None:
    iodine = build_model(MODELS["iodine"][0](image_size=32, num_slots=2))
    save_pretrained(iodine, tmp_path / "iodine")
    (tmp_path / "file").touch()
    out = ("--out", str(tmp_path / "file" / "e.onnx"))
    vae = build_model(MODELS["dc_vae"][0](image_size=32, encoder_channels=(4,) * 5))
    save_pretrained(vae, tmp_path / "vae")
    for flags, words in (
        ((str(tmp_path),), ": encoder "),
        ((str(tmp_path / "iodine"),), "IODINE"),
        ((str(tmp_path / "vae"), *out), ": --out "),
        ((str(tmp_path / "vae"), "--out", str(tmp_path)), ": --out "),
        ((str(tmp_path / "vae"), "--repeats", "-1"), ": --repeats "),
    ):
        status, _, errors = run_program("pretrain/export.py", *flags)
        assert status == 2, errors
        assert words in errors and "Traceback" not in errors
