"""Tables of the results of evaluations and probes; the latter follow the paper's Table 1."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class Row(NamedTuple):
    """A score: its key, its title, and whether "low" or "high" is better, or neither."""

    key: str
    name: str
    better: str = ""


#: Rows by table.
SECTIONS: dict[str, tuple[Row, ...]] = {
    "Images": (
        Row("mse", "MSE of the reconstruction", "low"),
        Row("nll", "nll, nats per image", "low"),
        Row("kl_m", "KL of mask latents, nats"),
        Row("kl_c", "KL of component latents, nats"),
        Row("elbo", "ELBO, nats per image", "high"),
        Row("elbo_bpd", "ELBO, bits per dimension (8 bit)", "low"),
        Row("iwae", "importance-weighted bound, nats", "high"),
        Row("iwae_bpd", "the same, bits per dimension (8 bit)", "low"),
        Row("active_slots", "slots with 1 % of the pixels"),
        Row("active_latents", "slots with a KL of 1 nat"),
    ),
    "Objects": (
        Row("ari", "ARI, all pixels", "high"),
        Row("ari_fg", "ARI, foreground", "high"),
        Row("ari_fg_2plus", "ARI, foreground, two objects or more", "high"),
        Row("sc", "SC", "high"),
        Row("msc", "mSC", "high"),
        Row("objects_lost", "share of objects lost to the background", "low"),
        Row("same_colour_shared", "share of pairs of one colour in one slot", "low"),
        Row("other_colour_shared", "share of pairs of two colours in one slot", "low"),
        Row("twins_shared", "share of touching pairs of one hue in one slot", "low"),
    ),
    "Objects, by responsibilities p(k | x, z)": (
        Row("posterior_ari", "ARI, all pixels, by responsibilities", "high"),
        Row("posterior_ari_fg", "ARI, foreground, by responsibilities", "high"),
        Row("posterior_ari_fg_2plus", "the same, two objects or more, by responsibilities", "high"),
        Row("posterior_sc", "SC, by responsibilities", "high"),
        Row("posterior_msc", "mSC, by responsibilities", "high"),
    ),
    "Samples": (
        Row("frechet", "Frechet distance", "low"),
        Row("valid", "share of valid scenes", "high"),
        Row("valid_number", "with as many objects as in training", "high"),
        Row("valid_colour", "with objects of one colour", "high"),
        Row("valid_shape", "with compact objects of one piece", "high"),
        Row("valid_inside", "with objects within the frame", "high"),
        Row("valid_reconstructed", "share of valid reconstructions", "high"),
        Row("objects", "objects per scene"),
        *(Row(f"scenes_with_{n}", f"share of scenes with {n} objects") for n in range(11)),
        Row("nearest_pixels", "distance to the nearest training image, pixels"),
        Row("spread_pixels", "distance to the nearest other scene, pixels"),
        Row("nearest_features", "distance to the nearest training image, features"),
        Row("spread_features", "distance to the nearest other scene, features"),
    ),
}


def tables(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Format the results of `evaluate`: one column per group of runs, then the baselines.

    Groups of several runs have mean and standard deviation. The fixed grid, with one cell per slot,
    has one column per number of slots.

    Args:
        result: result of `evaluate`.

    Returns:
        One table per section with scores, as `genesis_rl.utils.tables` formats them.
    """
    columns = [(group_title(group), group["mean"], group["std"]) for group in result["groups"]]
    reference = baseline_columns(result["runs"])
    result_tables = []
    for section, rows in SECTIONS.items():
        present = [row for row in rows if any(row.key in mean for _, mean, _ in columns)]
        if not present:
            continue
        baselines = [
            (name, scores)
            for name, scores in reference
            if any(row.key in scores for row in present)
        ]
        titles = [*(title for title, _, _ in columns), *(name for name, _ in baselines)]
        lines = []
        for row in present:
            cells = [format_score(mean.get(row.key), std.get(row.key)) for _, mean, std in columns]
            cells += [format_score(scores.get(row.key)) for _, scores in baselines]
            lines.append([row.name, row.better, *cells])
        head = ["", "better", *titles]
        result_tables.append({"caption": section, "head": head, "rows": lines})
    return result_tables


def group_title(group: Mapping[str, Any]) -> str:
    """Return the title of a group of `evaluate`, with its number of runs if above 1."""
    count = len(group["runs"])
    label: str = group["label"]
    return label if count == 1 else f"{label}, {count} runs"


def baseline_columns(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the baselines' titles and scores, once per number of slots if they depend on it."""
    slots = {record["num_slots"] for record in records}
    columns: dict[str, Mapping[str, Any]] = {}
    for record in records:
        for name, scores in record["baselines"].items():
            title = name.replace("_", " ")
            if name == "fixed_grid" and len(slots) > 1:
                title += f" of {record['num_slots']}"
            columns.setdefault(title, scores)
    return list(columns.items())


def format_score(value: float | None, deviation: float | None = None) -> str:
    """Format a score, or mean ± standard deviation, with about four digits; "-" for None."""
    if value is None:
        return "-"
    # Four digits without exponents: nats are in the thousands, errors in the thousandths.
    digits = max(0, min(5, 3 - len(str(int(abs(value)))) + 1)) if abs(value) >= 1 else 4
    text = f"{value:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


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


def probe_table(result: Mapping[str, Any]) -> dict[str, Any]:
    """Format the results of `genesis_rl.evaluation.probes.probe`.

    Cells of single runs contain the 95 % interval, those of groups the mean ± standard deviation.

    Returns:
        A table as `genesis_rl.utils.tables` formats it; its caption has the metric and the numbers
        of images.
    """
    columns, counts = _columns(result), result["num_images"]
    title = {
        "scenes": "Accuracy in % of MLPs on frozen latents",
        "properties": "Properties of objects from the frozen latents of the slots that took them "
        "(R2, accuracy), by ridge regression and by MLPs",
        "state": "The simulator's state from the frozen latents of all slots (R2), by ridge "
        "regression, by MLPs and by attention over slots",
    }[result["task"]]
    caption = f"{title}: {counts['train']:,} labelled images, {counts['test']:,} test images"
    words, rows = (_scenes if result["task"] == "scenes" else _objects)(result, columns)
    head = [*words, *(column.title for column in columns)]
    return {"caption": caption, "head": head, "rows": rows}


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


def _scenes(result: Mapping[str, Any], columns: list[Column]) -> tuple[list[str], list[list[str]]]:
    """Return headings and a row per task, with the paper's figures below."""
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
    return ["Task", ""], rows


def _objects(result: Mapping[str, Any], columns: list[Column]) -> tuple[list[str], list[list[str]]]:
    """Return headings and a row per property and head; the first row is the IoU."""
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
    return ["Property", ""], rows
