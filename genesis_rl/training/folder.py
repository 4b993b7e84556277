"""A training's folder: whose it is, its checkpoints."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from genesis_rl.checkpoint import CONFIG, as_tuple, load_weights
from genesis_rl.files import (
    PRIVATE,
    FolderLock,
    current_folder,
    new_folder,
    read_folder,
    read_json,
    write_json,
)
from genesis_rl.frames import Preprocessing, as_preprocessing
from genesis_rl.geco import GecoConfig
from genesis_rl.models import MODELS
from genesis_rl.process import hardware, versions
from genesis_rl.training.config import PretrainConfig

SETTINGS, STATE = "train.json", "training.pt"
#: What some trainings leave at their end.
REPORT = "report.json"


def has_setting(folder: Path, name: str) -> bool:
    """Tell whether a folder is of a training whose settings have an entry."""
    path = folder / SETTINGS
    return path.is_file() and name in read_json(path)


def read_report(folder: Path) -> dict[str, Any]:
    """Read what a training found at its end.

    Raises:
        ValueError: if it has not come to its end, or the file is damaged.
    """
    path = folder / REPORT
    if not path.is_file():
        raise ValueError(f"{folder} has no {REPORT}: its training has not ended.")
    report: dict[str, Any] = read_json(path)
    return report


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint's training state; nothing in the file is unpickled but plain data.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{path} is damaged: {error}") from error
    return state


def without_machine(plain: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Settings as JSON data without what they say about the machine: ``paths`` keep their names."""
    kept = {name: value for name, value in plain.items() if name not in ("out", "cache")}
    return kept | {name: kept[name] and Path(kept[name]).name for name in paths}


def settings(config: PretrainConfig) -> dict[str, Any]:
    """A config as JSON data; ``model_name`` says which of ``MODELS`` its model is."""
    names = [name for name, (cls, _) in MODELS.items() if type(config.model) is cls]
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return {"model_name": names[0], **plain}


def parse_settings(plain: Mapping[str, Any], model_name: str | None = None) -> PretrainConfig:
    """Build the config that `settings` made JSON data of.

    Args:
        plain: the data.
        model_name: the model's name in ``MODELS`` where the data do not say it.

    Raises:
        ValueError: if the data are of another kind, or of a model that is not known.
    """
    values = dict(plain)
    name = values.pop("model_name", model_name)
    if name not in list(MODELS):  # it may be of a type that has no hash
        raise ValueError(f"model_name is {name!r}; wanted one of {', '.join(MODELS)}.")
    try:
        model = MODELS[name][0](**{k: as_tuple(v) for k, v in values.pop("model").items()})
        geco = GecoConfig(**values.pop("geco"))
        values |= {"model": model, "geco": geco, "out": Path(values["out"])}
        return PretrainConfig(**{k: as_tuple(v) for k, v in values.items()})
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"the settings do not fit this version: {error}") from error


class TrainingFolder:
    """``train.json`` (the settings), ``last/`` (model and training state) and ``best/`` (model).

    Attributes:
        out: the folder itself.
        settings: what train.json is to hold.
        last: where the last checkpoint lies.
        best: where the best model lies.
        started: whether there is a checkpoint to go on from.
    """

    #: The settings that make a run another one: neither a schedule nor a folder's name.
    identity: ClassVar[tuple[str, ...]]

    def __init__(
        self, out: Path, settings: dict[str, Any], *, resume: bool, main: bool = True
    ) -> None:
        """Look at the folder; neither overwrite a run nor resume one as another.

        Args:
            out: the folder.
            settings: what train.json is to hold.
            resume: whether a run there is to be resumed.
            main: whether this is the process, of several that train together, that writes files.

        Raises:
            ValueError: if it holds a run and ``resume`` is off, or another run and it is on, or if
                another process writes it.
        """
        self.out, self.settings = out, settings
        self.last, self.best = out / "last", out / "best"
        self._resume = resume
        self._lock = FolderLock(out)
        if main and (out / PRIVATE).exists():  # find out now, not after loading the data
            with self._lock:
                pass
        self.check()

    def check(self) -> None:
        """Compare the run in the folder with this one.

        Raises:
            ValueError: if this one must not be written there.
        """
        out, settings = self.out, self.settings
        last = current_folder(self.last)
        self.started = (last / STATE).is_file()
        if last.exists() and not self._resume:
            raise ValueError(
                f"out {out} already holds a run; add --resume to go on with it, or choose another."
            )
        stored = self._stored() if self.started else settings
        for name in self.identity:
            mine, theirs = settings[name], stored.get(name)
            if mine != theirs:
                raise ValueError(
                    f"{name} is {mine}, but the run in {out} has {theirs}; resume with the same, or"
                    " choose another out."
                )

    def _stored(self) -> dict[str, Any]:
        """The settings of the run that lies there."""
        stored: dict[str, Any] = read_json(self.out / SETTINGS)
        return stored

    def lock(self) -> None:
        """Keep other processes from writing the folder until `unlock`.

        Raises:
            ValueError: if another process writes it.
            OSError: if it cannot be written.
        """
        self._lock.acquire()

    def unlock(self) -> None:
        """Let other processes write the folder."""
        self._lock.release()

    def write_settings(self) -> None:
        """Write train.json."""
        write_json(self.out / SETTINGS, self.settings)

    def save_last(self, model: Any, card: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write the last checkpoint: the model and what going on from it takes."""
        with new_folder(self.last) as folder:
            model.save_pretrained(folder, extra=self._metadata(model, card))
            torch.save(dict(state), folder / STATE)

    def save_best(self, model: Any, card: Mapping[str, Any]) -> None:
        """Write the best model."""
        with new_folder(self.best) as folder:
            model.save_pretrained(folder, extra=self._metadata(model, card))

    def _metadata(self, model: Any, card: Mapping[str, Any]) -> dict[str, Any]:
        """What lies beside a model: where it stands, how it was trained, and on what."""
        device = next(model.parameters()).device
        return {
            **card,
            "training": self.settings,
            "hardware": hardware(device),
            "versions": versions(),
        }

    def load_last(self, model: Any, device: torch.device) -> dict[str, Any]:
        """Put the last checkpoint's weights into a model and return the training state.

        Raises:
            ValueError: if a file is damaged.
        """

        def read(last: Path) -> dict[str, Any]:
            load_weights(model, last)
            return read_state(last / STATE, device)

        return read_folder(self.last, read)


class RunFolder(TrainingFolder):
    """A pretraining run's folder."""

    identity = ("model_name", "model", "data", "data_options", "seed", "batch_size", "objective")

    def __init__(self, config: PretrainConfig, *, main: bool = True) -> None:
        """Look at the folder; unlike `TrainingFolder`, refuse to resume where there is no run."""
        super().__init__(config.out, settings(config), resume=config.resume, main=main)
        if config.resume and not self.started:
            raise ValueError(f"out {config.out} holds no checkpoint to resume (no last/{STATE}).")

    def _stored(self) -> dict[str, Any]:
        # Runs of before it was recorded say the model's name in their checkpoints only.
        return {"model_name": self.settings["model_name"]} | super()._stored()

    def last_preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the last checkpoint's model.

        Raises:
            ValueError: if its config.json is damaged.
        """
        return as_preprocessing(read_json(self.last / CONFIG).get("preprocessing", "stretch"))
