"""Aggregation and tables of evaluation records."""

import math
from typing import Any

import pytest
from rich.console import Console

from genesis_rl.evaluation import EvaluateConfig, group, tables


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


def text(records: list[dict[str, Any]]) -> str:
    console = Console(width=200, record=True, quiet=True)
    with console.capture() as capture:
        for table in tables({"runs": records, "groups": group(records)}):
            console.quiet = False
            console.print(table)
    return " ".join(capture.get().replace("│", " ").replace("┃", " ").split())


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
    shown = text([record("a", ari=0.5, mse=0.0123), record("b", seed=1, ari=0.8, mse=0.0143)])
    assert "better genesis, 2 runs one slot fixed grid" in shown
    assert "ARI, all pixels high 0.6500 ± 0.2121 0.1250 0.3000" in shown
    assert "MSE of the reconstruction low 0.0133 ± 0.0014" in shown
    assert "Frechet" not in shown and "mSC" not in shown
    # Baselines stand beside the scores that they have, and only there.
    assert shown.index("genesis, 2 runs") < shown.index("MSE") < shown.index("one slot")


def test_grids_are_told_apart_by_their_cells() -> None:
    shown = text([record("a", ari=0.5), record("b", slots=6, ari=None)])
    assert "fixed grid of 3 fixed grid of 6" in shown
    assert "0.3000 0.6000" in shown


@pytest.mark.parametrize(
    ("value", "cell"),
    [(-2240.27, "-2240"), (17.451, "17.45"), (1.0, "1.000"), (0.0, "0.0000"), (None, "-")],
)
def test_cells(value: float | None, cell: str) -> None:
    shown = text([record("a", nll=value)])
    assert f"nll, nats per image low {cell}" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ()}, "models must"),
        ({"models": ("a", "b", "a")}, "models must"),
        ({"split": "all"}, "split must be"),
        ({"which": "worst"}, "which must be"),
        ({"frechet": "fid"}, "frechet must be"),
        ({"num_images": 0}, "num_images must be"),
        ({"data_options": '{"a": 1}'}, "data must be"),
        ({"inception_weights": "w.pth"}, "frechet must be"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateConfig(**{"models": ("a",), **change})
