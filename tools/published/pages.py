"""Generation of the results pages from the result files of the programs.

A folder of results contains ``index.json``, a list of pages with their sections, and the JSON files
that the sections refer to, written by pretrain/evaluate.py, pretrain/probe.py, agents/compare.py,
tools/benchmark_agents.py and others. Each page starts with a summary table, whose cells are read
from the same files.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from genesis_rl.evaluation.tables import (
    SECTIONS,
    baseline_columns,
    format_score,
    group_title,
    probe_table,
)
from genesis_rl.utils.files import new_file, read_json
from genesis_rl.utils.tables import markdown

INDEX = "index.json"
#: Tolerance of reproduced scores on another machine: absolute, or relative for scores above 1.
TOLERANCE = 0.005
# Scores on the pages; the files contain all scores.
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
class SummaryRow:
    """A row of a page's summary table."""

    labels: Sequence[str]
    """first cells, as many as the page has labels; Markdown"""
    file: str
    """file with the other cells, in the index's folder"""
    at: str = "groups/0"
    """entry of the file that has the cells, as keys and indices separated by slashes: a group of
    runs, a mapping, or a row of a table"""
    columns: Mapping[str, str] = field(default_factory=dict)
    """heading to entry below ``at``; empty: the page's columns"""


@dataclass(frozen=True)
class Section:
    """A section of a page."""

    title: str
    """heading"""
    text: str = ""
    """description and commands; Markdown"""
    summary: tuple[SummaryRow, ...] = ()
    """rows of the page's summary table, which link to this section"""
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
    findings: tuple[str, ...] = ()
    """conclusions as a list; Markdown"""
    pictures: tuple[Picture, ...] = ()
    """pictures below the tables"""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a section of the index.

        Raises:
            ValueError: if it is not a section.
        """
        kinds = {"summary": SummaryRow, "published": Published, "pictures": Picture}
        built: Self = _build(cls, data, "title", **kinds)
        return built


@dataclass(frozen=True)
class ResultsPage:
    """A page of results on one topic."""

    page: str
    """name of the Markdown file, without its suffix"""
    title: str
    """heading"""
    text: str = ""
    """contents of the page in one or two sentences; Markdown"""
    labels: tuple[str, ...] = ("model", "data")
    """headings of the first columns of the summary table"""
    columns: Mapping[str, str] = field(default_factory=dict)
    """headings of the other columns, each with its entry in the files (`SummaryRow.at`)"""
    sections: tuple[Section, ...] = ()
    """sections in their order"""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read an entry of the index.

        Raises:
            ValueError: if the entry is not a page.
        """
        built: Self = _build(cls, data, "page")
        sections = tuple(Section.from_json(section) for section in data.get("sections", ()))
        return replace(built, sections=sections)


def _build(cls: Any, data: Any, needed: str, **kinds: Any) -> Any:
    """Build a dataclass from JSON, with tuples for lists and ``kinds`` for their elements."""
    names = [field.name for field in fields(cls)]
    if not isinstance(data, dict) or needed not in data or not data.keys() <= set(names):
        raise ValueError(
            f"a {cls.__name__} of {INDEX} must have {needed} and any of {names}, got {data!r}."
        )
    built = dict(data)
    for name, value in data.items():
        if isinstance(value, list):
            try:
                built[name] = tuple(kinds[name](**v) if name in kinds else v for v in value)
            except TypeError as error:
                raise ValueError(f"{name} of {data[needed]!r} must be valid: {error}.") from error
    try:
        return cls(**built)
    except TypeError as error:
        raise ValueError(f"{data[needed]!r} must be a {cls.__name__}: {error}.") from error


def read_index(folder: str | os.PathLike[str]) -> list[ResultsPage]:
    """Read the pages and sections of a folder of results.

    Raises:
        ValueError: if the folder has no index, or it is damaged.
    """
    data = read_json(Path(folder) / INDEX)
    if not isinstance(data, list):
        raise ValueError(f"{Path(folder) / INDEX} must be a list of pages.")
    return [ResultsPage.from_json(entry) for entry in data]


def pages(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the pages of a folder of results, and their overview, as Markdown by file name.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    overview = [
        "# Results",
        "Generated from the files in `results/` by `python tools/results.py`. Each page starts "
        "with a summary table; its rows link to sections with settings, commands, baselines and "
        "findings. ↑: higher is better, ↓: lower is better. *By masks*: segmentation by the most "
        "probable slot of each pixel, p(k | z). *By responsibilities*: by the most probable slot "
        "given the pixel's colour, p(k | x, z) ([masks](../notes/masks.md)).",
        f"`python tools/reproduce.py` evaluates the package's pretrained models again and "
        f"reports scores that differ by more than {TOLERANCE} (relative for scores above 1).",
    ]
    result, rows = {}, []
    for page in read_index(folder):
        summary = _summary(Path(folder), page)
        result[f"{page.page}.md"] = _page(Path(folder), page, summary)
        first = ""
        if summary:
            labels = next(row.labels for s in page.sections for row in s.summary)
            values = zip(page.columns, summary[0][len(labels) :], strict=True)
            shown = [f"{name.rstrip(' ↑↓')} {value}" for name, value in values if value]
            first = f"{', '.join(labels)}: {', '.join(shown[:2])}"
        rows.append([f"[{page.title}]({page.page}.md)", page.text, first])
    overview.append(markdown(["page", "contents", "first result"], rows, text=3))
    return {"index.md": _join(overview), **result}


def write_pages(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write the `pages` of a folder of results to another folder, each atomically.

    Raises:
        ValueError: if a file of the folder is missing or damaged.
        OSError: if a page cannot be written.
    """
    texts = pages(folder)
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with new_file(Path(out) / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _join(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _page(folder: Path, page: ResultsPage, summary: Sequence[Sequence[str]]) -> str:
    """Return a page as Markdown."""
    parts = [f"# {page.title}", *([page.text] if page.text else [])]
    if summary:
        parts.append(markdown([*page.labels, *page.columns], summary, len(page.labels)))
    for section in page.sections:
        parts.append(f"## {section.title}")
        if section.text:
            parts.append(section.text)
        if section.evaluation is not None:
            parts += _evaluation(folder / section.evaluation, section.published)
        if section.across:
            parts += _across([folder / file for file in section.across])
        if section.probes is not None:
            parts += _probes(folder / section.probes)
        if section.tables is not None:
            parts += _tables(folder / section.tables)
        if section.findings:
            parts.append("\n".join(f"- {finding}" for finding in section.findings))
        parts += [f"![{p.caption}]({p.file})\n\n*{p.caption}*" for p in section.pictures]
    return _join(parts)


def _summary(folder: Path, page: ResultsPage) -> list[list[str]]:
    """Return the rows of a page's summary table; each first cell is a link to its section."""
    return [
        [
            f"[{row.labels[0]}](#{_slug(s)})",
            *row.labels[1:],
            *_summary_cells(folder / row.file, row, page),
        ]
        for s in page.sections
        for row in s.summary
    ]


def _summary_cells(path: Path, row: SummaryRow, page: ResultsPage) -> list[str]:
    result = read_json(path)
    columns = row.columns or page.columns
    with written_by("a program", path):
        entry = _entry(result, row.at)
        return [_cell(result, entry, columns.get(name)) for name in page.columns]


def _cell(result: Any, entry: Any, key: str | None) -> str:
    """Format a cell: a score, in % if it is of a probe, or text; empty without a value."""
    if key is None:
        return ""
    group = isinstance(entry, dict) and "mean" in entry
    value = entry["mean"].get(key) if group else _entry(entry, key)
    if value is None or isinstance(value, str):
        return value or ""
    if "questions" in result:  # a file of pretrain/probe.py
        return f"{100 * value:.1f}"
    return format_score(value, entry["std"].get(key) if group else None)


def _entry(data: Any, path: str) -> Any:
    """Return the entry of JSON data at keys and indices separated by slashes."""
    for part in path.split("/"):
        data = data[int(part) if isinstance(data, list) else part]
    return data


def _slug(section: Section) -> str:
    """Return the anchor of a section, as MkDocs and GitHub make it from plain titles."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", section.title).strip().lower())


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
                "By responsibilities p(k | x, z) instead of the masks p(k | z):\n\n" + table
            )
        if any("valid" in group["mean"] for group in result["groups"]):
            table = _scores(result, _IMAGINED, only="valid")
            count = result["runs"][0]["num_images"]
            parts.append(f"Validity and novelty of {count} scenes from the prior:\n\n{table}")
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
    head = ["run", "images", "refinement steps", *(f"{name} ↑" for _, name in shown)]
    files = ", ".join(f"`results/{path.name}`" for path in paths)
    return [markdown(head, rows), f"All figures and settings: {files}."]


def _probes(path: Path) -> list[str]:
    """Return tables of probes: scores and runs."""
    result = read_json(path)
    with written_by("probe.py --out", path):
        table = probe_table(result)
        description = f"{table['caption']}, probed on {result['hardware']}."
        records = [{**record, "versions": result["versions"]} for record in result["runs"]]
        return [
            f"{description}\n\n{markdown(table['head'], table['rows'])}",
            _runs(records, path.name),
        ]


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
    description = f"First {first['num_images']} images of the {first['split']} split"
    if first["frechet_images"]:
        description += (
            f"; Frechet distance ({first['frechet']} features) of {first['frechet_images']} scenes "
            "from the prior"
        )
    return description


def _runs(records: Sequence[Mapping[str, Any]], file: str) -> str:
    head = ["run", "seed", "updates", "images", "minutes", "img/s", "hardware", "versions"]
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
