"""Summary of a comparison: a table beside the published results, and learning curves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import trim_mean

from genesis_rl.utils.files import new_file, write_json
from genesis_rl.utils.tables import figure
from genesis_rl.visualization import curves

Scores = Sequence[npt.ArrayLike]
# Bootstrap samples in memory at once.
_BLOCK = 4096
Record = Mapping[str, Any]
RANDOM = "random policy"
# Points of a mean curve.
_POINTS = 100


def iqm(scores: Scores) -> float:
    """Return the interquartile mean over all runs of all tasks (Agarwal et al., NeurIPS 2021).

    With few seeds a mean is sensitive to single runs, and a median discards most of them. The
    interquartile mean is the mean of the middle half of all runs of all tasks; it and its interval
    are defined as in the library rliable.

    Args:
        scores: per task, the scores of its runs, (runs,); numbers of runs may differ.

    Raises:
        ValueError: if there is no task, or a task has no runs.
    """
    return float(trim_mean(np.concatenate(_check(scores)), 0.25))


def bootstrap_interval(
    scores: Scores, *, reps: int = 50_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of `iqm` under a bootstrap stratified by task.

    Args:
        scores: per task, the scores of its runs, (runs,). With a single run per task the interval
            has no width.
        reps: bootstrap samples.
        confidence: level of the interval, in (0, 1).
        seed: seed of the bootstrap.

    Raises:
        ValueError: if there is no task, a task has no runs, or an argument is out of range.
    """
    if reps < 1:
        raise ValueError(f"reps must be at least 1, got {reps}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
    tasks, rng, means = _check(scores), np.random.default_rng(seed), []
    for start in range(0, reps, _BLOCK):
        size = min(_BLOCK, reps - start)
        resampled = [task[rng.integers(len(task), size=(size, len(task)))] for task in tasks]
        means.append(trim_mean(np.concatenate(resampled, axis=1), 0.25, axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _check(scores: Scores) -> list[npt.NDArray[np.float64]]:
    tasks = [np.asarray(task, np.float64) for task in scores]
    if not tasks or any(task.ndim != 1 or not len(task) for task in tasks):
        shapes = [task.shape for task in tasks]
        raise ValueError(f"scores must have shape (runs,) with runs >= 1 per task, got {shapes}.")
    return tasks


@dataclass(frozen=True)
class PublishedResults:
    """A published table of success rates.

    Attributes:
        source: citation.
        settings: settings of the training.
        tasks: columns, named like the ids of this package's environments.
        success: observation to success rates in the order of the tasks.
    """

    source: str
    settings: str
    tasks: tuple[str, ...]
    success: dict[str, tuple[float, ...]]


PUBLISHED = PublishedResults(
    source=(
        "Yoon et al., An Investigation into Pre-Training Object-Centric Representations for "
        "Reinforcement Learning, ICML 2023, arXiv:2302.04419; values from the files in the "
        "authors' repository (github.com/jsikyoon/OCRL), whose column of Object Interaction was "
        "inferred from the order"
    ),
    settings=(
        "PPO, 2,000,000 environment steps, sparse reward, 4 environments, rollouts of 2048 steps, "
        "minibatches of 32, learning rate 3e-4, entropy coefficient 0.01; a transformer with a CLS "
        "token on 6 slots"
    ),
    tasks=("ObjectGoal", "ObjectInteraction", "ObjectComparison", "PropertyComparison"),
    success={
        "ground-truth state": (0.974, 0.795, 0.973, 0.968),
        "CNN, end to end": (0.987, 0.784, 0.225, 0.232),
        "CNN feature map + transformer": (0.976, 0.291, 0.192, 0.189),
        "one CNN per slot": (0.974, 0.490, 0.537, 0.567),
        "VAE": (0.674, 0.340, 0.386, 0.387),
        "MAE patches": (0.901, 0.049, 0.216, 0.219),
        "IODINE": (0.916, 0.003, 0.701, 0.624),
        "Slot Attention": (0.983, 0.000, 0.975, 0.947),
        "SLATE": (0.985, 0.787, 0.979, 0.980),
    },
)


def summarise(records: Sequence[Record], *, reps: int = 50_000) -> dict[str, Any]:
    """Summarise runs.

    Args:
        records: of `train_all`.
        reps: bootstrap samples.

    Returns:
        JSON data: ``rows`` (per label, under ``tasks`` and ``all``: the interquartile mean of the
        success rates, its 95 % interval and the number of runs), ``published``, ``tables`` for the
        results page, and ``runs``, the records.

    Raises:
        ValueError: if there are no records.
    """
    if not records:
        raise ValueError("records must have at least one run, got none.")
    tasks = list(dict.fromkeys(record["task"] for record in records))
    rows = [
        _row(label, [r for r in records if r["label"] == label], tasks, reps)
        for label in dict.fromkeys(record["label"] for record in records)
    ]
    chance = {
        r["task"]: success_cell([r["evaluation"]["random"]], 1)
        for r in records
        if "random" in r["evaluation"]
    }
    rows.append({"label": RANDOM, "steps": None, "hours": None, "tasks": chance, "all": None})
    published = [
        {"label": label, "tasks": dict(zip(PUBLISHED.tasks, rates, strict=True))}
        for label, rates in PUBLISHED.success.items()
        if not set(PUBLISHED.tasks).isdisjoint(map(short_name, tasks))
    ]
    return {
        "tables": [_table(tasks, rows, published), *_encoders(records)],
        "rows": rows,
        "published": {
            "source": PUBLISHED.source,
            "settings": PUBLISHED.settings,
            "rows": published,
        },
        "runs": list(records),
    }


def write_summary(records: Sequence[Record], path: Path, *, reps: int = 50_000) -> dict[str, Any]:
    """Write the summary as JSON, and the learning curves as two images in the same folder.

    Args:
        records: of `train_all`.
        path: JSON file; the images are NAME-steps.png and NAME-minutes.png.
        reps: bootstrap samples.

    Returns:
        The summary.
    """
    summary = summarise(records, reps=reps)
    for axis, scale, about in (("steps", 1, "environment steps"), ("seconds", 60, "minutes")):
        picture = curves(_panels(records, axis, scale), xlabel=about)
        name = "steps" if axis == "steps" else "minutes"
        with new_file(path.with_name(f"{path.stem}-{name}.png")) as temporary:
            temporary.write_bytes(picture)
    write_json(path, summary)
    return summary


def short_name(task: str) -> str:
    """Return the name of an environment without its namespace and version."""
    return task.rpartition("/")[2].rpartition(":")[2].rpartition("-v")[0] or task


def _row(label: str, records: Sequence[Record], tasks: Sequence[str], reps: int) -> dict[str, Any]:
    cells, scores = {}, []
    for task in tasks:
        task_records = [record for record in records if record["task"] == task]
        if task_records:
            cells[task] = success_cell(
                [record["evaluation"]["agent"] for record in task_records], reps
            )
            scores.append([record["success"] for record in task_records])
    overall = None
    if len(tasks) > 1 and len(scores) == len(tasks):
        overall = _aggregate(scores, reps)
    seconds = [record["seconds"] for record in records if record["seconds"] is not None]
    return {
        "label": label,
        "steps": [min(r["steps"] for r in records), max(r["steps"] for r in records)],
        "hours": sum(seconds) / len(seconds) / 3600 if seconds else None,
        "tasks": cells,
        "all": overall,
    }


def success_cell(scores: Sequence[Record], reps: int) -> dict[str, Any]:
    """Summarise a task: over runs if there are several, otherwise over the episodes of the run."""
    if len(scores) > 1:
        return _aggregate([[score["success_rate"] for score in scores]], reps)
    low, high = scores[0]["success_interval"]
    return {"success": scores[0]["success_rate"], "low": low, "high": high, "runs": 1}


def _aggregate(scores: Sequence[Sequence[float]], reps: int) -> dict[str, Any]:
    """Aggregate runs; the interval is None if no task has more than one run."""
    low, high = None, None
    if max(map(len, scores)) > 1:
        low, high = bootstrap_interval(scores, reps=reps)
    return {"success": iqm(scores), "low": low, "high": high, "runs": sum(map(len, scores))}


def _table(
    tasks: Sequence[str], rows: Iterable[Record], published: Sequence[Record]
) -> dict[str, Any]:
    names = [short_name(task) for task in tasks]
    head = ["observation", *names, "all tasks", "steps", "hours per run"]
    body = []
    for row in rows:
        cells = [row["tasks"].get(task) for task in tasks]
        steps = "" if row["steps"] is None else " to ".join(f"{s:,}" for s in {*row["steps"]})
        hours = "" if row["hours"] is None else f"{row['hours']:.2f}"
        body.append([row["label"], *map(show_success, [*cells, row["all"]]), steps, hours])
    for row in published:
        cells = [f"{row['tasks'][name]:.3f}" if name in row["tasks"] else "" for name in names]
        body.append([f"*published: {row['label']}*", *cells, "", "2,000,000", ""])
    caption = (
        "Success rates of the final agents with sampled actions. Several runs of a task: "
        "interquartile mean over runs and its 95 % interval by a bootstrap stratified by task. One "
        "run: its success rate and Wilson's interval."
    )
    if published:
        caption += f" Published: {PUBLISHED.source}; {PUBLISHED.settings}."
    return {"caption": caption, "head": head, "rows": body}


def show_success(cell: Record | None) -> str:
    """Format a cell of `success_cell`: the rate, its interval and the number of runs."""
    if cell is None:
        return ""
    if cell["low"] is None:
        return f"{cell['success']:.3f}"
    runs = f", {cell['runs']} runs" if cell["runs"] > 1 else ""
    return f"{cell['success']:.3f} ({cell['low']:.3f} to {cell['high']:.3f}{runs})"


def _encoders(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return a table of the encoders; empty without any."""
    encoders = {r["label"]: r["encoder"] for r in records if r["encoder"] is not None}
    names = list(dict.fromkeys(name for e in encoders.values() for name in e["scores"]))
    body = [
        [label, e["model"], e["fingerprint"][:12], *(figure(e["scores"].get(n), 3) for n in names)]
        for label, e in encoders.items()
    ]
    head = ["observation", "model", "fingerprint", *names]
    caption = "The encoders and the scores of their last validation."
    return [{"caption": caption, "head": head, "rows": body}] if encoders else []


def _panels(
    records: Sequence[Record], axis: str, scale: float
) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Return per task the mean curve of each label, up to the length of its shortest run."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for task, label in dict.fromkeys((r["task"], r["label"]) for r in records):
        curves = [
            r["curve"]
            for r in records
            if (r["task"], r["label"]) == (task, label) and r["curve"]["steps"]
        ]
        lines = panels.setdefault(short_name(task), {})
        if curves:
            first = max(curve[axis][0] for curve in curves)
            x = np.linspace(first, min(curve[axis][-1] for curve in curves), _POINTS)
            y = np.mean([np.interp(x, curve[axis], curve["success"]) for curve in curves], axis=0)
            lines[label] = ((x / scale).tolist(), y.tolist())
    return panels
