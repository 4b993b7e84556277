"""The figures of a probing as tables; those of scenes are laid out as the paper's Table 1."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.table import Table

from genesis_rl.evaluation import format_score, group_title

#: Accuracies in % of the paper's Table 1, on the original ShapeStacks; "majority" is its "Random".
PAPER: dict[str, dict[str, float]] = {
    "stability": {
        "genesis": 64.0,
        "genesis_s": 63.2,
        "monet": 59.6,
        "bd_vae": 60.1,
        "dc_vae": 59.0,
        "majority": 50.0,
    },
    "height": {
        "genesis": 80.3,
        "genesis_s": 80.8,
        "monet": 88.4,
        "bd_vae": 78.6,
        "dc_vae": 67.5,
        "majority": 22.8,
    },
    "view": {
        "genesis": 99.3,
        "genesis_s": 99.7,
        "monet": 99.5,
        "bd_vae": 99.7,
        "dc_vae": 99.1,
        "majority": 6.25,
    },
}


class Column(NamedTuple):
    """Scores of one kind of features.

    Attributes:
        title: its head.
        model: which of the paper's columns it stands beside.
        scores: by question.
        spread: by question, what follows the score.
    """

    title: str
    model: str
    scores: Mapping[str, float]
    spread: Mapping[str, str]


class Layout(NamedTuple):
    """A table: the head and rows of as many cells."""

    head: list[str]
    rows: list[list[str]]


def layout(result: Mapping[str, Any]) -> Layout:
    """Lay out what `genesis_rl.probes.probe` returns.

    A run's accuracies have their 95 % interval, a group of several runs mean ± standard deviation.
    """
    columns = _columns(result)
    return _scenes(result, columns) if result["task"] == "scenes" else _objects(result, columns)


def caption(result: Mapping[str, Any]) -> str:
    """Say what was measured, in one sentence."""
    counts = result["num_images"]
    what = (
        "Accuracy in % of MLPs on frozen latents"
        if result["task"] == "scenes"
        else "Properties of objects from the frozen latents of the slots that took them (R2, "
        "accuracy), by ridge regression and by MLPs"
    )
    return f"{what}: {counts['train']:,} labelled images, {counts['test']:,} test images"


def table(result: Mapping[str, Any]) -> Table:
    """The same for the terminal."""
    head, rows = layout(result)
    shown = Table(title=caption(result), title_justify="left")
    for index, name in enumerate(head):
        shown.add_column(name, justify="left" if index < 2 else "right")
    for row in rows:
        shown.add_row(*row)
    return shown


def _columns(result: Mapping[str, Any]) -> list[Column]:
    by_run = {record["run"]: record for record in result["runs"]}
    found = []
    for group in result["groups"]:
        first = by_run[group["runs"][0]]
        single = len(group["runs"]) == 1
        spread = (
            _intervals(first)
            if single
            else {k: f" ± {100 * v:.1f}" for k, v in group["std"].items()}
        )
        found.append(Column(group_title(group), first["model"], group["mean"], spread))
    if result["task"] == "scenes":  # the paper's columns, probed or not, stand first
        order = [model for model in PAPER["stability"] if model != "majority"]
        probed = {column.model for column in found}
        found += [Column(model, model, {}, {}) for model in order if model not in probed]
        found.sort(key=lambda c: order.index(c.model) if c.model in order else len(order))
    return found + [
        Column(record["name"], record["name"], record["scores"], _intervals(record))
        for record in result["baselines"]
    ]


def _intervals(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f" [{100 * low:.1f}, {100 * high:.1f}]"
        for name, (low, high) in record.get("intervals", {}).items()
    }


def _scenes(result: Mapping[str, Any], columns: list[Column]) -> Layout:
    """Tasks down, models across, each task's figures above the paper's."""
    rows = []
    for task in result["questions"]:
        ours = [
            f"{100 * c.scores[task]:.1f}{c.spread.get(task, '')}" if task in c.scores else ""
            for c in columns
        ]
        rows.append([task.replace("_", " ").capitalize(), "ours", *ours])
        if task in PAPER:
            theirs = [PAPER[task].get(c.model) for c in columns]
            told = ["" if figure is None else str(figure) for figure in theirs]
            rows.append(["", "paper, original data", *told])
    return Layout(["Task", "", *(column.title for column in columns)], rows)


def _objects(result: Mapping[str, Any], columns: list[Column]) -> Layout:
    """Properties and heads down, models across; first how well slots and objects overlap."""
    shown = [("match_iou", "overlap with the slot", "mean IoU")]
    for name, question in result["questions"].items():
        metric = "accuracy" if question["classes"] else "R2"
        shown += [(f"{name}_{head}", name, f"{metric}, {head}") for head in ("linear", "mlp")]
    rows = [
        [name, what, *(format_score(c.scores[key]) if key in c.scores else "" for c in columns)]
        for key, name, what in shown
    ]
    return Layout(["Property", "", *(column.title for column in columns)], rows)
