"""Tables of probe results; scene tables follow the layout of the paper's Table 1."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from genesis_rl.evaluation.tables import format_score, group_title

#: Accuracies in % of the paper's Table 1, on the original ShapeStacks; its "Random" is "majority".
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
    """A column of scores.

    Attributes:
        title: heading.
        model: name of the corresponding column of the paper.
        scores: score by target.
        spread: suffix of the score by target, an interval or a standard deviation.
    """

    title: str
    model: str
    scores: Mapping[str, float]
    spread: Mapping[str, str]


class Layout(NamedTuple):
    """A table: the heading and rows of the same number of cells."""

    head: list[str]
    rows: list[list[str]]


def layout(result: Mapping[str, Any]) -> Layout:
    """Lay out the results of `genesis_rl.evaluation.probes.probe`.

    Cells of single runs contain the 95 % interval, those of groups the mean ± standard deviation.
    """
    columns = _columns(result)
    return _scenes(result, columns) if result["task"] == "scenes" else _objects(result, columns)


def caption(result: Mapping[str, Any]) -> str:
    """Return a caption with the metric and the numbers of images."""
    counts = result["num_images"]
    title = {
        "scenes": "Accuracy in % of MLPs on frozen latents",
        "properties": "Properties of objects from the frozen latents of the slots that took them "
        "(R2, accuracy), by ridge regression and by MLPs",
        "state": "The simulator's state from the frozen latents of all slots (R2), by ridge "
        "regression, by MLPs and by attention over slots",
    }[result["task"]]
    return f"{title}: {counts['train']:,} labelled images, {counts['test']:,} test images"


def table(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with its caption, as `genesis_rl.utils.tables` formats it."""
    return {"caption": caption(result), **layout(result)._asdict()}


def _columns(result: Mapping[str, Any]) -> list[Column]:
    by_run = {record["run"]: record for record in result["runs"]}
    columns = []
    for group in result["groups"]:
        first = by_run[group["runs"][0]]
        single = len(group["runs"]) == 1
        spread = (
            _intervals(first)
            if single
            else {k: f" ± {100 * v:.1f}" for k, v in group["std"].items()}
        )
        columns.append(Column(group_title(group), first["model"], group["mean"], spread))
    if result["task"] == "scenes":  # the paper's columns, probed or not, stand first
        order = [model for model in PAPER["stability"] if model != "majority"]
        probed = {column.model for column in columns}
        columns += [Column(model, model, {}, {}) for model in order if model not in probed]
        columns.sort(key=lambda c: order.index(c.model) if c.model in order else len(order))
    return columns + [
        Column(record["name"], record["name"], record["scores"], _intervals(record))
        for record in result["baselines"]
    ]


def _intervals(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f" [{100 * low:.1f}, {100 * high:.1f}]"
        for name, (low, high) in record.get("intervals", {}).items()
    }


def _scenes(result: Mapping[str, Any], columns: list[Column]) -> Layout:
    """Lay out a row per task and a column per model, with the paper's figures below."""
    rows = []
    for task in result["questions"]:
        measured = [
            f"{100 * c.scores[task]:.1f}{c.spread.get(task, '')}" if task in c.scores else ""
            for c in columns
        ]
        rows.append([task.replace("_", " ").capitalize(), "ours", *measured])
        if task in PAPER:
            figures = [PAPER[task].get(c.model) for c in columns]
            cells = ["" if figure is None else str(figure) for figure in figures]
            rows.append(["", "paper, original data", *cells])
    return Layout(["Task", "", *(column.title for column in columns)], rows)


def _objects(result: Mapping[str, Any], columns: list[Column]) -> Layout:
    """Lay out a row per property and head and a column per model; the first row is the IoU."""
    shown = [("match_iou", "overlap with the slot", "mean IoU")]
    for name, question in result["questions"].items():
        metric = "accuracy" if question["classes"] else "R2"
        heads = ("linear", "mlp", "attention")
        shown += [(f"{name}_{head}", name, f"{metric}, {head}") for head in heads]
    shown = [row for row in shown if any(row[0] in column.scores for column in columns)]
    rows = [
        [name, what, *(format_score(c.scores[key]) if key in c.scores else "" for c in columns)]
        for key, name, what in shown
    ]
    return Layout(["Property", "", *(column.title for column in columns)], rows)
