"""Run directories: settings, checkpoints and reports of trainings."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from genesis_rl.checkpoints.loading import CONFIG, as_tuple, load_weights
from genesis_rl.checkpoints.weights import rename_old_keys
from genesis_rl.models import MODELS
from genesis_rl.models.geco import GecoConfig
from genesis_rl.perception.preprocessing import Preprocessing, as_preprocessing
from genesis_rl.training.config import PretrainConfig
from genesis_rl.utils.files import (
    PRIVATE,
    FolderLock,
    current_folder,
    new_folder,
    read_folder,
    read_json,
    write_json,
)
from genesis_rl.utils.process import hardware, versions

SETTINGS, STATE = "train.json", "training.pt"
#: Report that some trainings write when they finish.
REPORT = "report.json"


def has_setting(folder: Path, name: str) -> bool:
    """Return whether a run directory's settings have an entry ``name``."""
    path = folder / SETTINGS
    return path.is_file() and name in read_json(path)


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of a finished training.

    Raises:
        ValueError: if the training has not finished, or the file is damaged.
    """
    path = folder / REPORT
    if not path.is_file():
        raise ValueError(f"{folder} must be a finished run, got none: it has no {REPORT}.")
    report: dict[str, Any] = read_json(path)
    return report


def read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint's training state with ``weights_only``.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{path} is damaged: {error}") from error
    return state


def portable_settings(plain: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return settings without folders of this machine: ``paths`` are reduced to their names."""
    portable = {name: value for name, value in plain.items() if name not in ("out", "cache")}
    return portable | {name: portable[name] and Path(portable[name]).name for name in paths}


def settings(config: PretrainConfig) -> dict[str, Any]:
    """Return a config as JSON data, with its model's name in ``MODELS`` as ``model_name``."""
    names = [name for name, (cls, _) in MODELS.items() if type(config.model) is cls]
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return {"model_name": names[0], **plain}


def parse_settings(plain: Mapping[str, Any], model_name: str | None = None) -> PretrainConfig:
    """Build a config from the JSON data of `settings`.

    Args:
        plain: the data.
        model_name: the model's name in ``MODELS`` for data without one.

    Raises:
        ValueError: if the data are not those of a config, or the model is unknown.
    """
    values = rename_old_keys(plain)
    name = values.pop("model_name", model_name)
    if name not in list(MODELS):  # a list, since it may not be hashable
        raise ValueError(f"model_name must be one of {', '.join(MODELS)}, got {name!r}.")
    try:
        model_values = rename_old_keys(values.pop("model"))
        model = MODELS[name][0](**{k: as_tuple(v) for k, v in model_values.items()})
        geco = GecoConfig(**values.pop("geco"))
        values |= {"model": model, "geco": geco, "out": Path(values["out"])}
        return PretrainConfig(**{k: as_tuple(v) for k, v in values.items()})
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"the settings do not fit this version: {error}") from error


class TrainingFolder:
    """``train.json`` (the settings), ``last/`` (model and training state) and ``best/`` (model).

    Attributes:
        out: the run directory.
        settings: the contents of train.json.
        last: folder of the last checkpoint.
        best: folder of the best model.
        started: whether there is a checkpoint to resume from.
    """

    #: Settings that must not change on resumption.
    identity: ClassVar[tuple[str, ...]]

    def __init__(
        self, out: Path, settings: dict[str, Any], *, resume: bool, main: bool = True
    ) -> None:
        """Check that the directory can be written or resumed.

        Args:
            out: the run directory.
            settings: the contents of train.json.
            resume: whether to resume the run in it.
            main: whether this process writes files, in distributed training.

        Raises:
            ValueError: if it contains a run and ``resume`` is off, it contains a run of other
                settings, or another process writes to it.
        """
        self.out, self.settings = out, settings
        self.last, self.best = out / "last", out / "best"
        self._resume = resume
        self._lock = FolderLock(out)
        if main and (out / PRIVATE).exists():  # fail before the data are loaded
            with self._lock:
                pass
        self.check()

    def check(self) -> None:
        """Check the run in the directory against the settings.

        Raises:
            ValueError: if it must not be overwritten or resumed with these settings.
        """
        out, settings = self.out, self.settings
        last = current_folder(self.last)
        self.started = (last / STATE).is_file()
        if last.exists() and not self._resume:
            raise ValueError(
                f"out must be a folder without a run, got {out}. Resume with --resume, or choose "
                "another folder."
            )
        stored = self._stored() if self.started else settings
        for name in self.identity:
            value, stored_value = settings[name], stored.get(name)
            if value != stored_value:
                raise ValueError(
                    f"{name} must be {stored_value} to resume the run in {out}, got {value}. Use "
                    "the same value, or choose another out."
                )

    def _stored(self) -> dict[str, Any]:
        """Read the settings of the run in the directory."""
        return rename_old_keys(read_json(self.out / SETTINGS))

    def lock(self) -> None:
        """Lock the directory against writes of other processes until `unlock`.

        Raises:
            ValueError: if another process has locked it.
            OSError: if it cannot be written.
        """
        self._lock.acquire()

    def unlock(self) -> None:
        """Release the lock."""
        self._lock.release()

    def write_settings(self) -> None:
        """Write train.json."""
        write_json(self.out / SETTINGS, self.settings)

    def save_last(self, model: Any, card: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write the last checkpoint: model and training state."""
        with new_folder(self.last) as folder:
            model.save_pretrained(folder, extra=self._metadata(model, card))
            torch.save(dict(state), folder / STATE)

    def save_best(self, model: Any, card: Mapping[str, Any]) -> None:
        """Write the best model."""
        with new_folder(self.best) as folder:
            model.save_pretrained(folder, extra=self._metadata(model, card))

    def _metadata(self, model: Any, card: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata of a model: progress, settings, hardware and versions."""
        device = next(model.parameters()).device
        return {
            **card,
            "training": self.settings,
            "hardware": hardware(device),
            "versions": versions(),
        }

    def load_last(self, model: Any, device: torch.device) -> dict[str, Any]:
        """Load the last checkpoint's weights into a model and return the training state.

        Raises:
            ValueError: if a file is damaged.
        """

        def read(last: Path) -> dict[str, Any]:
            load_weights(model, last)
            return read_state(last / STATE, device)

        return read_folder(self.last, read)


class RunFolder(TrainingFolder):
    """Run directory of a pretraining."""

    identity = ("model_name", "model", "data", "data_options", "seed", "batch_size", "objective")

    def __init__(self, config: PretrainConfig, *, main: bool = True) -> None:
        """Check the directory as `TrainingFolder` does, and that it contains any run to resume."""
        super().__init__(config.out, settings(config), resume=config.resume, main=main)
        if config.resume and not self.started:
            raise ValueError(
                f"out must contain a checkpoint to resume, got {config.out} without last/{STATE}."
            )

    def _stored(self) -> dict[str, Any]:
        path = self.out / SETTINGS
        try:  # settings of older runs lack the model's name and later fields
            return settings(parse_settings(read_json(path), self.settings["model_name"]))
        except ValueError as error:
            message = f"out must contain a run of this version, got {path}: {error}"
            raise ValueError(message) from error

    def last_preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the last checkpoint's model.

        Raises:
            ValueError: if its config.json is damaged.
        """
        return as_preprocessing(read_json(self.last / CONFIG).get("preprocessing", "stretch"))
