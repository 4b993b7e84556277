"""The page of results: what was measured, from the files that the measuring programs wrote.

A folder of results holds ``index.json``, a list of sections in the page's order, and beside it
the JSON files they name, as pretrain/evaluate.py, pretrain/probe.py, agents/compare.py and
agents/benchmark.py wrote them. The page is generated, so that no figure on it was copied by hand.
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
#: How far a figure may be from the page's on another machine: of what is beyond 1, this share.
TOLERANCE = 0.005
# The scores on the page; every one that was taken is in the files.
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
    """path as the page reaches it"""
    caption: str
    """what it shows"""


@dataclass(frozen=True)
class Published:
    """What others report, beside our rows."""

    name: str
    """whose it is, and on which data"""
    scores: Mapping[str, float]
    """by our names of the scores (``ari_fg``: the mean over images of one object, too)"""


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    title: str
    """its heading"""
    text: str = ""
    """what was done, by which command; Markdown"""
    evaluation: str | None = None
    """file of pretrain/evaluate.py --out, beside the index"""
    published: tuple[Published, ...] = ()
    """rows below those of the evaluation"""
    across: tuple[str, ...] = ()
    """files of pretrain/evaluate.py --out, each of one model on other images or refined by other
    steps: a row for each run"""
    probes: str | None = None
    """file of pretrain/probe.py --out, beside the index"""
    tables: str | None = None
    """file of a program that lays out its own tables (agents/compare.py), beside the index: its
    entry ``tables`` is a list of objects with ``caption`` (may be empty), ``head`` and ``rows``"""
    seen: tuple[str, ...] = ()
    """what the figures show, one remark each; Markdown"""
    pictures: tuple[Picture, ...] = ()
    """pictures below the tables"""

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read an entry of the index.

        Raises:
            ValueError: if it is no section.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict) or "title" not in data or not data.keys() <= set(names):
            raise ValueError(f"a section is {data!r}; wanted a title and any of {names[1:]}.")
        lists: dict[str, Any] = {name: tuple(data.get(name, ())) for name in ("seen", "across")}
        for name, kind in (("pictures", Picture), ("published", Published)):
            try:
                lists[name] = tuple(kind(**entry) for entry in data.get(name, ()))
            except TypeError as error:
                raise ValueError(f"{name} of {data['title']!r} are wrong: {error}.") from error
        return cls(**{**data, **lists})


def read_index(folder: str | os.PathLike[str]) -> list[Section]:
    """Read the sections of a folder of results.

    Raises:
        ValueError: if the folder has no index, or it is damaged.
    """
    data = read_json(Path(folder) / INDEX)
    if not isinstance(data, list):
        raise ValueError(f"{Path(folder) / INDEX} is no list of sections.")
    return [Section.from_json(entry) for entry in data]


def page(folder: str | os.PathLike[str]) -> str:
    """Write out the page of a folder of results.

    Args:
        folder: holds the index and the files it names.

    Returns:
        Markdown.

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
    """Write the `page` of a folder of results to a file, all of it or nothing.

    Raises:
        ValueError: if a file of the folder is missing or damaged.
        OSError: if the page cannot be written.
    """
    text = page(folder)
    with new_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def written_by(program: str, path: Path) -> Iterator[None]:
    """Name the file, and the program that writes such files, where an entry is missing.

    Raises:
        ValueError: instead of what looking for the entry raised.
    """
    try:
        yield
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path} is not what {program} writes: {type(error).__name__} {error}."
        ) from error


def _evaluation(path: Path, published: Sequence[Published]) -> list[str]:
    """Tables of an evaluation: the scores, and the runs they are of."""
    result = read_json(path)
    with written_by("evaluate.py --out", path):
        parts = [f"{_told(result['runs'][0])}.\n\n{_scores(result, _SHOWN, published)}"]
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
    """A table of segmentations, by the masks and by responsibilities, over several evaluations."""
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
    """Tables of a probing: what the latents tell, and the runs they are of."""
    result = read_json(path)
    with written_by("probe.py --out", path):
        told = f"{caption(result)}, probed on {result['hardware']}."
        records = [{**record, "versions": result["versions"]} for record in result["runs"]]
        return [f"{told}\n\n{markdown(*layout(result))}", _runs(records, path.name)]


def _tables(path: Path) -> list[str]:
    """Tables that a file holds as they are to be shown."""
    result = read_json(path)
    parts = []
    try:
        for table in result["tables"]:
            parts += [table["caption"]] if table["caption"] else []
            parts.append(markdown(table["head"], table["rows"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no tables: {type(error).__name__} {error}.") from error
    return [*parts, f"All figures and settings: `results/{path.name}`."]


def _scores(
    result: Mapping[str, Any],
    keys: Sequence[str],
    published: Sequence[Published] = (),
    only: str | None = None,
) -> str:
    """Lay out some scores of an evaluation; of baselines those that have the score ``only``."""
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


def _told(first: Mapping[str, Any]) -> str:
    told = f"The first {first['num_images']} images of the {first['split']} split"
    if first["frechet_images"]:
        told += (
            f"; Frechet distance ({first['frechet']}) of {first['frechet_images']} scenes from the"
            " prior"
        )
    return told


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
