"""pretrain/convert.py: packs for training, damage, interruption, missing files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genesis_rl.data import Pack, open_dataset

ROOT = Path(__file__).parents[2]
PROGRAM = "pretrain/convert.py"


def images(folder: Path, count: int, side: int = 16) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        pixels = np.random.default_rng(n).integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:05}.png")


def test_all_splits_are_converted_and_opened(tmp_path: Path, run_program: Any) -> None:
    images(tmp_path / "in", 20)
    out = tmp_path / "packs"
    flags = ("images", "--source", str(tmp_path / "in"), "--out", str(out), "--image-size", "16")
    for _ in range(2):  # the second call opens the existing packs
        status, text, errors = run_program(PROGRAM, *flags)
        assert status == 0, errors
        assert f"{out}/train: 16 images {out}/validation: 2 images {out}/test: 2 images" in text
    assert [len(open_dataset(out, split)) for split in ("train", "validation", "test")] == [
        16,
        2,
        2,
    ]
    status, _, errors = run_program(PROGRAM, *flags[:-1], "8")
    assert status == 2
    assert "image_size of" in errors and "must be [8, 8], got [16, 16]" in errors


def test_packs_go_where_open_dataset_looks(
    tmp_path: Path, run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "root"))
    images(tmp_path / "root" / "images" / "original", 10)
    status, text, errors = run_program(PROGRAM, "images", "--split", "train", "--num-images", "3")
    assert status == 0, errors
    pack = open_dataset("images", num_images=3)
    assert f"{pack.folder}: 3 images" in text and pack.images.shape == (3, 64, 64, 3)


def test_damage_is_left_out_on_request(tmp_path: Path, run_program: Any) -> None:
    images(tmp_path / "in", 10)
    path = tmp_path / "in" / "00003.png"
    path.write_bytes(path.read_bytes()[:-100])
    flags = ["images", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    flags += ["--split", "train"]
    status, _, errors = run_program(PROGRAM, *flags)
    assert status == 2 and "00003.png is damaged: it cannot be decoded as an image" in errors
    assert not (tmp_path / "out" / "train").exists()
    status, text, errors = run_program(PROGRAM, *flags, "--skip-damaged")
    assert status == 0, errors
    assert "train: 7 images, damaged records skipped: 1" in text


def test_misuse_is_told_in_a_line(
    tmp_path: Path, run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path))
    for flags, message in (
        (("tetrominoes",), "from gs://multi-object-datasets/tetrominoes/tetrominoes_train.tfrec"),
        (("cats",), "data must be one of"),
        (("gqn", "--data-options", "{"), "--data-options "),
        (("gqn", "--data-options", "[]"), "--data-options "),
        (("gqn", "--data-options", '{"views": 2}'), "got 'views'"),
        (("gqn", "--num-images", "0"), "--num-images "),
    ):
        status, _, errors = run_program(PROGRAM, *flags)
        assert status == 2 and message in errors, errors


def test_a_killed_conversion_goes_on(tmp_path: Path, run_program: Any) -> None:
    images(tmp_path / "in", 2000)
    flags = ["images", "--source", str(tmp_path / "in"), "--split", "train", "--image-size", "16"]
    code = (
        "import runpy, sys; from genesis_rl.data import pack\n"
        "pack._CHECKPOINT_SECONDS = 0.0\n"
        f"sys.exit(runpy.run_path({str(ROOT / PROGRAM)!r})['main'](sys.argv[1:]))"
    )

    killed = tmp_path / "killed"
    command = [sys.executable, "-c", code, *flags, "--out", str(killed)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    journal = killed / ".train.genesis_rl" / "partial" / "journal.json"
    deadline = time.monotonic() + 60
    while not journal.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert journal.exists() and not (killed / "train").exists()
    with pytest.raises(ValueError, match="pack"):
        Pack.open(journal.parent)

    for out in (killed, tmp_path / "whole"):
        status, _, errors = run_program(PROGRAM, *flags, "--out", str(out))
        assert status == 0, errors
    resumed, whole = (Pack.open(tmp_path / name / "train") for name in ("killed", "whole"))
    np.testing.assert_array_equal(resumed.images, whole.images)
    assert len(whole) == 1600 and resumed.meta == whole.meta
    assert not journal.parent.exists()
