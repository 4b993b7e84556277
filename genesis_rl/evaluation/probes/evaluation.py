"""Probe evaluation: probes of models and of baselines on one dataset."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from genesis_rl.checkpoints.loading import fingerprint, pick_device
from genesis_rl.data import data_root
from genesis_rl.evaluation.probes.heads import (
    MlpConfig,
    fit_attention,
    fit_linear,
    fit_mlps,
    moments,
    standardise,
    wilson,
)
from genesis_rl.evaluation.probes.inputs import (
    TASKS,
    ObjectInputs,
    ProbeInputs,
    SceneInputs,
    StateInputs,
    has_states,
)
from genesis_rl.evaluation.probes.latents import Sample, encode_sample
from genesis_rl.evaluation.probes.saved import SceneProbeWriter
from genesis_rl.evaluation.runs import (
    Candidate,
    check_one_data_set,
    group,
    open_candidate,
    open_data,
    training_facts,
)
from genesis_rl.slots import SceneModel
from genesis_rl.utils.checks import DIFFERENT, Count, Names, Positive, check_fields
from genesis_rl.utils.files import write_json
from genesis_rl.utils.process import hardware, versions

SceneTask = Literal["stability", "height", "view", "simulated_stability"]
Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class ProbeConfig:
    """Models, targets and training of probes; defaults are the paper's (appendix B.5)."""

    encoders: Names
    """run directories, folders of pretrained models, or model ids on the Hub"""
    task: Literal["scenes", "properties", "state"] | None = None
    """scenes: predict the ShapeStacks tasks from all slots; properties: predict an object's
    properties from its slot; state: predict the simulator's state, which recordings of rendered
    environments contain, from all slots. None: the first that the dataset has factors for"""
    tasks: Annotated[tuple[SceneTask, ...], DIFFERENT] = ()
    """scene tasks; none: all tasks for which the dataset has a factor"""
    num_train: Count = 50_000
    """most labelled training images, drawn at random"""
    num_held_out: Count = 10_000
    """most images of the test split, and of the validation split if used"""
    mlp: MlpConfig = field(default_factory=MlpConfig)
    """network of the probes and its training"""
    ridge: Positive = 1.0
    """L2 weight of the linear probes of properties, in examples"""
    standardise: bool = False
    """standardise latents and pixels for the MLP; the inputs of linear probes and the ground-truth
    state are always standardised"""
    pixel_side: Count | None = 16
    """side in pixels of the area-averaged images of the pixel baseline; None: all pixels"""
    seeds: Count = 1
    """number of trainings of each MLP, with different seeds"""
    seed: int = 0
    """first of these seeds; also seeds the weights of the random encoders"""
    which: Literal["best", "last"] = "best"
    """checkpoint of a run"""
    data: str | None = None
    """name of a dataset or folder of packs; None: the runs' training dataset"""
    data_options: str = "{}"
    """options of that dataset as JSON"""
    cache: Path | None = None
    """folder of cached latents; None: latents/ in the folder of generated datasets"""
    out: Path | None = None
    """JSON file of results; None: probes-TASK.json in the run directory"""
    heads: Path | None = None
    """folder to save the scene MLPs of a single encoder in, one subfolder per target, as
    `genesis_rl.evaluation.probes.SceneProbe`; the first seed is saved"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if len(self.encoders) > 1 and self.out is None:
            raise ValueError("out must be set for several encoders, got None.")
        others = ("properties", "state")
        if self.heads is not None and (len(self.encoders) > 1 or self.task in others):
            raise ValueError(
                "heads must be None unless encoders is a single one and task is 'scenes', "
                f"got {len(self.encoders)} encoders and task {self.task!r}."
            )
        if self.tasks and self.task in others:
            raise ValueError(f"tasks must be empty with task={self.task!r}, got {self.tasks}.")
        if not 0 <= self.seed < 2**63 - self.seeds:
            raise ValueError(f"seed must be 0 to 2**63 - 1 - seeds, got {self.seed}.")
        if self.data is None and self.data_options != "{}":
            raise ValueError("data must be set with data_options, got None.")

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits in use."""
        held_out = ("validation", "test") if self.mlp.epoch == "best" else ("test",)
        return ("train", *held_out)


def probe(config: ProbeConfig) -> dict[str, Any]:
    """Train probes on frozen latents, evaluate them on the test split and write the results.

    Args:
        config: the settings.

    Returns:
        JSON data: ``task``; ``data``, ``data_options``, ``num_images`` by split; ``questions``,
        the targets with their classes (none for regression) and number of ``test`` values;
        ``runs``, a record per run: run, model, model_config, width of the features, scores by
        target (with several heads: target_head; the mean over the probes' seeds), ``intervals`` of
        accuracies (95 %, Wilson's, assuming independent test values), ``seeds`` with each
        training's score and epoch, training; ``groups`` of runs that differ in their seed only, see
        `group`; ``baselines``, records with a name instead of a run: ``majority`` (the most
        frequent class or the mean), ``pixels N x N``, ``random MODEL`` (untrained encoders of the
        runs' configs), ``true masks`` (moments, scenes only) and ``state``, if available;
        ``config``, ``hardware``, ``versions``.

    Raises:
        ValueError: if a run or its dataset cannot be loaded, runs were trained on different
            datasets, or the dataset lacks the factors or has too few images.
        OSError: if a file cannot be written.
    """
    candidates = [
        open_candidate(name, config.which, config.data, config.data_options, device=config.device)
        for name in config.encoders
    ]
    check_one_data_set(candidates)
    samples = _samples(config, candidates[0])
    inputs = _probe_inputs(config, samples)
    if config.heads is not None and inputs.kind != "scenes":
        raise ValueError("heads must be None for datasets without factors of scene tasks.")
    target = config.out or Path(config.encoders[0]) / f"probes-{inputs.kind}.json"
    if config.out is None and not target.expanduser().parent.is_dir():
        raise ValueError(f"out must be set if {target.parent} is not a folder, got None.")
    records = [_run_record(config, inputs, samples, candidate) for candidate in candidates]
    settings = dataclasses.asdict(config).items()
    result = {
        "task": inputs.kind,
        "data": candidates[0].settings.data,
        "data_options": json.loads(candidates[0].settings.data_options),
        "num_images": {split: len(sample.rows) for split, sample in samples.items()},
        "questions": {
            t.name: {"classes": list(t.classes), "test": len(t.values["test"])}
            for t in inputs.targets
        },
        "runs": records,
        "groups": group(records),
        "baselines": _baselines(config, inputs, samples, candidates),
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in settings},
        "hardware": hardware(pick_device(config.device)),
        "versions": versions(),
    }
    write_json(target.expanduser(), result)
    return result


# ---- images and targets --------------------------------------------------------------------------


def _samples(config: ProbeConfig, first: Candidate) -> dict[str, Sample]:
    samples: dict[str, Sample] = {}
    for split in config.splits:
        # Sample from whole splits, because the first images of original datasets show few scenes.
        pack = open_data(first, split, held_out=config.num_held_out)
        same = [name for name, other in samples.items() if other.pack.folder == pack.folder]
        if same:
            raise ValueError(
                f"data must contain a pack for each of {', '.join(config.splits)}, got "
                f"{pack.folder} for both {same[0]} and {split}."
            )
        samples[split] = Sample.draw(
            pack, config.num_train if split == "train" else config.num_held_out
        )
    count = len(samples["train"].rows)
    if count < config.mlp.batch_size:
        raise ValueError(
            f"data must have at least mlp.batch_size={config.mlp.batch_size} training images, "
            f"got {count}."
        )
    return samples


def _probe_inputs(config: ProbeConfig, samples: Mapping[str, Sample]) -> ProbeInputs:
    factors = samples["train"].pack.meta.get("factors", [])
    has_tasks = any(factor in factors for factor in TASKS.values())
    task = config.task
    if task is None and (has_tasks or config.tasks):
        task = "scenes"
    elif task is None:
        task = "state" if has_states(samples["train"].pack.factors) else "properties"
    if task == "scenes":
        return SceneInputs(samples, config.tasks)
    return StateInputs(samples) if task == "state" else ObjectInputs(samples)


# ---- features and their scores -------------------------------------------------------------------


def _run_record(
    config: ProbeConfig, inputs: ProbeInputs, samples: Mapping[str, Sample], candidate: Candidate
) -> dict[str, Any]:
    model = candidate.loaded.model
    writer = None if config.heads is None else SceneProbeWriter(config.heads, model)
    return {
        "run": candidate.name,
        "model": candidate.loaded.metadata["model"],
        "model_config": dataclasses.asdict(model.config),
        "fingerprint": fingerprint(model),
        **_model_scores(config, inputs, samples, model, candidate.name, writer),
        "training": training_facts(candidate, config.which),
    }


def _baselines(
    config: ProbeConfig,
    inputs: ProbeInputs,
    samples: Mapping[str, Sample],
    candidates: Sequence[Candidate],
) -> list[dict[str, Any]]:
    majority = {
        f"{t.name}{end}": t.baseline_score() for t in inputs.targets for end in _endings(inputs)
    }
    records: list[dict[str, Any]] = [{"name": "majority", "width": 0, "scores": majority}]
    side = config.pixel_side or samples["train"].pack.images.shape[1]
    name, pixels = f"pixels {side} x {side}", inputs.pixels(side)
    records.append({"name": name, **_scores(config, inputs, _scaled(config, pixels), name)})
    configs: list[Any] = []
    for candidate in candidates:
        trained = candidate.loaded.model
        if trained.config not in configs:
            configs.append(trained.config)
            name = f"random {candidate.loaded.metadata['model']}"
            model = _untrained(trained, config)
            records.append({"name": name, **_model_scores(config, inputs, samples, model, name)})
    for name, truth in (("true masks", inputs.masks()), ("state", inputs.state())):
        if truth is not None:
            records.append({"name": name, **_scores(config, inputs, truth, name)})
    return records


def _untrained(trained: Any, config: ProbeConfig) -> SceneModel:
    """Return a model with the config of a trained one and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model: SceneModel = type(trained)(trained.config).to(pick_device(config.device)).eval()
    return model


def _model_scores(
    config: ProbeConfig,
    inputs: ProbeInputs,
    samples: Mapping[str, Sample],
    model: SceneModel,
    name: str,
    writer: SceneProbeWriter | None = None,
) -> dict[str, Any]:
    cache = (config.cache or data_root() / "latents").expanduser()
    latents = {split: encode_sample(model, sample, cache) for split, sample in samples.items()}
    features, further = inputs.model_features(latents)
    if writer is not None and config.standardise:
        writer = writer._replace(moments=moments(features["train"]))
    num_slots = model.config.num_slots if "attention" in inputs.heads else None
    record = _scores(config, inputs, _scaled(config, features), name, writer, num_slots)
    return {**record, "scores": {**record["scores"], **further}}


def _scaled(config: ProbeConfig, features: Features) -> Features:
    return standardise(features) if config.standardise else features


def _scores(
    config: ProbeConfig,
    inputs: ProbeInputs,
    features: Features,
    name: str,
    writer: SceneProbeWriter | None = None,
    num_slots: int | None = None,
) -> dict[str, Any]:
    """Train and evaluate all heads on the given features; see `probe`.

    The head "attention" needs features (n, K D) with K = ``num_slots``.
    """
    device = pick_device(config.device)
    ending = dict(zip(inputs.heads, _endings(inputs), strict=True))
    seeds: dict[str, list[dict[str, Any]]] = {}
    for seed in range(config.seed, config.seed + config.seeds):
        fits = fit_mlps(features, inputs.targets, config.mlp, seed=seed, device=device, name=name)
        if writer is not None and seed == config.seed:
            writer.save(inputs.targets, fits)
        for target, fit in fits.items():
            row = {"seed": seed, "score": fit.score, "epoch": fit.epoch}
            seeds.setdefault(target + ending["mlp"], []).append(row)
        if num_slots is not None:
            sets = {split: x.unflatten(1, (num_slots, -1)) for split, x in features.items()}
            pooled = fit_attention(
                sets, inputs.targets, config.mlp, seed=seed, device=device, name=name
            )
            for target, score in pooled.items():
                row = {"seed": seed, "score": score, "epoch": config.mlp.epochs}
                seeds.setdefault(target + ending["attention"], []).append(row)
    scores = {key: statistics.fmean(row["score"] for row in rows) for key, rows in seeds.items()}
    if "linear" in ending:
        linear = fit_linear(features, inputs.targets, config.ridge)
        scores |= {name + ending["linear"]: score for name, score in linear.items()}
    intervals = {
        f"{t.name}{end}": wilson(scores[f"{t.name}{end}"], len(t.values["test"]))
        for t in inputs.targets
        if t.classes
        for end in ending.values()
    }
    width = features["train"].shape[1]
    return {"width": width, "scores": scores, "intervals": intervals, "seeds": seeds}


def _endings(inputs: ProbeInputs) -> list[str]:
    """Return the suffixes of target names by head; empty for a single head."""
    return [f"_{head}" for head in inputs.heads] if len(inputs.heads) > 1 else [""]
