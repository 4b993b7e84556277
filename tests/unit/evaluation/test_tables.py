"""Aggregation and tables of evaluation records."""

import math
from typing import Any

import pytest

from genesis_rl.evaluation.runs import EvaluateConfig, group
from genesis_rl.evaluation.tables import SECTIONS, tables


def record(run: str, *, seed: int = 0, slots: int = 3, **scores: float | None) -> dict[str, Any]:
    return {
        "run": f"runs/{run}",
        "model": "genesis",
        "model_config": {"sigma_x": 0.7},
        "num_slots": slots,
        "scores": scores,
        "baselines": {"one_slot": {"ari": 0.125}, "fixed_grid": {"ari": slots / 10}},
        "training": {"step": 5, "config": {"seed": seed, "out": run, "steps": 10}},
    }


def shown(records: list[dict[str, Any]]) -> tuple[list[list[Any]], dict[str, list[Any]]]:
    """Return the tables' headers, and the cells by score."""
    found = tables({"runs": records, "groups": group(records)})
    keys = {row.name: row.key for rows in SECTIONS.values() for row in rows}
    rows = [row for table in found for row in table["rows"]]
    headers = [table["head"][2:] for table in found]
    return headers, {keys[str(name)]: cells for name, _, *cells in rows}


def test_runs_of_other_seeds_are_one_group() -> None:
    records = [record("a", seed=0, ari=0.5, sc=0.2), record("b", seed=1, ari=0.8, sc=None)]
    (only,) = group(records)
    assert only["label"] == "genesis" and only["runs"] == ["runs/a", "runs/b"]
    assert only["mean"] == {"ari": pytest.approx(0.65), "sc": None}
    assert only["std"] == {"ari": pytest.approx(0.3 / math.sqrt(2)), "sc": None}


def test_chains_of_runs_are_one_group_by_their_seeds() -> None:
    records = [record(f"b-{seed}", seed=seed, ari=0.5) for seed in (0, 1, 2)]
    for seed, init in enumerate(("runs/a-0", "runs/a-1", "runs/other-2")):
        records[seed]["training"]["config"]["init"] = init
    assert [entry["runs"] for entry in group(records)] == [["runs/b-0", "runs/b-1"], ["runs/b-2"]]


def test_runs_in_stages_are_one_group() -> None:
    records = [record(f"b-{seed}", seed=seed, ari=0.5) for seed in (0, 1)]
    for entry in records:
        config = entry["training"]["config"]
        config["init"] = f"{config['out']}/stage-1"
    (only,) = group(records)
    assert only["runs"] == ["runs/b-0", "runs/b-1"]


def test_one_run_has_no_deviation() -> None:
    (only,) = group([record("a", ari=0.5)])
    assert only["mean"] == {"ari": 0.5} and only["std"] == {"ari": None}


@pytest.mark.parametrize("change", ["model", "model_config", "training"])
def test_other_settings_are_other_groups(change: str) -> None:
    other = record("b", ari=1.0)
    if change == "model":
        other["model"] = "monet"
    elif change == "model_config":
        other["model_config"] = {"sigma_x": 0.3}
    else:
        other["training"]["config"]["steps"] = 20
    groups = group([record("a", ari=0.0), other, record("c", seed=2, ari=2.0)])
    assert [entry["runs"] for entry in groups] == [["runs/a", "runs/c"], ["runs/b"]]
    labels = [entry["label"] for entry in groups]
    assert labels == (["genesis", "monet"] if change == "model" else ["genesis (a)", "genesis (b)"])


def test_models_without_a_run_are_grouped_by_their_config() -> None:
    records = [record("a", ari=0.0), record("b", ari=1.0)]
    for each in records:
        each["training"] = None
    assert [entry["mean"] for entry in group(records)] == [{"ari": 0.5}]


def test_tables_show_means_deviations_and_baselines() -> None:
    headers, rows = shown(
        [record("a", ari=0.5, mse=0.0123), record("b", seed=1, ari=0.8, mse=0.0143)]
    )
    # Only tables with scores of a baseline have its column.
    assert headers == [["genesis, 2 runs"], ["genesis, 2 runs", "one slot", "fixed grid"]]
    assert rows == {"mse": ["0.0133 ± 0.0014"], "ari": ["0.6500 ± 0.2121", "0.1250", "0.3000"]}


def test_grids_are_told_apart_by_their_cells() -> None:
    (header,), rows = shown([record("a", ari=0.5), record("b", slots=6, ari=None)])
    assert len(header) == 4 and "3" in header[2] and "6" in header[3]
    assert rows["ari"][2:] == ["0.3000", "0.6000"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [(-2240.27, "-2240"), (17.451, "17.45"), (1.0, "1.000"), (0.0, "0.0000"), (None, "-")],
)
def test_cells(value: float | None, cell: str) -> None:
    assert shown([record("a", nll=value)])[1] == {"nll": [cell]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ()}, r"^models "),
        ({"models": ("a", "b", "a")}, r"^models "),
        ({"split": "all"}, r"^split "),
        ({"which": "worst"}, r"^which "),
        ({"frechet": "fid"}, r"^frechet "),
        ({"num_images": 0}, r"^num_images "),
        ({"data_options": '{"a": 1}'}, r"^data "),
        ({"inception_weights": "w.pth"}, r"^frechet "),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**{"models": ("a",), **change})
