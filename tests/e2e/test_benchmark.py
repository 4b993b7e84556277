"""tools/benchmark.py on a tiny model and a small matrix product."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness, models

TINY = (
    *("--model.image-size", "32", "--model.num-slots", "3"),
    *("--model.encoder-channels", "4", "4", "4", "4", "4"),
    *("--model.decoder-channels", "4", "4", "4", "4", "4"),
    *(
        "--batch-size",
        "4",
        "--encode-batches",
        "1",
        "4",
        "--repeats",
        "3",
        "--warmup",
        "1",
        "--device",
        "cpu",
        "--no-compile",
    ),
)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_rates_are_measured_and_scaled(
    precision: str, run_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "MATMUL_SIDE", 256)
    out = tmp_path / "new" / "speed.json"
    flags = (*TINY, "--precision", precision, "--out", str(out))
    status, text, errors = run_program("tools/benchmark.py", *flags)
    assert status == 0, errors
    result = json.loads(out.read_text())
    assert set(result["rates"]) == {"train", "encode", "encode_one", "sample"}
    for name, rate in result["rates"].items():
        assert rate > 0
        assert result["per_tflops"][name] == pytest.approx(rate / result["matmul_tflops"])
        assert f"{rate:.1f}" in text
    loading = result["loading"]
    assert loading["per_training"] == pytest.approx(loading["images"] / result["rates"]["train"])
    assert loading["per_training"] > 5  # data never keep training waiting
    assert f"{loading['per_training']:.0f} times" in text
    # A batch is faster, image by image, than single ones.
    assert result["rates"]["encode"] > result["rates"]["encode_one"]
    assert result["config"]["model"]["num_slots"] == 3
    assert list(result["encoding"]) == ["1", "4"]
    # Forward and back take three times the forward pass, which is more than the encoder's part.
    counted = result["operations"]
    assert counted["train"] > 3 * counted["encode"] > 0
    assert result["share"]["train"] == pytest.approx(
        result["rates"]["train"] * counted["train"] / result["conv_tflops"] / 1e12
    )
    assert result["memory"]["kept_bytes"] > 3 * 32 * 32 * 4


def test_costs_grow_with_slots_and_parts_add_up(
    run_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "MATMUL_SIDE", 256)
    monkeypatch.setattr(models, "AXES", {"num_slots": (2, 8), "image_size": (32, 64)})
    out = tmp_path / "speed.json"
    flags = (*TINY, "--scaling", "--parts", "--out", str(out))
    status, text, errors = run_program("tools/benchmark.py", *flags)
    assert status == 0, errors
    result = json.loads(out.read_text())
    assert "*exponent*" in text and "mask_decoder" in text
    slots = result["scaling"]["num_slots"]
    assert [cost["value"] for cost in slots["costs"]] == [2, 8]
    assert 0 < slots["exponents"]["train"] < 1.5
    # What is kept for the gradient grows with the slots, and in proportion to the pixels.
    assert 0.5 < slots["exponents"]["kept_bytes"] < 1.1
    assert result["scaling"]["image_size"]["exponents"]["kept_bytes"] == pytest.approx(1, abs=0.2)
    rows = {row["part"]: row for row in result["parts"]["parts"]}
    assert {"encoder", "mask_decoder", "component_encoder", "component_decoder"} <= set(rows)
    whole = rows.pop("whole model")
    # Most operations are in the networks; the densities and the LSTM's cells are the rest.
    assert sum(row["gflop"] for row in rows.values()) == pytest.approx(whole["gflop"], rel=0.05)
    assert all(0 < row["forward_share"] for row in rows.values())


def test_misuse(run_program: Any) -> None:
    for flags in (("--repeats", "0"), ("--threads", "0"), ("--device", "tpu")):
        status, _, errors = run_program("tools/benchmark.py", *flags)
        assert status == 2, flags
        assert f"{flags[0].strip('-')} must be" in errors, errors
