"""tools/reproduce.py: matching and differing scores, and the published results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.checkpoints.weights import shipped
from genesis_rl.evaluation.runs import EvaluateConfig, evaluate
from published.reproduction import largest_difference, published_scores

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
FILE = "fast-2.json"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a results folder with a file on a model of the package and one on a run."""
    monkeypatch.setenv("GENESIS_RL_DATA", str(tmp_path / "data"))
    folder = tmp_path / "results"
    evaluate(
        EvaluateConfig(
            ("sprites-fast",),
            num_images=6,
            seed=3,
            iw_samples=1,
            refine_steps=2,
            frechet="none",
            data="object_goal",
            data_options='{"image_size": 32, "num_images": 64}',
            out=folder / FILE,
            device="cpu",
        )
    )
    result = json.loads((folder / FILE).read_text())
    result["runs"][0]["run"] = "runs/sprites-fast"
    (folder / "run.json").write_text(json.dumps(result))
    section = {"title": "x", "across": [FILE, "run.json"]}
    index = [{"page": "x", "title": "x", "sections": [section]}]
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def flags(results: Path) -> tuple[str, ...]:
    return "--folder", str(results), "--out", str(results.parent / "again"), "--device", "cpu"


def test_figures_that_hold(results: Path, run_program: Run) -> None:
    status, printed, errors = run_program("tools/reproduce.py", *flags(results))
    assert status == 0, errors
    assert "sprites-fast, 6 images of object_goal, 2 refinement steps: ARI-FG 0." in printed
    assert "1 of 1 files match" in printed
    first, again = (
        json.loads((folder / FILE).read_text())["runs"][0]
        for folder in (results, results.parent / "again")
    )
    settings = ("seed", "iw_samples", "refine_steps", "data_options", "split", "frechet")
    assert [again[name] for name in settings] == [first[name] for name in settings]


def test_a_figure_that_does_not_hold_is_named(results: Path, run_program: Run) -> None:
    result: dict[str, Any] = json.loads((results / FILE).read_text())
    result["runs"][0]["scores"]["msc"] += 0.01
    (results / FILE).write_text(json.dumps(result))
    status, printed, _ = run_program("tools/reproduce.py", "sprites-fast", *flags(results))
    assert status == 1
    assert "largest difference 1.0e-02 (msc)" in printed and "0 of 1 files" in printed
    status, printed, _ = run_program("tools/reproduce.py", *flags(results), "--tolerance", "0.02")
    assert status == 0 and "1 of 1 files match within a tolerance of 0.02." in printed


def test_a_model_that_does_not_come_along_is_named(results: Path, run_program: Run) -> None:
    status, _, errors = run_program("tools/reproduce.py", "encoder", *flags(results))
    assert status == 2 and ": models " in errors


@pytest.mark.parametrize("damage", ["{}", "[]", "{", '{"runs": [{"run": "sprites-fast"}]}'])
def test_a_damaged_file_is_named(damage: str, results: Path, run_program: Run) -> None:
    (results / "run.json").write_text(damage)
    status, _, errors = run_program("tools/reproduce.py", *flags(results))
    assert status == 2 and "run.json" in errors


def test_differences_are_relative_beyond_one() -> None:
    page = {"nll": -800.0, "msc": 0.9, "active": None}
    for change, difference in (({"nll": -804.0}, 0.005), ({"msc": 0.8}, 0.1), ({}, 0.0)):
        found, name = largest_difference(page, {**page, **change})
        assert found == pytest.approx(difference) and (not change or name in change)
    assert largest_difference(page, {**page, "active": 1.0}) == (float("inf"), "active")
    assert largest_difference({**page, "twins": 1.0}, page) == (float("inf"), "twins")
    # A score of a later version.
    assert largest_difference(page, {**page, "twins": 1.0})[0] == 0


def test_the_page_has_figures_of_every_model_that_comes_along() -> None:
    found = published_scores(ROOT / "results")
    assert {published.config.models[0] for published in found} == set(shipped())
    assert len({published.file for published in found}) == len(found)
