"""Evaluation of models on one split of their data, aggregated over seeds."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from genesis_rl.checkpoints.loading import CONFIG, Pretrained, load_pretrained
from genesis_rl.data import DATASETS, Pack
from genesis_rl.evaluation.metrics.features import FactorFeatures, InceptionFeatures
from genesis_rl.evaluation.metrics.frechet import FeatureNetwork, SampleScorer
from genesis_rl.evaluation.metrics.imagined import SceneScorer
from genesis_rl.evaluation.scoring import ScoreConfig, baselines, score
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import Run, has_setting, settings
from genesis_rl.utils.checks import Names, check_fields
from genesis_rl.utils.files import write_json
from genesis_rl.utils.process import versions

# Settings that may differ between the runs of one group.
_INCIDENTAL = frozenset(
    "seed out resume device threads compile activation_checkpointing".split()
    + "log_every save_every tensorboard wandb".split()
)


class Candidate(NamedTuple):
    """A model to evaluate.

    Attributes:
        name: name passed by the user.
        run: run of the model; None for a model without run.
        loaded: the model.
        settings: settings of the training; without run, defaults with the model and data.
    """

    name: str
    run: Run | None
    loaded: Pretrained
    settings: PretrainConfig


def open_candidate(
    name: str,
    which: Literal["best", "last"],
    data: str | None,
    data_options: str,
    *,
    device: str,
) -> Candidate:
    """Load a model and its settings.

    Args:
        name: run directory of pretrain/train.py, folder of a pretrained model, or Hub id.
        which: checkpoint of a run.
        data: name of a dataset or folder of a pack; None: the run's training data.
        data_options: options of that dataset as JSON.
        device: "auto" selects a GPU if there is one.

    Raises:
        ValueError: if there is no such model, or data is None for a model without run.
    """
    folder = Path(name).expanduser()
    # A pretrained model has its config in the folder; a run has it in best/ and last/. The run of a
    # student has it there too, and is treated as a pretrained model.
    is_pretrained = (folder / CONFIG).is_file() or has_setting(folder, "teacher_fingerprint")
    is_run = folder.is_dir() and not is_pretrained
    run = Run.open(folder) if is_run else None
    loaded = load_pretrained(name, device=device) if run is None else run.load(which, device=device)
    if data is not None:
        chosen = PretrainConfig(model=loaded.model.config, data=data, data_options=data_options)
    elif run is not None:
        chosen = run.config
    else:
        raise ValueError(f"data (--data) must be set for {name}, a model without run, got None.")
    return Candidate(name, run, loaded, chosen)


def check_one_data_set(candidates: Sequence[Candidate]) -> None:
    """Validate that all models have the same data.

    Raises:
        ValueError: if two differ.
    """
    first, *others = candidates
    for other in others:
        expected, actual = _data_of(first), _data_of(other)
        if expected != actual:
            raise ValueError(
                f"data of {other.name} must be {expected[0]} {expected[1]}, as of {first.name}, "
                f"got {actual[0]} {actual[1]}. Set --data to evaluate all on one dataset."
            )


def open_data(candidate: Candidate, split: str, *, held_out: int = 1) -> Pack:
    """Open a split of a candidate's data.

    If the settings contain a number of images, validation and test have at most ``held_out``. Warns
    if the images were resized differently from the model's frames.
    """
    chosen = dataclasses.replace(candidate.settings, eval_images=held_out, batch_size=1)
    pack = chosen.open_data(split)
    pack.check_preprocessing(candidate.loaded.preprocessing, candidate.name)
    return pack


def open_split(candidate: Candidate, split: str, num_images: int) -> Pack:
    """Open a split with at most ``num_images`` images if it is generated or converted on demand."""
    options = json.loads(candidate.settings.data_options)
    if candidate.settings.data in DATASETS:
        options["num_images"] = num_images
    chosen = dataclasses.replace(candidate.settings, data_options=json.dumps(options))
    return open_data(candidate._replace(settings=chosen), split, held_out=num_images)


def training_facts(candidate: Candidate, which: str) -> dict[str, Any] | None:
    """Return facts on the training, as JSON data; None for a model without run."""
    run, metadata = candidate.run, candidate.loaded.metadata
    if run is None:
        return None
    return {
        "checkpoint": which,
        "checkpoint_step": metadata.get("step"),
        "step": run.step,
        "images_seen": run.images_seen,
        "minutes": run.minutes,
        "img_per_s": run.img_per_s,
        "hardware": metadata.get("hardware"),
        "config": settings(run.config),
    }


def _data_of(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    name = candidate.settings.data
    if name not in DATASETS:
        name = str(Path(name).expanduser().resolve())
    return name, json.loads(candidate.settings.data_options)


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of an evaluation."""

    models: Names
    """run directories of pretrain/train.py, folders of pretrained models, or Hub ids"""
    split: Literal["train", "validation", "test"] = "test"
    """split of the images"""
    num_images: int = 1000
    """number of images, the first of the split; packs on disk may have fewer"""
    seed: int = 0
    """seed of the noise"""
    iw_samples: int = 8
    """samples of the importance-weighted bound and the ELBO"""
    refine_steps: int = 0
    """refinement steps on the inferred latents"""
    frechet: Literal["own", "inception", "none"] = "own"
    """network for the Frechet distance of samples: own (trained on the training split and cached
    with it, takes minutes), inception (the FID), or none; compares half of the images to as many
    samples"""
    imagined: bool = False
    """evaluate samples of the prior: validity of their objects and distance to all training
    images"""
    inception_weights: Path | None = None
    """file of the Inception weights; None: downloaded"""
    which: Literal["best", "last"] = "best"
    """checkpoint of runs"""
    data: str | None = None
    """name of a dataset or folder of a pack; None: the runs' training data"""
    data_options: str = "{}"
    """options of that dataset as JSON"""
    out: Path | None = None
    """JSON file of all results; None: evaluation-SPLIT.json in each run directory"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Validate values."""
        check_fields(self)
        if self.data is None and self.data_options != "{}":
            raise ValueError("data must be set with data_options, got None.")
        if self.inception_weights is not None and self.frechet != "inception":
            raise ValueError(
                f"frechet must be 'inception' with inception_weights, got {self.frechet!r}."
            )
        _ = self.scoring

    @property
    def scoring(self) -> ScoreConfig:
        """Settings of the scores."""
        return ScoreConfig(self.num_images, self.seed, self.iw_samples, self.refine_steps)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate models and write the results.

    Args:
        config: the settings.

    Returns:
        JSON data: ``runs``, one record per model: run, model, model_config, num_slots, data,
        data_options, split, num_images, seed, scores (see `score`), baselines (see
        `genesis_rl.evaluation.scoring.baselines`), training, versions; and ``groups`` of models
        that differ only in their seed: ``label``, ``runs``, and ``mean`` and ``std`` (of the
        sample, n - 1; None for one run) of each score.

    Raises:
        ValueError: if a model or its data is missing, models have different data, or there are too
            few images for a Frechet distance.
        OSError: if a file cannot be written.
    """
    candidates = [
        open_candidate(name, config.which, config.data, config.data_options, device=config.device)
        for name in config.models
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
    """Aggregate the records of models that differ only in their seed; see `evaluate`."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        training = record["training"] or {"config": {}}
        settings = {k: v for k, v in training["config"].items() if k not in _INCIDENTAL}
        if settings.get("init"):
            init, out = str(settings["init"]), f"{training['config'].get('out')}/"
            if init.startswith(out):  # an earlier stage of the same run
                settings["init"] = init.removeprefix(out)
            else:  # the run of the same seed, e.g. "runs/large-2" for seed 2
                settings["init"] = init.removesuffix(f"-{training['config'].get('seed')}")
        key = json.dumps([record["model"], record["model_config"], settings], sort_keys=True)
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
    """Reduce each score over runs; None if a run lacks it."""
    reduced: dict[str, float | None] = {}
    for name in members[0]["scores"]:
        values = [record["scores"][name] for record in members]
        reduced[name] = None if None in values else reduce(values)
    return reduced


# ---- scores --------------------------------------------------------------------------------------


def _targets(config: EvaluateConfig, candidates: Sequence[Candidate]) -> list[Path]:
    """Return the files to write: one for all, or one in each folder."""
    if config.out is not None:
        return [config.out.expanduser()]
    folders = [Path(candidate.name).expanduser() for candidate in candidates]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"out (--out) must be set for {folder}, which is not a folder.")
    return [folder / f"evaluation-{config.split}.json" for folder in folders]


def _scorers(
    config: EvaluateConfig, first: Candidate
) -> tuple[SampleScorer | None, SceneScorer | None]:
    """Return the scorers of prior samples: Frechet distance and validity."""
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
    if num_images <= width:  # raised before a network is trained
        raise ValueError(
            f"num_images must be at least {2 * (width + 1)} for a Frechet distance of {width} "
            f"features, got {min(config.num_images, len(pack))}. Use more, or --frechet none."
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
