"""The models that measuring programs are asked for, with the data that they are measured on."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from genesis_rl.checkpoint import CONFIG, Pretrained, load_pretrained
from genesis_rl.data import DATASETS, Pack
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import has_setting, settings
from genesis_rl.training.run import Run


class Candidate(NamedTuple):
    """A model to measure.

    Attributes:
        name: as it was asked for.
        run: the run it is of; None for a model saved alone.
        loaded: the model.
        settings: those of the training, or as many as name the data.
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
    """Load a model and find its data.

    Args:
        name: a run of pretrain/train.py, the folder of a saved model, or a model's id on the Hub.
        which: which model of a run.
        data: name of a data set or folder of a pack; None: what the run was trained on.
        data_options: options of that data set as JSON.
        device: "auto" takes a GPU if there is one.

    Raises:
        ValueError: if nothing of the kind lies there, or it names no data.
    """
    folder = Path(name).expanduser()
    # A model saved alone has its config right there; a run has it in best/ and last/, and so has a
    # student's, which is taken for a model saved alone.
    alone = (folder / CONFIG).is_file() or has_setting(folder, "teacher_fingerprint")
    is_run = folder.is_dir() and not alone
    run = Run.open(folder) if is_run else None
    loaded = load_pretrained(name, device=device) if run is None else run.load(which, device=device)
    if data is not None:
        chosen = PretrainConfig(model=loaded.model.config, data=data, data_options=data_options)
    elif run is not None:
        chosen = run.config
    else:
        raise ValueError(f"{name} is a model without a run; say with --data what to score it on.")
    return Candidate(name, run, loaded, chosen)


def check_one_data_set(candidates: Sequence[Candidate]) -> None:
    """Refuse to compare models on different data.

    Raises:
        ValueError: naming the first two that differ.
    """
    first, *others = candidates
    for other in others:
        mine, theirs = _data_of(first), _data_of(other)
        if mine != theirs:
            raise ValueError(
                f"{first.name} was trained on {mine[0]} {mine[1]}, {other.name} on {theirs[0]} "
                f"{theirs[1]}; wanted runs of one data set, or one for all by --data."
            )


def open_data(candidate: Candidate, split: str, *, held_out: int = 1) -> Pack:
    """Open a split as its settings say.

    Where they say how many images there are, validation and test have at most ``held_out``. Warns
    if the images were resized in another way than the model's frames are.
    """
    chosen = dataclasses.replace(candidate.settings, eval_images=held_out, batch_size=1)
    pack = chosen.open_data(split)
    pack.check_preprocessing(candidate.loaded.preprocessing, candidate.name)
    return pack


def open_split(candidate: Candidate, split: str, num_images: int) -> Pack:
    """Open a split; of what is generated or converted on demand no more than a number of images."""
    options = json.loads(candidate.settings.data_options)
    if candidate.settings.data in DATASETS:
        options["num_images"] = num_images
    chosen = dataclasses.replace(candidate.settings, data_options=json.dumps(options))
    return open_data(candidate._replace(settings=chosen), split, held_out=num_images)


def training_facts(candidate: Candidate, which: str) -> dict[str, Any] | None:
    """What is known of the training, as JSON data; None for a model saved alone."""
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
