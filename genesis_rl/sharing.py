"""Runs made ready for others: the model and its card, in a folder or on the Hugging Face Hub."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from genesis_rl.checkpoint import Pretrained, fingerprint, load_pretrained, save_pretrained
from genesis_rl.data import DATASETS
from genesis_rl.distillation.card import (
    public_report_settings,
    student_card,
)
from genesis_rl.doctor import CheckInputs, compute_statistics, run_checks
from genesis_rl.files import new_file, read_json
from genesis_rl.hub import is_repository, push_folder
from genesis_rl.model_card import Figures, data_name, model_card, public_settings
from genesis_rl.scoring import ScoreConfig, baselines, score
from genesis_rl.training import PretrainConfig, Run
from genesis_rl.training.folder import has_setting, read_report
from genesis_rl.world_model import WorldModel
from genesis_rl.world_model import card as world_card

CARD = "README.md"
_DTYPES = {"fp32": None, "bf16": torch.bfloat16}
_LOOKED_AT = 256


@dataclass(frozen=True)
class ShareConfig:
    """What to share, and where."""

    run: Path
    """folder of a run of pretrain/train.py, pretrain/distill.py or pretrain/train_world_model.py"""
    out: Path | None = None
    """folder to write the model and its card to: a new one, or empty"""
    push: str | None = None
    """repository on the Hugging Face Hub to push them to, OWNER/NAME"""
    private: bool = False
    """make a new repository private"""
    which: Literal["best", "last"] = "best"
    """the model"""
    split: Literal["validation", "test"] = "test"
    """images to score it on, unless pretrain/evaluate.py has done so"""
    images: int = 320
    """how many; 0: none, the card then has the scores of the training's validation"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """what the weights are stored as; bf16 halves the files, and is scored as it is stored"""
    name: str | None = None
    """what the card says to load it by; None: the repository"""
    title: str | None = None
    """the card's title; None: the model and its data"""
    license: str = "apache-2.0"
    """of the weights, as the Hub calls it"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Check values."""
        if self.out is None and self.push is None:
            raise ValueError("neither out nor push is given; wanted a folder, a repository or both")
        if self.push is not None and not is_repository(self.push):
            raise ValueError(f"push is {self.push!r}; wanted a Hub id of form 'owner/name'.")
        if self.images < 0 or self.images == 1:
            raise ValueError(f"images is {self.images}; wanted 0, or at least 2.")
        out = self.out and self.out.expanduser()
        if out and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
            raise ValueError(f"out {out} is there already; wanted a new or an empty folder.")


def share(config: ShareConfig) -> str:
    """Write a run's model and its card to a folder, and push them if asked to.

    Nothing of the machine goes along: no path, no optimiser's state.

    Returns:
        Where they are: the folder, or the commit's address.

    Raises:
        ValueError: if there is no such run, its data cannot be had, or the push fails.
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
            again = f"hf upload {config.push} {folder}"
            raise ValueError(f"{error}; {folder} is written: {again}") from error


def _described(config: ShareConfig) -> tuple[Callable[[Path], None], str]:
    """What writes the model and its config.json into a folder, and its card."""
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
        raise ValueError(f"precision is {config.precision!r}; a world model is stored as fp32.")
    report = read_report(config.run)
    world = WorldModel.from_pretrained(config.run / config.which, device=config.device)
    card = world_card.card(
        report,
        world,
        load_by=config.name or config.push,
        title=config.title,
        license=config.license,
    )
    kept = ("steps", "hardware", "versions")
    extra = {"training": world_card.public_settings(report)} | {k: report[k] for k in kept}
    return partial(world.save_pretrained, extra=extra), card


def _student(config: ShareConfig) -> tuple[Pretrained, str, dict[str, Any]]:
    """The model, as it will be stored, its card, and what config.json is to hold beside it."""
    loaded = load_pretrained(config.run / config.which, device=config.device)
    report = read_report(config.run)
    if fingerprint(loaded.model) != report["fingerprint"]:
        raise ValueError(
            f"{config.run / config.which} is not the student that the run's report is of; "
            "wanted --which best of a distillation that has come to its end."
        )
    _round(loaded, config)
    card = student_card(
        report,
        loaded,
        rounded=config.precision == "bf16",
        load_by=config.name or config.push,
        title=config.title,
        license=config.license,
    )
    kept = ("teacher", "teacher_fingerprint", "fidelity", "flops", "steps", "minutes")
    extra = {
        "training": public_report_settings(report),
        "distillation": {k: report[k] for k in kept},
    }
    return loaded, card, extra


def _run(config: ShareConfig) -> tuple[Pretrained, str, dict[str, Any]]:
    """As `_student`, of a run of pretrain/train.py."""
    run = Run.open(config.run)
    loaded = run.load(config.which, device=config.device)
    _round(loaded, config)
    card = model_card(
        run.config,
        loaded,
        figures(run, loaded, config),
        repo_id=config.name or config.push,
        title=config.title,
        license=config.license,
    )
    return loaded, card, {"training": public_settings(run.config)}


@torch.no_grad()
def _round(loaded: Pretrained, config: ShareConfig) -> None:
    """Round the weights to what will be stored, so that this is what is scored."""
    dtype = _DTYPES[config.precision]
    if dtype is not None:
        for parameter in cast("nn.Module", loaded.model).parameters():
            parameter.copy_(parameter.to(dtype))


def figures(run: Run, loaded: Pretrained, config: ShareConfig) -> Figures:
    """Score the model, or take what pretrain/evaluate.py found, and ask the doctor."""
    if not config.images:
        scores = loaded.metadata.get("validation", run.scores)
        return Figures("the validation images that it was chosen by", scores)
    pack = run.config.open_data(config.split)
    statistics = compute_statistics(loaded.model, pack, min(config.images, _LOOKED_AT))
    inputs = CheckInputs(run.config, run.updates, run.validations, statistics)
    findings = tuple(f for f in run_checks(inputs).findings if f.severity != "note")
    record = None if _DTYPES[config.precision] else _evaluation(run, loaded, config)
    if record is not None:
        images = _describe(run.config, config.split, int(record["num_images"]))
        return Figures(images, record["scores"], record["baselines"], findings)
    count = min(config.images, len(pack))
    measured = score(loaded.model, pack, ScoreConfig(num_images=count))
    beside = baselines(pack, count, loaded.model.config.num_slots)
    return Figures(_describe(run.config, config.split, count), measured, beside, findings)


def _evaluation(run: Run, loaded: Pretrained, config: ShareConfig) -> dict[str, Any] | None:
    """The record that pretrain/evaluate.py wrote of this very model, if it did."""
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
        return None  # of another kind: the model is scored here


def _describe(config: PretrainConfig, split: str, count: int) -> str:
    if config.data not in DATASETS and not (Path(config.data).expanduser() / split).is_dir():
        return (
            f"{count:,} images of {data_name(config)}, which has no {split} split: the model was "
            "trained on them"
        )
    return f"{count:,} held-out images ({split} split of {data_name(config)})"
