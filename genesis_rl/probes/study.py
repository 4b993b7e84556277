"""Models probed on one data set, beside what needs no training and what has it all."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from genesis_rl.checkpoint import fingerprint, pick_device
from genesis_rl.data import data_root
from genesis_rl.evaluation import (
    Candidate,
    check_one_data_set,
    group,
    open_candidate,
    open_data,
    training_facts,
)
from genesis_rl.files import write_json
from genesis_rl.probes.config import ProbeConfig
from genesis_rl.probes.heads import (
    Question,
    fit_linear,
    fit_mlps,
    moments,
    standardise,
    wilson,
)
from genesis_rl.probes.latents import Latents, Sample, latents
from genesis_rl.probes.objects import ObjectStudy
from genesis_rl.probes.saved import Keeper
from genesis_rl.probes.scenes import TASKS, SceneStudy
from genesis_rl.process import hardware, versions
from genesis_rl.slots import SceneModel

Features = Mapping[str, Tensor]


class Study(Protocol):
    """Questions about a data set, with the features by split that may answer them."""

    kind: str
    heads: tuple[str, ...]
    questions: list[Question]

    def of_model(
        self, latents: Mapping[str, Latents]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """A model's latents, and further figures on them."""

    def pixels(self, side: int) -> dict[str, Tensor]:
        """Raw pixels."""

    def state(self) -> dict[str, Tensor] | None:
        """Ground truth, if there is any."""

    def masks(self) -> dict[str, Tensor] | None:
        """Moments of the true masks, if there are any."""


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Train probes on frozen latents, score them on the test split and write the figures.

    Args:
        config: the settings.

    Returns:
        JSON data: ``task``; ``data``, ``data_options``, ``num_images`` by split; ``questions``,
        for each its classes (none for values) and number of ``test`` answers; ``runs``, a record
        of each: run, model, model_config, width of the features, scores by question (of several
        heads: question_head; the mean over the probes' seeds), ``intervals`` of accuracies (95 %,
        Wilson's, of the test answers as if independent), ``seeds`` with each training's score and
        epoch, training; ``groups`` of runs that differ in their seed only, see `group`;
        ``baselines``, records with a name instead of a run: ``majority`` (the commonest class, the
        mean), ``pixels N x N``, ``random MODEL`` (untrained encoders of the runs' configs),
        ``true masks`` (their moments, of scenes) and ``state``, if the data have them; ``config``,
        ``hardware``, ``versions``.

    Raises:
        ValueError: if a run or its data cannot be had, runs are of different data, the data do
            not tell what is asked, or there are too few images.
        OSError: if a file cannot be written.
    """
    candidates = [
        open_candidate(name, config.which, config.data, config.data_options, device=config.device)
        for name in config.runs
    ]
    check_one_data_set(candidates)
    samples = _samples(config, candidates[0])
    study = _study(config, samples)
    if config.heads is not None and study.kind != "scenes":
        raise ValueError("heads are kept of questions about scenes; the data have none.")
    target = config.out or Path(config.runs[0]) / f"probes-{study.kind}.json"
    if config.out is None and not target.expanduser().parent.is_dir():
        raise ValueError(f"{target.parent} is no folder to put figures in; wanted --out.")
    records = [_run_record(config, study, samples, candidate) for candidate in candidates]
    result = {
        "task": study.kind,
        "data": candidates[0].settings.data,
        "data_options": json.loads(candidates[0].settings.data_options),
        "num_images": {split: len(sample.rows) for split, sample in samples.items()},
        "questions": {
            q.name: {"classes": list(q.classes), "test": len(q.answers["test"])}
            for q in study.questions
        },
        "runs": records,
        "groups": group(records),
        "baselines": _baselines(config, study, samples, candidates),
        "config": _plain(config),
        "hardware": hardware(pick_device(config.device)),
        "versions": versions(),
    }
    write_json(target.expanduser(), result)
    return result


# ---- images and questions ------------------------------------------------------------------------


def _samples(config: ProbeConfig, first: Candidate) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for split in config.splits:
        # Whole splits, to draw from: the first images of an original data set are of few scenes.
        pack = open_data(first, split, held_out=config.num_held_out)
        same = [name for name, other in samples.items() if other.pack.folder == pack.folder]
        if same:
            raise ValueError(
                f"{pack.folder} is both the {same[0]} and the {split} split; wanted a folder with "
                f"a pack for each of {', '.join(config.splits)}."
            )
        samples[split] = Sample.draw(
            pack, config.num_train if split == "train" else config.num_held_out
        )
    count = len(samples["train"].rows)
    if count < config.mlp.batch_size:
        raise ValueError(
            f"there are {count} training images; wanted at least {config.mlp.batch_size}, a batch."
        )
    return samples


def _study(config: ProbeConfig, samples: Mapping[str, Sample]) -> Study:
    known = samples["train"].pack.meta.get("factors", [])
    tells_tasks = any(factor in known for factor in TASKS.values())
    task = config.task or ("scenes" if tells_tasks or config.tasks else "properties")
    return SceneStudy(samples, config.tasks) if task == "scenes" else ObjectStudy(samples)


# ---- features and their scores -------------------------------------------------------------------


def _run_record(
    config: ProbeConfig, study: Study, samples: Mapping[str, Sample], candidate: Candidate
) -> dict[str, Any]:
    model = candidate.loaded.model
    keep = None if config.heads is None else Keeper(config.heads, model)
    return {
        "run": candidate.name,
        "model": candidate.loaded.metadata["model"],
        "model_config": dataclasses.asdict(model.config),
        "fingerprint": fingerprint(model),
        **_model_scores(config, study, samples, model, candidate.name, keep),
        "training": training_facts(candidate, config.which),
    }


def _baselines(
    config: ProbeConfig,
    study: Study,
    samples: Mapping[str, Sample],
    candidates: Sequence[Candidate],
) -> list[dict[str, Any]]:
    guess = {f"{q.name}{end}": q.guess() for q in study.questions for end in _endings(study)}
    records: list[dict[str, Any]] = [{"name": "majority", "width": 0, "scores": guess}]
    side = config.pixel_side or samples["train"].pack.images.shape[1]
    name, pixels = f"pixels {side} x {side}", study.pixels(side)
    records.append({"name": name, **_scores(config, study, _scaled(config, pixels), name)})
    drawn: list[Any] = []
    for candidate in candidates:
        trained = candidate.loaded.model
        if trained.config not in drawn:
            drawn.append(trained.config)
            name = f"random {candidate.loaded.metadata['model']}"
            model = _untrained(trained, config)
            records.append({"name": name, **_model_scores(config, study, samples, model, name)})
    for name, truth in (("true masks", study.masks()), ("state", study.state())):
        if truth is not None:
            records.append({"name": name, **_scores(config, study, truth, name)})
    return records


def _untrained(trained: Any, config: ProbeConfig) -> SceneModel:
    """A model like a trained one, with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model: SceneModel = type(trained)(trained.config).to(pick_device(config.device)).eval()
    return model


def _model_scores(
    config: ProbeConfig,
    study: Study,
    samples: Mapping[str, Sample],
    model: SceneModel,
    name: str,
    keep: Keeper | None = None,
) -> dict[str, Any]:
    cache = (config.cache or data_root() / "latents").expanduser()
    found = {split: latents(model, sample, cache) for split, sample in samples.items()}
    features, further = study.of_model(found)
    if keep is not None and config.standardise:
        keep = keep._replace(moments=moments(features["train"]))
    record = _scores(config, study, _scaled(config, features), name, keep)
    return {**record, "scores": {**record["scores"], **further}}


def _scaled(config: ProbeConfig, features: Features) -> Features:
    return standardise(features) if config.standardise else features


def _scores(
    config: ProbeConfig, study: Study, features: Features, name: str, keep: Keeper | None = None
) -> dict[str, Any]:
    """Train every head on some features; see `probe`."""
    device = pick_device(config.device)
    ending = dict(zip(study.heads, _endings(study), strict=True))
    seeds: dict[str, list[dict[str, Any]]] = {}
    for seed in range(config.seed, config.seed + config.seeds):
        fits = fit_mlps(features, study.questions, config.mlp, seed=seed, device=device, name=name)
        if keep is not None and seed == config.seed:
            keep(study.questions, fits)
        for question, fit in fits.items():
            row = {"seed": seed, "score": fit.score, "epoch": fit.epoch}
            seeds.setdefault(question + ending["mlp"], []).append(row)
    scores = {key: statistics.fmean(row["score"] for row in rows) for key, rows in seeds.items()}
    if "linear" in ending:
        linear = fit_linear(features, study.questions, config.ridge)
        scores |= {question + ending["linear"]: score for question, score in linear.items()}
    intervals = {
        f"{q.name}{end}": wilson(scores[f"{q.name}{end}"], len(q.answers["test"]))
        for q in study.questions
        if q.classes
        for end in ending.values()
    }
    width = features["train"].shape[1]
    return {"width": width, "scores": scores, "intervals": intervals, "seeds": seeds}


def _endings(study: Study) -> list[str]:
    """What the heads add to a question's name: nothing where there is but one."""
    return [f"_{head}" for head in study.heads] if len(study.heads) > 1 else [""]


def _plain(config: ProbeConfig) -> dict[str, Any]:
    plain = dataclasses.asdict(config)
    return {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}
