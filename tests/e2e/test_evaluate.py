"""pretrain/evaluate.py on tiny runs: one run, several seeds, pretrained models, misuse."""

import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_rl import load
from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.evaluation.metrics.features import FactorFeatures

Run = Callable[..., tuple[int, str, str]]
DATA = '{"image_size": 32, "num_images": 128, "num_objects": 2}'
FLAGS = ("--device", "cpu", "--num-images", "6", "--iw-samples", "2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(autouse=True)
def data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_RL_DATA", str(root / "data"))


@pytest.fixture
def train(root: Path, run_program: Run) -> Callable[..., str]:
    """Return a run of two steps, trained once per seed and number of objects."""

    def make(seed: int = 0, options: str = DATA) -> str:
        out = root / f"run-{seed}-{options.count('3}')}"
        if not out.exists():
            flags = ("--preset", "smoke", "--steps", "2", "--eval-images", "4", "--device", "cpu")
            more = ("--seed", str(seed), "--data-options", options, "--no-tensorboard")
            status, _, errors = run_program(
                "pretrain/train.py", *flags, *more, "--threads", "1", "--out", str(out)
            )
            assert status == 0, errors
        return str(out)

    return make


def read(path: Path | str, *parts: str) -> Any:
    return json.loads(Path(path, *parts).read_text())


def test_one_run(train: Callable[..., str], run_program: Run) -> None:
    run = train()
    status, shown, errors = run_program("pretrain/evaluate.py", run, *FLAGS, "--frechet", "none")
    assert status == 0, errors
    record = read(run, "evaluation-test.json")
    assert record["run"] == run and record["model"] == "genesis" and record["num_slots"] == 3
    assert record["data"] == "object_goal" and record["data_options"] == json.loads(DATA)
    assert (record["split"], record["num_images"], record["seed"]) == ("test", 6, 0)
    assert record["training"]["step"] == 2 and record["training"]["images_seen"] == 8
    assert record["training"]["config"]["model_name"] == "genesis"
    assert set(record["versions"]) == {"genesis_rl", "torch", "python"}
    assert set(record["baselines"]) == {"one_slot", "fixed_grid", "colour_palette"}
    assert "frechet" not in record["scores"]
    for name in ("mse", "elbo", "iwae_bpd", "msc", "objects_lost"):
        assert isinstance(record["scores"][name], float), name
    assert "object_goal, the first 6 images of the test split" in shown
    assert "Objects | better | genesis | one slot | fixed grid | colour palette ARI" in shown
    assert f"{record['baselines']['fixed_grid']['msc']:.4f}" in shown
    # Another split, and the model of the last step, into a file.
    out = Path(run).parent / "new" / "figures.json"
    more = ("--split", "validation", "--which", "last", "--out", str(out), "--frechet", "none")
    assert run_program("pretrain/evaluate.py", run, *FLAGS, *more)[0] == 0
    (other,) = read(out)["runs"]
    assert other["training"]["checkpoint"] == "last" and other["split"] == "validation"
    assert other["scores"]["mse"] != record["scores"]["mse"]


def test_several_runs_are_summed_up(train: Callable[..., str], run_program: Run) -> None:
    runs = [train(seed) for seed in (0, 1)]
    flags = (*runs, *FLAGS, "--frechet", "none")
    out = Path(runs[0]).parent / "both.json"
    status, shown, errors = run_program("pretrain/evaluate.py", *flags, "--out", str(out))
    assert status == 0, errors
    result = read(out)
    (group,) = result["groups"]
    assert group["runs"] == runs == [record["run"] for record in result["runs"]]
    values = [record["scores"]["iwae"] for record in result["runs"]]
    assert values[0] != values[1]
    assert group["mean"]["iwae"] == pytest.approx(statistics.fmean(values))
    assert group["std"]["iwae"] == pytest.approx(statistics.stdev(values))
    assert "genesis, 2 runs" in shown and "±" in shown
    # Without a file for all, each folder gets its own.
    for run in runs:
        Path(run, "evaluation-test.json").unlink(missing_ok=True)
    assert run_program("pretrain/evaluate.py", *flags)[0] == 0
    assert [read(run, "evaluation-test.json")["run"] for run in runs] == runs


def test_samples_are_scored_by_one_network(
    train: Callable[..., str], run_program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = FactorFeatures.cached
    monkeypatch.setattr(
        FactorFeatures, "cached", lambda *args, **options: cached(*args, steps=2, **options)
    )
    run = train()
    flags = ("--device", "cpu", "--iw-samples", "1", "--num-images", "132")
    status, shown, errors = run_program("pretrain/evaluate.py", run, *flags)
    assert status == 0, errors
    record = read(run, "evaluation-test.json")
    assert record["frechet"] == "own" and record["frechet_images"] == 66
    distances = {name: scores.get("frechet") for name, scores in record["baselines"].items()}
    assert record["scores"]["frechet"] > distances["real"] > 0
    assert distances["one_slot"] is None
    assert "Samples | better | genesis | real | shuffled pixels | mean image Frechet" in shown


def test_imagined_scenes_are_judged(train: Callable[..., str], run_program: Run) -> None:
    run = train()
    out = Path(run).parent / "imagined.json"
    flags = (*FLAGS, "--frechet", "none", "--imagined", "--out", str(out))
    status, shown, errors = run_program("pretrain/evaluate.py", run, *flags)
    assert status == 0, errors
    (record,) = read(out)["runs"]
    scores, real = record["scores"], record["baselines"]["real"]
    assert real["scenes_with_3"] == 1  # two objects and the agent
    assert 0.5 < real["valid"] <= real["valid_inside"] and real["nearest_pixels"] > 0.01
    assert 0 <= scores["valid"] <= scores["valid_number"] <= 1
    assert sum(scores[f"scenes_with_{n}"] for n in range(record["num_slots"])) == 1
    assert isinstance(scores["nearest_pixels"], float) and "nearest_features" not in scores
    assert "Samples | better | genesis | real share of valid scenes | high |" in shown


def test_a_saved_model(train: Callable[..., str], run_program: Run, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    save_pretrained(load(train(), device="cpu"), folder)
    flags = (str(folder), *FLAGS, "--frechet", "none")
    status, _, errors = run_program("pretrain/evaluate.py", *flags)
    assert status == 2 and "data (--data) must be" in errors
    more = ("--data", "object_goal", "--data-options", DATA)
    assert run_program("pretrain/evaluate.py", *flags, *more)[0] == 0
    record = read(folder, "evaluation-test.json")
    assert record["training"] is None
    assert run_program("pretrain/evaluate.py", train(), *FLAGS, "--frechet", "none")[0] == 0
    assert record["scores"] == read(train(), "evaluation-test.json")["scores"]


def test_misuse(train: Callable[..., str], run_program: Run, tmp_path: Path) -> None:
    three = DATA.replace("2}", "3}")
    cases: list[tuple[tuple[str, ...], str]] = [
        ((train(), train(0, three)), "Set --data"),
        ((str(tmp_path),), "must be a run"),
        ((train(),), "--num-images "),
        ((train(), "--frechet", "inception"), "--num-images "),
        ((train(), "--split", "all"), "invalid choice"),
        ((train(), "--data", "nothing"), "got 'nothing'"),
        ((train(), "--data", "object_goal"), "images of 32 x 32 px"),
        ((train(), "--frechet", "none", "--out", os.devnull + "/x"), os.devnull),
    ]
    for arguments, message in cases:
        status, _, errors = run_program("pretrain/evaluate.py", *arguments, *FLAGS)
        assert status == 2, arguments
        assert message in errors, errors
    other = (train(), train(0, three), *FLAGS, "--frechet", "none")
    more = ("--data", "object_goal", "--data-options", DATA, "--out", str(tmp_path / "all.json"))
    status, shown, errors = run_program("pretrain/evaluate.py", *other, *more)
    assert status == 0, errors
    assert "genesis (run-0-0)" in shown and "genesis (run-0-1)" in shown
