"""Sharing of a run's model and its card, in a folder or on the Hugging Face Hub."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from genesis_rl.checkpoints.hub import is_repository, push_folder
from genesis_rl.checkpoints.loading import Pretrained, fingerprint, load_pretrained, save_pretrained
from genesis_rl.checkpoints.model_card import (
    CardOptions,
    ModelScores,
    data_name,
    model_card,
    portable_settings,
    public_settings,
    student_card,
    world_model_card,
)
from genesis_rl.data import DATASETS
from genesis_rl.evaluation.diagnostics import CheckInputs, compute_statistics, run_checks
from genesis_rl.evaluation.diagnostics.diagnosis import CheckImages
from genesis_rl.evaluation.scoring import ScoreConfig, baselines, score
from genesis_rl.training import PretrainConfig, Run
from genesis_rl.training.folder import has_setting, read_report
from genesis_rl.utils.checks import check_fields
from genesis_rl.utils.files import new_file, read_json
from genesis_rl.world_model import WorldModel

CARD = "README.md"
_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
_CHECKED_IMAGES = 256


@dataclass(frozen=True)
class ShareConfig:
    """Model to share, its evaluation and its destination."""

    run: Path
    """run directory of pretrain/train.py, pretrain/distill.py or pretrain/train_world_model.py"""
    out: Path | None = None
    """new or empty folder to write the model and its card to"""
    push: str | None = None
    """repository on the Hugging Face Hub to push to, OWNER/NAME"""
    private: bool = False
    """make a new repository private"""
    which: Literal["best", "last"] = "best"
    """checkpoint to share"""
    split: Literal["validation", "test"] = "test"
    """split to evaluate on, unless pretrain/evaluate.py has done so"""
    images: CheckImages = 320
    """number of images to evaluate on; 0: none, the card then contains the validation scores of the
    training"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """data type of the stored weights; bf16 halves the files, and is evaluated as stored"""
    name: str | None = None
    """name to load the model by in the card's example; None: the repository"""
    title: str | None = None
    """title of the card; None: the model and its dataset"""
    license: str = "apache-2.0"
    """license of the weights, by the Hub's identifiers"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if self.out is None and self.push is None:
            raise ValueError("out or push must be set, got None for both.")
        if self.push is not None and not is_repository(self.push):
            raise ValueError(f"push must be a Hub id of form 'owner/name', got {self.push!r}.")
        out = self.out and self.out.expanduser()
        if out and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
            raise ValueError(f"out must be a new or an empty folder, got {out}.")

    @property
    def card(self) -> CardOptions:
        """Options of the card."""
        return CardOptions(self.name or self.push, self.title, self.license)


def share(config: ShareConfig) -> str:
    """Write a run's model and its card to a folder, and push them if configured.

    Paths of the machine and the optimiser's state are not included.

    Returns:
        The folder, or the URL of the commit.

    Raises:
        ValueError: if the run does not exist, its dataset cannot be loaded, or the push fails.
        OSError: if the folder cannot be written.
    """
    write, card = _described(config)
    with ExitStack() as stack:
        if config.out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = config.out.expanduser()
        write(folder)
        with new_file(folder / CARD) as temporary:
            temporary.write_text(card, encoding="utf-8")
        if config.push is None:
            return str(folder)
        try:
            return push_folder(folder, config.push, private=config.private)
        except ValueError as error:
            if config.out is None:
                raise
            command = f"hf upload {config.push} {folder}"
            raise ValueError(
                f"{error} The model is in {folder}; upload it by `{command}`."
            ) from error


def _described(config: ShareConfig) -> tuple[Callable[[Path], None], str]:
    """Return a function that writes the model into a folder, and the card's text."""
    if has_setting(config.run, "encoder_fingerprint"):
        return _world_model(config)
    distilled = has_setting(config.run, "teacher_fingerprint")
    loaded, card, extra = _student(config) if distilled else _run(config)
    write = partial(
        save_pretrained,
        loaded.model,
        preprocessing=loaded.preprocessing,
        extra=loaded.metadata | extra,
        dtype=_DTYPES[config.precision],
    )
    return write, card


def _world_model(config: ShareConfig) -> tuple[Callable[[Path], None], str]:
    if config.precision != "fp32":
        raise ValueError(f"precision must be 'fp32' for a world model, got {config.precision!r}.")
    report = read_report(config.run)
    world = WorldModel.from_pretrained(config.run / config.which, device=config.device)
    card = world_model_card(report, world, config.card)
    keys = ("steps", "hardware", "versions")
    extra = {"training": portable_settings(report)} | {k: report[k] for k in keys}
    return partial(world.save_pretrained, extra=extra), card


def _student(config: ShareConfig) -> tuple[Pretrained, str, dict[str, Any]]:
    """Return the rounded model, its card, and additional data for config.json."""
    loaded = load_pretrained(config.run / config.which, device=config.device)
    report = read_report(config.run)
    if fingerprint(loaded.model) != report["fingerprint"]:
        raise ValueError(
            f"which must be 'best' of a finished distillation, got {config.which!r}: "
            f"{config.run / config.which} is not the student of the run's report."
        )
    _round(loaded, config)
    card = student_card(report, loaded, config.card, rounded=config.precision == "bf16")
    keys = ("teacher", "teacher_fingerprint", "fidelity", "flops", "steps", "minutes")
    extra = {
        "training": portable_settings(report),
        "distillation": {k: report[k] for k in keys},
    }
    return loaded, card, extra


def _run(config: ShareConfig) -> tuple[Pretrained, str, dict[str, Any]]:
    """Return as `_student`, for a run of pretrain/train.py."""
    run = Run.open(config.run)
    loaded = run.load(config.which, device=config.device)
    _round(loaded, config)
    card = model_card(run.config, loaded, figures(run, loaded, config), config.card)
    return loaded, card, {"training": public_settings(run.config)}


@torch.no_grad()
def _round(loaded: Pretrained, config: ShareConfig) -> None:
    """Round the weights to the stored data type before the evaluation."""
    dtype = _DTYPES[config.precision]
    if dtype is not None:
        for parameter in cast("nn.Module", loaded.model).parameters():
            parameter.copy_(parameter.to(dtype))


def figures(run: Run, loaded: Pretrained, config: ShareConfig) -> ModelScores:
    """Evaluate the model, or read the results of pretrain/evaluate.py, and run the diagnostics."""
    if not config.images:
        scores = loaded.metadata.get("validation", run.scores)
        return ModelScores("the validation images that selected the checkpoint", scores)
    pack = run.config.open_data(config.split)
    statistics = compute_statistics(loaded.model, pack, min(config.images, _CHECKED_IMAGES))
    inputs = CheckInputs(run.config, run.updates, run.validations, statistics)
    findings = tuple(f for f in run_checks(inputs).findings if f.severity != "note")
    record = None if _DTYPES[config.precision] else _evaluation(run, loaded, config)
    if record is not None:
        images = _describe(run.config, config.split, int(record["num_images"]))
        return ModelScores(images, record["scores"], record["baselines"], findings)
    count = min(config.images, len(pack))
    measured = score(loaded.model, pack, ScoreConfig(num_images=count))
    beside = baselines(pack, count, loaded.model.config.num_slots)
    return ModelScores(_describe(run.config, config.split, count), measured, beside, findings)


def _evaluation(run: Run, loaded: Pretrained, config: ShareConfig) -> dict[str, Any] | None:
    """Return the record of pretrain/evaluate.py on this checkpoint; None if there is none."""
    path = run.folder / f"evaluation-{config.split}.json"
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = read_json(path)
        trained = record["training"]
        same = (trained["checkpoint"], trained["checkpoint_step"]) == (
            config.which,
            loaded.metadata["step"],
        )
        own_data = record["data"] == run.config.data
        return record if same and own_data and record["num_images"] else None
    except (ValueError, TypeError, KeyError):
        return None  # another format: evaluate the model


def _describe(config: PretrainConfig, split: str, count: int) -> str:
    if config.data not in DATASETS and not (Path(config.data).expanduser() / split).is_dir():
        return f"{count:,} training images of {data_name(config)}, which has no {split} split"
    return f"{count:,} held-out images ({split} split of {data_name(config)})"
