"""Reproduction of the published scores of the package's pretrained models."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from genesis_rl.checkpoints.weights import shipped
from genesis_rl.evaluation.runs import EvaluateConfig, evaluate
from genesis_rl.utils.files import read_json
from published.pages import read_index, written_by

# Settings with the same names in a record and in EvaluateConfig.
_RECORDED = ("split", "num_images", "seed", "iw_samples", "refine_steps", "frechet")


class PublishedScores(NamedTuple):
    """Published scores of a pretrained model of the package.

    Attributes:
        file: name of the file in the folder of results.
        config: settings of the evaluation, of this model only.
        scores: scores by name.
    """

    file: str
    config: EvaluateConfig
    scores: dict[str, float | None]


def published_scores(
    folder: str | os.PathLike[str], names: Sequence[str] = ()
) -> list[PublishedScores]:
    """Read the published scores of the package's pretrained models, in the order of the pages.

    Args:
        folder: folder of results, with the index and its files.
        names: names of the models; empty: all.

    Raises:
        ValueError: for an unknown name, or if a file is damaged.
    """
    shipped_names = shipped()
    for name in names:
        if name not in shipped_names:
            raise ValueError(f"models must be of {', '.join(shipped_names)}, got {name!r}.")
    published = []
    sections = [section for page in read_index(folder) for section in page.sections]
    for file in dict.fromkeys(file for section in sections for file in section.across):
        path = Path(folder) / file
        with written_by("evaluate.py --out", path):
            records = read_json(path)["runs"]
            if len(records) == 1 and records[0]["run"] in (names or shipped_names):
                published.append(PublishedScores(file, _config(records[0]), records[0]["scores"]))
    return published


def _config(record: Mapping[str, Any]) -> EvaluateConfig:
    """Return the settings of a record of `genesis_rl.evaluation.evaluate`."""
    return EvaluateConfig(
        models=(record["run"],),
        data=record["data"],
        data_options=json.dumps(record["data_options"]),
        **{name: record[name] for name in _RECORDED},
    )


def reproduce(
    published: PublishedScores, out: str | os.PathLike[str], device: str = "auto"
) -> dict[str, float | None]:
    """Evaluate a model again with the published settings.

    Args:
        published: one of `published_scores`.
        out: folder of the new file, which has the name of the published one.
        device: auto, cpu or cuda.

    Returns:
        The new scores.

    Raises:
        ValueError: if the dataset cannot be loaded.
        OSError: if the file cannot be written.
    """
    config = replace(published.config, out=Path(out) / published.file, device=device)
    scores: dict[str, float | None] = evaluate(config)["runs"][0]["scores"]
    return scores


def largest_difference(
    scores: Mapping[str, float | None], reproduced: Mapping[str, float | None]
) -> tuple[float, str]:
    """Return the largest difference of two sets of scores and the name of that score.

    Differences are relative for scores above 1, and infinite for a published score that was not
    reproduced. Scores that were not published, such as those of a later version, do not count.

    Args:
        scores: published scores.
        reproduced: reproduced scores.
    """
    return max(_differences(scores, reproduced))


def _differences(
    scores: Mapping[str, float | None], reproduced: Mapping[str, float | None]
) -> Iterator[tuple[float, str]]:
    for name, first in scores.items():
        second = reproduced.get(name)
        if first is None or second is None:
            yield (0.0 if first is second else float("inf")), name
        else:
            yield abs(second - first) / max(1.0, abs(first)), name
