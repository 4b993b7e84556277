"""pretrain/benchmark.py on a tiny model and a small matrix product."""

import json
from pathlib import Path
from typing import Any

import pytest

from genesis_rl import benchmark

TINY = (
    *("--model.image-size", "32", "--model.num-slots", "3"),
    *("--model.encoder-channels", "4", "4", "4", "4", "4"),
    *("--model.decoder-channels", "4", "4", "4", "4", "4"),
    *("--batch-size", "4", "--repeats", "3", "--warmup", "1", "--device", "cpu", "--no-compile"),
)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_rates_are_measured_and_scaled(
    precision: str, run_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "_MATMUL_SIDE", 256)
    out = tmp_path / "new" / "speed.json"
    flags = (*TINY, "--precision", precision, "--out", str(out))
    status, text, errors = run_program("pretrain/benchmark.py", *flags)
    assert status == 0, errors
    result = json.loads(out.read_text())
    assert set(result["rates"]) == set(result["authors"]) == {"train", "encode", "encode_one"}
    for name, rate in result["rates"].items():
        assert rate > 0
        assert result["per_tflops"][name] == pytest.approx(rate / result["matmul_tflops"])
        assert f"{rate:.1f}" in text
    loading = result["loading"]
    assert loading["per_training"] == pytest.approx(loading["images"] / result["rates"]["train"])
    assert loading["per_training"] > 5  # data never keep training waiting
    assert f"loading, images: {loading['images']:.1f} per s" in text
    # A batch is faster, image by image, than single ones.
    assert result["rates"]["encode"] > result["rates"]["encode_one"]
    assert result["config"]["model"]["num_slots"] == 3


def test_misuse(run_program: Any) -> None:
    for flags in (("--repeats", "0"), ("--threads", "0"), ("--device", "tpu")):
        status, _, errors = run_program("pretrain/benchmark.py", *flags)
        assert status == 2, flags
        assert "wanted" in errors, errors
