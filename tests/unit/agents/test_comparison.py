"""Summary of runs: interquartile means and intervals by hand, and the published results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_rl.agents.comparison.grid import CompareConfig, grid_runs
from genesis_rl.agents.comparison.summary import (
    PUBLISHED,
    bootstrap_interval,
    iqm,
    short_name,
    summarise,
    write_summary,
)
from genesis_rl.agents.config import AgentConfig

SHARED = Path(__file__).parents[4] / "shared" / "rl_tasks.md"


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    # Of eight runs, the two lowest and the two highest are trimmed.
    assert iqm([[0.0, 1.0, 0.2, 0.4], [0.9, 0.1, 0.3, 0.5]]) == pytest.approx(1.4 / 4)
    # A quarter of five runs is 1.25: one is trimmed at each end.
    assert iqm([[0.0, 0.3, 0.6, 0.9, 1.0]]) == pytest.approx(0.6)
    assert iqm([[0.7]]) == pytest.approx(0.7)


def test_the_interval_is_that_of_all_draws_of_each_task() -> None:
    # Of four scores the middle two count: the better of the first task's draws, 0 (one in four) or
    # 0.5, and the worse of the second's, 1 (one in four) or 0.6. So the draws have 0.3, 0.5, 0.55
    # and 0.75 in 3, 1, 9 and 3 of 16 cases.
    tasks = [[0.0, 0.5], [0.6, 1.0]]
    assert bootstrap_interval(tasks, confidence=0.8) == pytest.approx((0.3, 0.75))
    assert bootstrap_interval(tasks, confidence=0.6) == pytest.approx((0.5, 0.55))
    # Without stratification, a sample could have all runs of one task.
    assert bootstrap_interval([[0.0, 0.0], [1.0, 1.0]], reps=1000) == (0.5, 0.5)


def test_the_interval_is_repeatable_and_narrows() -> None:
    rng = np.random.default_rng(0)
    few, many = list(rng.random((2, 3))), list(rng.random((2, 50)))
    assert bootstrap_interval(few, reps=5000) == bootstrap_interval(few, reps=5000)
    width = [high - low for low, high in (bootstrap_interval(few), bootstrap_interval(many))]
    assert width[1] < width[0] / 2


@pytest.mark.parametrize("scores", [[], [[]], [[0.5], []], [[[0.5]]]])
def test_scores_that_are_none_are_refused(scores: Any) -> None:
    with pytest.raises(ValueError, match="scores"):
        iqm(scores)


@pytest.mark.parametrize("options", [{"reps": 0}, {"confidence": 1.0}])
def test_bad_options_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        bootstrap_interval([[0.5]], **options)


def record(task: str, label: str, seed: int, success: float, **more: Any) -> dict[str, Any]:
    scores = {"success_rate": success, "success_interval": [success - 0.1, success + 0.1]}
    return {
        "task": task,
        "label": label,
        "seed": seed,
        "success": success,
        "steps": 1000,
        "seconds": 1800.0,
        "curve": {"steps": [100, 1000], "seconds": [60, 1800], "success": [0.0, success]},
        "evaluation": {"agent": scores},
        "encoder": None,
    } | more


def test_the_table_includes_the_published_results(tmp_path: Path) -> None:
    goal, push = "genesis_rl/ObjectGoal-v0", "module:genesis_rl/ObjectInteraction-v0"
    chance = {"success_rate": 0.25, "success_interval": [0.2, 0.3]}
    encoder = {
        "source": "runs/encoder",
        "model": "genesis",
        "fingerprint": "0123456789abcdef",
        "scores": {"ari": 0.5},
    }
    records = [
        record(goal, "state", 0, 0.6),
        record(goal, "state", 1, 0.8),
        record(push, "state", 0, 0.2),
        record(push, "state", 1, 0.2),
        record(goal, "genesis-encoder", 0, 0.4, encoder=encoder),
    ]
    records[0]["evaluation"]["random"] = chance
    summary = write_summary(records, tmp_path / "rl.json", reps=500)
    assert json.loads((tmp_path / "rl.json").read_text()) == summary
    for name in ("rl-steps.png", "rl-minutes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    table, encoders = summary["tables"]
    assert table["head"][:4] == ["observation", "ObjectGoal", "ObjectInteraction", "all tasks"]
    rows = {row[0]: row[1:] for row in table["rows"]}
    assert rows["state"][:2] == ["0.700 (0.600 to 0.800, 2 runs)", "0.200 (0.200 to 0.200, 2 runs)"]
    assert rows["state"][2].startswith("0.400 (")
    assert rows["state"][3:] == ["1,000", "0.50"]
    assert rows["genesis-encoder"][:3] == ["0.400 (0.300 to 0.500)", "", ""]
    assert rows["random policy"][:2] == ["0.250 (0.200 to 0.300)", ""]
    assert rows["*published: SLATE*"][:2] == ["0.985", "0.787"]
    assert encoders["rows"] == [["genesis-encoder", "genesis", "0123456789ab", "0.500"]]
    with pytest.raises(ValueError, match="records"):
        summarise([])


def test_one_run_a_task_has_no_interval_over_tasks() -> None:
    summary = summarise([record("A-v0", "state", 0, 0.6), record("B-v0", "state", 0, 0.8)])
    (table,) = summary["tables"]
    assert table["rows"][0][3] == "0.700"
    assert len(table["rows"]) == 2  # nothing is published of these tasks
    assert "Published" not in table["caption"]


@pytest.mark.parametrize(
    ("task", "name"),
    [("genesis_rl/ObjectGoal-v0", "ObjectGoal"), ("m:CarRacing-v3", "CarRacing"), ("Own", "Own")],
)
def test_names_are_short(task: str, name: str) -> None:
    assert short_name(task) == name


def test_the_published_figures_are_those_on_record() -> None:
    if not SHARED.is_file():
        pytest.skip(f"{SHARED} is not here")
    lines = [line.split("|")[1:-1] for line in SHARED.read_text().splitlines() if "| ." in line]
    written = {row[0].strip(): tuple(float(cell) for cell in row[1:]) for row in lines}
    assert written == PUBLISHED.success


def test_the_grid_is_every_combination_once() -> None:
    config = CompareConfig(
        tasks=("A-v0", "n/B-v0"),
        obs=("state", "genesis=runs/encoder"),
        seeds=(3, 4),
        agent=AgentConfig(obs="pixels", keep=("joints",), total_timesteps=7, progress=True),
        jobs=2,
        out=Path("grid"),
    )
    grid = grid_runs(config)
    assert {run.config.keep for run in grid if run.config.obs == "state"} == {()}
    assert {run.config.keep for run in grid if run.config.obs == "genesis"} == {("joints",)}
    assert len(grid) == 8
    assert len({run.folder for run in grid}) == 8
    last = grid[-1]
    assert last.folder == Path("grid/n_B-v0/genesis-encoder/4")
    assert (last.config.obs, last.config.encoder, last.config.seed) == (
        "genesis",
        "runs/encoder",
        4,
    )
    assert (last.config.env, last.config.total_timesteps) == ("n/B-v0", 7)
    assert not last.config.progress  # the bars of several runs would mix
    assert [run.first for run in grid] == [True, False, True, False, *[False] * 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "tasks"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"obs": ("genesis=a/encoder", "genesis=b/encoder")}, "obs"),
        ({"episodes": 0}, "episodes"),
        ({"jobs": 0}, "jobs"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompareConfig(**changes)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ("sound", "obs"),
        ("genesis", "obs"),
        ("state=runs/encoder", "encoder"),
    ],
)
def test_invalid_observations_are_named(obs: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_runs(CompareConfig(obs=(obs,)))
