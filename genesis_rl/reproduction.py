"""The page's figures of the models that come with the package, measured once more."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from genesis_rl.evaluation import EvaluateConfig, evaluate
from genesis_rl.files import read_json
from genesis_rl.results import read_index, written_by
from genesis_rl.weights import shipped

# Settings that a record has by the names that EvaluateConfig has them by.
_RECORDED = ("split", "num_images", "seed", "iw_samples", "refine_steps", "frechet")


class Claim(NamedTuple):
    """What a file of results says of a model that comes with the package.

    Attributes:
        file: the file's name, in the folder of results.
        config: how its figures were measured; the model's name is the only one of its models.
        scores: its figures, by name.
    """

    file: str
    config: EvaluateConfig
    scores: dict[str, float | None]


def claims(folder: str | os.PathLike[str], names: Sequence[str] = ()) -> list[Claim]:
    """Find what a folder of results says of models that come with the package.

    Args:
        folder: holds the index and the files it names.
        names: of the models; empty: all.

    Returns:
        In the order of the page.

    Raises:
        ValueError: if a name is none of a model that comes along, or a file is damaged.
    """
    known = shipped()
    for name in names:
        if name not in known:
            raise ValueError(f"models has {name!r}; wanted any of {', '.join(known)}.")
    found = []
    for file in dict.fromkeys(file for section in read_index(folder) for file in section.across):
        path = Path(folder) / file
        with written_by("evaluate.py --out", path):
            records = read_json(path)["runs"]
            if len(records) == 1 and records[0]["run"] in (names or known):
                found.append(Claim(file, _config(records[0]), records[0]["scores"]))
    return found


def _config(record: Mapping[str, Any]) -> EvaluateConfig:
    """The settings that a record of `genesis_rl.evaluation.evaluate` was made with."""
    return EvaluateConfig(
        models=(record["run"],),
        data=record["data"],
        data_options=json.dumps(record["data_options"]),
        **{name: record[name] for name in _RECORDED},
    )


def measure(
    claim: Claim, out: str | os.PathLike[str], device: str = "auto"
) -> dict[str, float | None]:
    """Score a claim's model again, by the settings it was scored with.

    Args:
        claim: of `claims`.
        out: folder of the new file, which is called as the claim's.
        device: auto, cpu or cuda.

    Returns:
        The new scores.

    Raises:
        ValueError: if the data cannot be had.
        OSError: if the file cannot be written.
    """
    config = replace(claim.config, out=Path(out) / claim.file, device=device)
    scores: dict[str, float | None] = evaluate(config)["runs"][0]["scores"]
    return scores


def largest_difference(
    scores: Mapping[str, float | None], again: Mapping[str, float | None]
) -> tuple[float, str]:
    """The score that differs most: by so much, or, where it is beyond 1, by this share of it.

    Args:
        scores: of the page.
        again: measured once more; a score that only one of the two has differs infinitely.

    Returns:
        The difference, and the score's name.
    """
    return max(_differences(scores, again))


def _differences(
    scores: Mapping[str, float | None], again: Mapping[str, float | None]
) -> Iterator[tuple[float, str]]:
    for name in scores.keys() | again.keys():
        first, second = scores.get(name), again.get(name)
        if first is None or second is None:
            yield (0.0 if first is second else float("inf")), name
        else:
            yield abs(second - first) / max(1.0, abs(first)), name
