"""Generation of the results page from the result files of the programs.

A folder of results contains ``index.json``, a list of sections in the page's order, and the JSON
files that the sections refer to, written by pretrain/evaluate.py, pretrain/probe.py,
agents/compare.py and agents/benchmark.py.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from genesis_rl.evaluation import SECTIONS, baseline_columns, format_score, group_title
from genesis_rl.files import new_file, read_json
from genesis_rl.probes import caption, layout
from genesis_rl.text_tables import markdown

INDEX = "index.json"
#: Tolerance of reproduced scores on another machine: absolute, or relative for scores above 1.
TOLERANCE = 0.005
# Scores on the page; the files contain all scores.
_SHOWN = (
    "ari",
    "ari_fg",
    "ari_fg_2plus",
    "msc",
    "mse",
    "nll",
    "kl_m",
    "kl_c",
    "elbo_bpd",
    "frechet",
)
_IMAGINED = (
    "valid",
    "valid_number",
    "valid_colour",
    "valid_shape",
    "valid_inside",
    "valid_reconstructed",
    "objects",
    "nearest_pixels",
    "spread_pixels",
    "nearest_features",
    "spread_features",
)
_POSTERIOR = ("posterior_ari", "posterior_ari_fg", "posterior_ari_fg_2plus", "posterior_msc")
_ACROSS = (*("ari", "ari_fg", "msc"), *("posterior_ari", "posterior_ari_fg", "posterior_msc"))
_SHORT = {
    "ari": "ARI",
    "ari_fg": "ARI-FG",
    "ari_fg_2plus": "ARI-FG, >= 2 objects",
    "msc": "mSC",
    "mse": "MSE",
    "nll": "nll",
    "kl_m": "KL mask",
    "kl_c": "KL component",
    "elbo_bpd": "ELBO, bits/dim",
    "frechet": "Frechet",
    "posterior_ari": "ARI",
    "posterior_ari_fg": "ARI-FG",
    "posterior_ari_fg_2plus": "ARI-FG, >= 2 objects",
    "posterior_msc": "mSC",
    "valid": "valid",
    "valid_number": "number",
    "valid_colour": "one colour",
    "valid_shape": "compact",
    "valid_inside": "within the frame",
    "valid_reconstructed": "valid reconstructions",
    "objects": "objects",
    "nearest_pixels": "nearest training image, pixels",
    "spread_pixels": "nearest other scene, pixels",
    "nearest_features": "nearest training image, features",
    "spread_features": "nearest other scene, features",
}
_ARROWS = {"low": " ↓", "high": " ↑", "": ""}


@dataclass(frozen=True)
class Picture:
    """A picture of a section."""

    file: str
    """path relative to the page"""
    caption: str
    """caption below the picture"""


@dataclass(frozen=True)
class Published:
    """A row of scores published by others."""

    name: str
    """source and dataset"""
    scores: Mapping[str, float]
    """scores by this package's names (``ari_fg``: the mean includes images of one object)"""


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    """heading"""
    text: str = ""
    """description and commands; Markdown"""
    evaluation: str | None = None
    """file of pretrain/evaluate.py --out, in the index's folder"""
    published: tuple[Published, ...] = ()
    """rows below those of the evaluation"""
    across: tuple[str, ...] = ()
    """files of pretrain/evaluate.py --out with one model on different images or with different
    refinement steps: a row per run"""
    probes: str | None = None
    """file of pretrain/probe.py --out, in the index's folder"""
    tables: str | None = None
    """file with tables (agents/compare.py), in the index's folder: its entry ``tables`` is a list
    of objects with ``caption`` (may be empty), ``head`` and ``rows``"""
    seen: tuple[str, ...] = ()
    """observations as a list; Markdown"""
    pictures: tuple[Picture, ...] = ()
    """pictures below the tables"""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read an entry of the index.

        Raises:
            ValueError: if the entry is not a section.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict) or "title" not in data or not data.keys() <= set(names):
            raise ValueError(f"sections must have a title and any of {names[1:]}, got {data!r}.")
        lists: dict[str, Any] = {name: tuple(data.get(name, ())) for name in ("seen", "across")}
        for name, kind in (("pictures", Picture), ("published", Published)):
            try:
                lists[name] = tuple(kind(**entry) for entry in data.get(name, ()))
            except TypeError as error:
                raise ValueError(f"{name} of {data['title']!r} are invalid: {error}.") from error
        return cls(**{**data, **lists})


def read_index(folder: str | os.PathLike[str]) -> list[Section]:
    """Read the sections of a folder of results.

    Raises:
        ValueError: if the folder has no index, or it is damaged.
    """
    data = read_json(Path(folder) / INDEX)
    if not isinstance(data, list):
        raise ValueError(f"{Path(folder) / INDEX} must be a list of sections.")
    return [Section.from_json(entry) for entry in data]


def page(folder: str | os.PathLike[str]) -> str:
    """Return the page of a folder of results as Markdown.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    parts = [
        "# Results",
        "Generated from the files in `results/` by `python pretrain/results.py`. ↑ more is better, "
        "↓ less is better. Scores of segmentations stand beside what no model gets on the same "
        "images. Tables of models that come with the package are measured again by `python "
        f"pretrain/reproduce.py`, which says where a figure is more than {TOLERANCE} from the "
        "page's (beyond 1: more than that share of it).",
    ]
    for section in read_index(folder):
        parts.append(f"## {section.title}")
        if section.text:
            parts.append(section.text)
        if section.evaluation is not None:
            parts += _evaluation(Path(folder) / section.evaluation, section.published)
        if section.across:
            parts += _across([Path(folder) / file for file in section.across])
        if section.probes is not None:
            parts += _probes(Path(folder) / section.probes)
        if section.tables is not None:
            parts += _tables(Path(folder) / section.tables)
        if section.seen:
            parts.append("\n".join(f"- {remark}" for remark in section.seen))
        parts += [f"![{p.caption}]({p.file})\n\n*{p.caption}*" for p in section.pictures]
    return "\n\n".join(parts) + "\n"


def write_page(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write the `page` of a folder of results to a file atomically.

    Raises:
        ValueError: if a file of the folder is missing or damaged.
        OSError: if the page cannot be written.
    """
    text = page(folder)
    with new_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def written_by(program: str, path: Path) -> Iterator[None]:
    """Convert errors of missing entries to one that names the file and the program.

    Raises:
        ValueError: in place of KeyError, TypeError and IndexError.
    """
    try:
        yield
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path} must be a file of {program}: {type(error).__name__} {error}."
        ) from error


def _evaluation(path: Path, published: Sequence[Published]) -> list[str]:
    """Return tables of an evaluation: scores and runs."""
    result = read_json(path)
    with written_by("evaluate.py --out", path):
        parts = [f"{_describe(result['runs'][0])}.\n\n{_scores(result, _SHOWN, published)}"]
        if any("posterior_ari" in group["mean"] for group in result["groups"]):
            table = _scores(result, _POSTERIOR, only="posterior_ari")
            parts.append(
                "The same by p(k | x, z), which slot each pixel is of once its colour is known, "
                f"instead of the masks p(k | z).\n\n{table}"
            )
        if any("valid" in group["mean"] for group in result["groups"]):
            table = _scores(result, _IMAGINED, only="valid")
            count = result["runs"][0]["num_images"]
            parts.append(f"What {count} scenes from the prior show.\n\n{table}")
        return [*parts, _runs(result["runs"], path.name)]


def _across(paths: Sequence[Path]) -> list[str]:
    """Return a table of segmentation scores by masks and by responsibilities, a row per run."""
    shown = [(key, _SHORT[key] + ", resp." * key.startswith("posterior_")) for key in _ACROSS]
    rows = []
    for path in paths:
        with written_by("evaluate.py --out", path):
            rows += [
                [
                    Path(record["run"]).name,
                    f"{record['data']}, {record['split']}, {record['num_images']:,}",
                    str(record["refine_steps"]),
                    *(format_score(record["scores"][key]) for key, _ in shown),
                ]
                for record in read_json(path)["runs"]
            ]
    head = ["run", "images", "steps of refinement", *(f"{name} ↑" for _, name in shown)]
    files = ", ".join(f"`results/{path.name}`" for path in paths)
    return [markdown(head, rows), f"All figures and settings: {files}."]


def _probes(path: Path) -> list[str]:
    """Return tables of probes: scores and runs."""
    result = read_json(path)
    with written_by("probe.py --out", path):
        description = f"{caption(result)}, probed on {result['hardware']}."
        records = [{**record, "versions": result["versions"]} for record in result["runs"]]
        return [f"{description}\n\n{markdown(*layout(result))}", _runs(records, path.name)]


def _tables(path: Path) -> list[str]:
    """Return the tables of a file."""
    result = read_json(path)
    parts = []
    try:
        for table in result["tables"]:
            parts += [table["caption"]] if table["caption"] else []
            parts.append(markdown(table["head"], table["rows"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} must have tables: {type(error).__name__} {error}.") from error
    return [*parts, f"All figures and settings: `results/{path.name}`."]


def _scores(
    result: Mapping[str, Any],
    keys: Sequence[str],
    published: Sequence[Published] = (),
    only: str | None = None,
) -> str:
    """Format scores of an evaluation; include only baselines with the score ``only``, if given."""
    rows = [row for section in SECTIONS.values() for row in section]
    means = [group["mean"] for group in result["groups"]]
    better = {row.key: row.better for row in rows}
    shown = [key for key in keys if any(key in mean for mean in means)]
    head = ["", *(_SHORT[key] + _ARROWS[better[key]] for key in shown)]
    body = [
        [group_title(group), *(format_score(g.get(k), s.get(k)) for k in shown)]
        for group in result["groups"]
        for g, s in [(group["mean"], group["std"])]
    ]
    others = [
        *((p.name, p.scores) for p in published),
        *(
            (name, scores)
            for name, scores in baseline_columns(result["runs"])
            if only is None or only in scores
        ),
    ]
    body += [
        [f"*{name}*", *(format_score(scores.get(k)) if k in scores else "" for k in shown)]
        for name, scores in others
    ]
    return markdown(head, body)


def _describe(first: Mapping[str, Any]) -> str:
    description = f"The first {first['num_images']} images of the {first['split']} split"
    if first["frechet_images"]:
        description += (
            f"; Frechet distance ({first['frechet']}) of {first['frechet_images']} scenes from the"
            " prior"
        )
    return description


def _runs(records: Sequence[Mapping[str, Any]], file: str) -> str:
    head = ["run", "seed", "updates", "images seen", "minutes", "img/s", "hardware", "versions"]
    body = []
    for record in records:
        training = record["training"]
        if training is None:
            continue
        versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        body.append(
            [
                Path(record["run"]).name,
                str(training["config"]["seed"]),
                f"{training['step']:,}",
                f"{training['images_seen']:,}",
                f"{training['minutes']:.1f}",
                f"{training['img_per_s']:.0f}",
                training["hardware"] or "not recorded",
                versions,
            ]
        )
    if not body:
        return f"All figures and settings: `results/{file}`."
    return f"{markdown(head, body)}\n\nAll figures and settings: `results/{file}`."
