"""pretrain/generate.py: joined shards equal the whole dataset, byte for byte."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genesis_rl.data import Pack, open_dataset

Run = Callable[..., tuple[int, str, str]]
PROGRAM = "pretrain/generate.py"
OPTIONS = {
    "multi_dsprites": {"image_size": 32, "seed": 3},
    "object_goal": {"image_size": 16, "num_objects": 2, "seed": 3},
}


@pytest.mark.parametrize("data", OPTIONS)
def test_shards_joined_are_the_whole(data: str, run_program: Run, tmp_path: Path) -> None:
    options = json.dumps(OPTIONS[data])
    flags = (data, str(tmp_path / "out"), "--options", options, "--split", "train")
    for shard in (2, 0, 1):  # in any order
        status, _, errors = run_program(
            PROGRAM, *flags, "--num-images", "50", "--shards", "3", "--shard", str(shard)
        )
        assert status == 0, errors
    status, shown, errors = run_program(PROGRAM, *flags, "--join")
    assert status == 0, errors
    assert shown.strip() == str(tmp_path / "out" / "train")
    joined = Pack.open(tmp_path / "out" / "train")
    whole = open_dataset(data, "train", root=tmp_path / "root", num_images=50, **OPTIONS[data])
    assert len(joined) == 50 and joined.masks is not None and whole.masks is not None
    np.testing.assert_array_equal(joined.images, whole.images)
    np.testing.assert_array_equal(joined.masks, whole.masks)
    assert joined.factors.keys() == whole.factors.keys()
    for name, values in whole.factors.items():
        np.testing.assert_array_equal(joined.factors[name], values)
    assert len(open_dataset(tmp_path / "out", "train")) == 50


def test_all_at_once_and_by_a_job_array(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("object_goal", "--options", json.dumps(OPTIONS["object_goal"]), "--num-images", "8")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    status, _, errors = run_program(PROGRAM, *flags, str(whole))
    assert status == 0, errors
    assert sorted(p.name for p in whole.glob("[!.]*")) == ["test", "train", "validation"]
    for task in range(2):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        status, _, errors = run_program(PROGRAM, *flags, str(parts), "--shards", "2")
        assert status == 0, errors
    before = (parts / "shards" / "train" / "shard-00001-of-00002").stat().st_mtime_ns
    assert run_program(PROGRAM, *flags, str(parts), "--shards", "2")[0] == 0
    assert (parts / "shards" / "train" / "shard-00001-of-00002").stat().st_mtime_ns == before
    for _ in range(2):  # existing packs are not joined again
        status, _, errors = run_program(PROGRAM, *flags, str(parts), "--join")
        assert status == 0, errors
    for split in ("train", "validation", "test"):
        a, b = Pack.open(whole / split), Pack.open(parts / split)
        np.testing.assert_array_equal(a.images, b.images)


def test_misuse(run_program: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    quick = ("--options", json.dumps(OPTIONS["object_goal"]), "--num-images", "4")
    for arguments, message in (
        (("clevr", out), "data must be one of"),
        (("object_goal", out, *quick, "--shards", "2", "--shard", "2"), "shard must be"),
        (("object_goal", out, *quick, "--shards", "5", "--shard", "0"), "shards must be"),
        (("object_goal", out, "--num-images", "0"), "--num-images "),
        (("object_goal", out, "--join"), "got none"),
        (("object_goal", out, "--options", '{"size": 3}'), "got 'size'"),
    ):
        status, _, errors = run_program(PROGRAM, *arguments)
        assert status == 2 and message in errors, errors
    only = ("object_goal", out, *quick, "--split", "train", "--shards", "3", "--shard", "0")
    assert run_program(PROGRAM, *only)[0] == 0
    status, _, errors = run_program(PROGRAM, "object_goal", out, "--split", "train", "--join")
    assert status == 2 and "2 are missing, first shard-00001-of-00003" in errors


def test_existing_packs_must_match(run_program: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    options = OPTIONS["object_goal"]
    other = json.dumps({**options, "seed": 4})

    def draw(*flags: str) -> tuple[int, str]:
        status, _, errors = run_program(PROGRAM, "object_goal", out, "--split", "train", *flags)
        return status, errors

    mine = ("--options", json.dumps(options), "--shards", "2")
    assert draw(*mine, "--num-images", "8", "--shard", "0")[0] == 0
    status, errors = draw("--options", other, *mine[2:], "--num-images", "8", "--shard", "0")
    assert status == 2 and "must have seed 4, got 3" in errors
    status, errors = draw(*mine, "--num-images", "20", "--shard", "0")
    assert status == 2 and "must have 10 of 20 images in 2 shards, got 4" in errors
    # Shards of splits of different sizes are not joined.
    assert draw(*mine, "--num-images", "20", "--shard", "1")[0] == 0
    status, errors = draw("--join")
    assert status == 2 and "splits of different sizes" in errors
