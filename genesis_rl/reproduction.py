"""The page's figures of the models that come with the package, measured once more."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genesis_rl.evaluation import EvaluateConfig, evaluate
from genesis_rl.files import read_json
from genesis_rl.results import read_index
from genesis_rl.weights import shipped


class Claim(NamedTuple):
    """What a file of results says of a model that comes with the package.

    Attributes:
        file: the file's name, in the folder of results.
        record: its only one, as `genesis_rl.evaluation.evaluate` makes them; ``run`` is the
            model's name.
    """

    file: str
    record: dict[str, Any]


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
        try:
            records = read_json(Path(folder) / file)["runs"]
            if len(records) == 1 and records[0]["run"] in (names or known):
                found.append(Claim(file, records[0]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{Path(folder) / file} is not what evaluate.py --out writes: "
                f"{type(error).__name__} {error}."
            ) from error
    return found


def measure(claim: Claim, out: str | os.PathLike[str], device: str = "auto") -> dict[str, Any]:
    """Score a claim's model again, by the settings it was scored with.

    Args:
        claim: of `claims`.
        out: folder of the new file, which is called as the claim's.
        device: auto, cpu or cuda.

    Returns:
        The new record.

    Raises:
        ValueError: if the data cannot be had.
        OSError: if the file cannot be written.
    """
    record = claim.record
    config = EvaluateConfig(
        runs=(record["run"],),
        data=record["data"],
        data_options=json.dumps(record["data_options"]),
        out=Path(out) / claim.file,
        device=device,
        **{
            name: record[name]
            for name in ("split", "num_images", "seed", "iw_samples", "refine_steps", "frechet")
        },
    )
    again: dict[str, Any] = evaluate(config)["runs"][0]
    return again


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
