"""Runs scored on one split of their data, compared, and summed up over seeds."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genesis_rl.data import SPLITS, Pack
from genesis_rl.evaluation.candidates import (
    Candidate,
    check_one_data_set,
    open_candidate,
    open_data,
    open_split,
    training_facts,
)
from genesis_rl.files import write_json
from genesis_rl.metrics.features import FactorFeatures
from genesis_rl.metrics.frechet import FeatureNetwork, SampleScorer
from genesis_rl.metrics.imagined import SceneScorer
from genesis_rl.metrics.inception import InceptionFeatures
from genesis_rl.process import versions
from genesis_rl.scoring import ScoreConfig, baselines, score

_CHOICES = {
    "split": SPLITS,
    "which": ("best", "last"),
    "frechet": ("own", "inception", "none"),
}
# Settings that make another run of the same experiment.
_INCIDENTAL = frozenset(
    "seed out resume device threads compile recompute".split()
    + "log_every save_every tensorboard wandb".split()
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Which runs to score, on what."""

    runs: tuple[str, ...]
    """runs of pretrain/train.py, folders of saved models, or models' ids on the Hub"""
    split: Literal["train", "validation", "test"] = "test"
    """which images"""
    num_images: int = 1000
    """images scored, the first of the split; a pack on disk may have fewer"""
    seed: int = 0
    """of the noise"""
    iw_samples: int = 8
    """samples of the importance-weighted bound, and of the ELBO"""
    refine_steps: int = 0
    """gradient steps on the latents that each encoder infers, before they are scored"""
    frechet: Literal["own", "inception", "none"] = "own"
    """network for the Frechet distance of samples: one trained on the training split and kept with
    it, which takes minutes once; the standard Inception network, which makes it the FID; or none.
    Half of the images scored are compared to as many samples"""
    imagined: bool = False
    """judge as many scenes from the prior, too: are their objects valid, how far are they from the
    training images, all of which are read"""
    inception_weights: Path | None = None
    """file of the Inception weights; None: downloaded"""
    which: Literal["best", "last"] = "best"
    """which model of a run"""
    data: str | None = None
    """name of a data set or folder of a pack; None: what the runs were trained on"""
    data_options: str = "{}"
    """options of that data set as JSON"""
    out: Path | None = None
    """JSON file of all figures; None: evaluation-SPLIT.json in each run's folder"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Check values."""
        if not self.runs:
            raise ValueError("runs is empty; wanted at least one.")
        doubled = sorted({run for run in self.runs if self.runs.count(run) > 1})
        if doubled:
            raise ValueError(f"runs has {', '.join(doubled)} more than once.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; wanted one of {', '.join(choices)}."
                )
        if self.data is None and self.data_options != "{}":
            raise ValueError("data_options are given without data; wanted both.")
        if self.inception_weights is not None and self.frechet != "inception":
            raise ValueError(f"inception_weights are given with frechet {self.frechet!r}.")
        _ = self.scoring

    @property
    def scoring(self) -> ScoreConfig:
        """The part that says how to score."""
        return ScoreConfig(self.num_images, self.seed, self.iw_samples, self.refine_steps)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score runs and write the figures.

    Args:
        config: the settings.

    Returns:
        JSON data: ``runs``, a record of each: run, model, model_config, num_slots, data,
        data_options, split, num_images, seed, scores (see `score`), baselines (see
        `genesis_rl.scoring.baselines`), training, versions; and ``groups`` of runs that differ in
        their seed only: ``label``, ``runs``, and ``mean`` and ``std`` (of the sample, n - 1; None
        for one run) of each score.

    Raises:
        ValueError: if a run or its data cannot be had, the runs are of different data, or there
            are too few images for a Frechet distance.
        OSError: if a file cannot be written.
    """
    candidates = [
        open_candidate(name, config.which, config.data, config.data_options, device=config.device)
        for name in config.runs
    ]
    targets = _targets(config, candidates)
    check_one_data_set(candidates)
    scorers = _scorers(config, candidates[0])
    records = [_record(candidate, config, *scorers) for candidate in candidates]
    result = {"runs": records, "groups": group(records)}
    for index, target in enumerate(targets):
        content = records[index] if config.out is None else result
        write_json(target, content)
    return result


def group(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up records of runs that differ in their seed only; see `evaluate`."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        training = record["training"] or {"config": {}}
        kept = {k: v for k, v in training["config"].items() if k not in _INCIDENTAL}
        if kept.get("init"):  # in a chain of runs, that of the same seed: "runs/large-2" for seed 2
            kept["init"] = str(kept["init"]).removesuffix(f"-{training['config'].get('seed')}")
        key = json.dumps([record["model"], record["model_config"], kept], sort_keys=True)
        groups.setdefault(key, []).append(record)
    models = [members[0]["model"] for members in groups.values()]
    return [
        {
            "label": _label(members, alone=models.count(members[0]["model"]) == 1),
            "runs": [record["run"] for record in members],
            "mean": _over_runs(members, statistics.fmean),
            "std": _over_runs(members, lambda v: statistics.stdev(v) if len(v) > 1 else None),
        }
        for members in groups.values()
    ]


def _label(members: Sequence[dict[str, Any]], *, alone: bool) -> str:
    model: str = members[0]["model"]
    return model if alone else f"{model} ({Path(members[0]['run']).name})"


def _over_runs(members: Sequence[dict[str, Any]], reduce: Any) -> dict[str, float | None]:
    """Reduce each score over runs; None where a run has none."""
    reduced: dict[str, float | None] = {}
    for name in members[0]["scores"]:
        values = [record["scores"][name] for record in members]
        reduced[name] = None if None in values else reduce(values)
    return reduced


# ---- what is scored ------------------------------------------------------------------------------


def _targets(config: EvaluateConfig, candidates: Sequence[Candidate]) -> list[Path]:
    """The files to write: one for all, or one in each folder."""
    if config.out is not None:
        return [config.out.expanduser()]
    folders = [Path(candidate.name).expanduser() for candidate in candidates]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder to put figures in; wanted --out.")
    return [folder / f"evaluation-{config.split}.json" for folder in folders]


def _scorers(
    config: EvaluateConfig, first: Candidate
) -> tuple[SampleScorer | None, SceneScorer | None]:
    """What scores scenes from the prior: their Frechet distance, and what they show."""
    pack = open_split(first, config.split, config.num_images)
    features = samples = scenes = None
    if config.frechet != "none":
        features, samples = _sample_scorer(config, first, pack)
    if config.imagined:
        train = open_data(first, "train")
        scenes = SceneScorer(train, pack, config.num_images, features=features)
    return samples, scenes


def _sample_scorer(
    config: EvaluateConfig, first: Candidate, pack: Pack
) -> tuple[FeatureNetwork, SampleScorer]:
    num_images = min(config.num_images, len(pack)) // 2
    width = FactorFeatures.width if config.frechet == "own" else InceptionFeatures.width
    if num_images <= width:  # said before a network is trained
        raise ValueError(
            f"num_images is {min(config.num_images, len(pack))}; the Frechet distance on {width} "
            f"features wants at least {2 * (width + 1)}; choose more, or --frechet none."
        )
    features: FeatureNetwork
    if config.frechet == "own":
        features = FactorFeatures.cached(open_data(first, "train"), device=config.device)
    else:
        features = InceptionFeatures(config.inception_weights, device=config.device)
    return features, SampleScorer(features, pack, num_images)


def _record(
    candidate: Candidate,
    config: EvaluateConfig,
    samples: SampleScorer | None,
    scenes: SceneScorer | None,
) -> dict[str, Any]:
    pack = open_split(candidate, config.split, config.num_images)
    model = candidate.loaded.model
    count = min(config.num_images, len(pack))
    return {
        "run": candidate.name,
        "model": candidate.loaded.metadata["model"],
        "model_config": dataclasses.asdict(model.config),
        "num_slots": model.config.num_slots,
        "data": candidate.settings.data,
        "data_options": json.loads(candidate.settings.data_options),
        "split": config.split,
        "num_images": count,
        "seed": config.seed,
        "iw_samples": config.iw_samples,
        "refine_steps": config.refine_steps,
        "frechet": config.frechet,
        "frechet_images": None if samples is None else samples.num_images,
        "scores": score(model, pack, config.scoring, samples=samples, scenes=scenes),
        "baselines": baselines(pack, count, model.config.num_slots, samples=samples, scenes=scenes),
        "training": training_facts(candidate, config.which),
        "versions": versions(),
    }
