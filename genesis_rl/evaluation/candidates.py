"""Models to evaluate, with the data to evaluate them on."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from genesis_rl.checkpoints.loading import CONFIG, Pretrained, load_pretrained
from genesis_rl.data import DATASETS, Pack
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import has_setting, settings
from genesis_rl.training.run import Run


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
