"""Run directories: settings, checkpoints and reports of trainings, and reading of runs."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from genesis_rl.checkpoints.loading import (
    CONFIG,
    Pretrained,
    as_tuple,
    load_pretrained,
    load_weights,
)
from genesis_rl.checkpoints.weights import rename_old_keys
from genesis_rl.data import DATASETS
from genesis_rl.models import MODELS
from genesis_rl.models.geco import GecoConfig
from genesis_rl.perception.preprocessing import Preprocessing, as_preprocessing
from genesis_rl.training.config import PretrainConfig, RunConfig
from genesis_rl.utils import log
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
# Settings of a pretraining that must not change on resumption.
_IDENTITY = ("model_name", "model", "data", "data_options", "seed", "batch_size", "objective")
_CHECKPOINTS: tuple[Literal["best", "last"], ...] = ("best", "last")


def has_setting(folder: Path, name: str) -> bool:
    """Return whether a run directory's settings have an entry ``name``."""
    path = folder / SETTINGS
    return path.is_file() and name in read_json(path)


def write_report(
    config: RunConfig,
    figures: Mapping[str, Any],
    tables: Callable[[dict[str, Any]], list[dict[str, Any]]],
    device: torch.device,
) -> dict[str, Any]:
    """Write the report of a finished training.

    Args:
        config: the settings.
        figures: results of the training, as JSON data.
        tables: function of the report that returns tables for the results page.
        device: device of the training.

    Returns:
        The report: the figures, ``settings``, ``hardware``, ``versions`` and ``tables``.
    """
    report: dict[str, Any] = {
        **figures,
        "settings": config.to_json(),
        "hardware": hardware(device),
        "versions": versions(),
    }
    report["tables"] = tables(report)
    write_json(config.out / REPORT, report)
    return report


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


def settings(config: PretrainConfig) -> dict[str, Any]:
    """Return a config as JSON data, with its model's name in ``MODELS`` as ``model_name``."""
    names = [name for name, (cls, _) in MODELS.items() if type(config.model) is cls]
    return {"model_name": names[0], **config.to_json()}


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

    def __init__(
        self,
        config: RunConfig,
        settings: dict[str, Any],
        identity: tuple[str, ...],
        *,
        older: Mapping[str, Any] | None = None,
        main: bool = True,
    ) -> None:
        """Check that the directory can be written or resumed.

        Args:
            config: the training's config, with the run directory.
            settings: the contents of train.json.
            identity: names of settings that must not change on resumption.
            older: values of settings that train.json of older versions lacks.
            main: whether this process writes files, in distributed training.

        Raises:
            ValueError: if it contains a run and ``resume`` is off, it contains a run of other
                settings, or another process writes to it.
        """
        out = config.out
        self.out, self.settings = out, settings
        self.last, self.best = out / "last", out / "best"
        self._resume, self._identity, self._older = config.resume, identity, older or {}
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
        for name in self._identity:
            value, stored_value = settings[name], stored.get(name)
            if value != stored_value:
                raise ValueError(
                    f"{name} must be {stored_value} to resume the run in {out}, got {value}. Use "
                    "the same value, or choose another out."
                )

    def _stored(self) -> dict[str, Any]:
        """Read the settings of the run in the directory."""
        return {**self._older, **rename_old_keys(read_json(self.out / SETTINGS))}

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

    def __init__(self, config: PretrainConfig, *, main: bool = True) -> None:
        """Check the directory as `TrainingFolder` does, and that it contains any run to resume."""
        super().__init__(config, settings(config), _IDENTITY, main=main)
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


@dataclass(frozen=True, eq=False)
class Run:
    """A run of pretrain/train.py, finished or not: settings, log and models.

    Attributes:
        folder: the run directory (``config.out`` is where it was created).
        config: its settings.
        rows: rows of metrics.jsonl, oldest first; names of update rows start with ``train/``, those
            of validation rows with ``validation/``.
    """

    folder: Path
    config: PretrainConfig
    rows: list[dict[str, float]]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a run's settings and log.

        A relative path of the data is resolved against the working directory of the training, if
        the run directory's path reveals it, or else against the current one.

        Raises:
            ValueError: if the folder contains no run, or a file is damaged.
        """
        path = Path(folder).expanduser()
        for name in (SETTINGS, log.FILE):
            if not (path / name).is_file():
                raise ValueError(f"{path} must be a run of pretrain/train.py, got no {name} in it.")
        plain = _read(path / SETTINGS)
        try:
            config = parse_settings(plain, _model_of_checkpoint(path))
        except ValueError as error:
            raise ValueError(f"{path / SETTINGS}: {error}") from error
        config = dataclasses.replace(config, data=_data_of(path, config))
        return cls(path, config, log.read(path))

    @property
    def step(self) -> int:
        """Number of updates at the last row; 0 without rows."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def images_seen(self) -> int:
        """Number of training images processed, repetitions included."""
        return self.step * self.config.batch_size

    @property
    def minutes(self) -> float:
        """Training time at the last update row, over all resumptions."""
        return self._last("train/seconds") / 60

    @property
    def img_per_s(self) -> float:
        """Training images per second, time of validations included; 0 without update rows."""
        return self._last("train/images_per_second")

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the last validation, by name without ``validation/``; empty without one."""
        rows = self.validations
        return {k: v for k, v in rows[-1].items() if k not in ("step", "time")} if rows else {}

    @property
    def updates(self) -> list[dict[str, float]]:
        """Update rows: ``step``, ``time`` and names without ``train/``."""
        return self._rows_of("train/")

    @property
    def validations(self) -> list[dict[str, float]]:
        """Validation rows: ``step``, ``time`` and names without ``validation/``."""
        return self._rows_of("validation/")

    @property
    def checkpoints(self) -> list[Literal["best", "last"]]:
        """Existing checkpoints: "best", the model of the best validation, and "last"."""
        return [w for w in _CHECKPOINTS if (current_folder(self.folder / w) / CONFIG).is_file()]

    def load(
        self,
        which: Literal["best", "last"] = "best",
        *,
        device: str | torch.device = "auto",
    ) -> Pretrained:
        """Load the model of the best validation or of the last checkpoint, in eval mode.

        Raises:
            ValueError: if it does not exist yet, or is damaged.
        """
        if which not in _CHECKPOINTS:
            raise ValueError(f"which must be 'best' or 'last', got {which!r}.")
        if which not in self.checkpoints:
            raise ValueError(
                f"which must be one of the checkpoints {self.checkpoints} in {self.folder}, got "
                f"{which!r}."
            )
        return load_pretrained(self.folder / which, device=device)

    def _rows_of(self, prefix: str) -> list[dict[str, float]]:
        return [
            {name.removeprefix(prefix): value for name, value in row.items()}
            for row in self.rows
            if any(name.startswith(prefix) for name in row)
        ]

    def _last(self, name: str) -> float:
        return next((float(row[name]) for row in reversed(self.rows) if name in row), 0.0)


def _data_of(folder: Path, config: PretrainConfig) -> str:
    """Return the name of a run's data, or their path resolved by `Run.open`'s rule."""
    data, out, run_folder = Path(config.data), config.out, folder.resolve()
    if config.data in DATASETS or data.expanduser().is_absolute() or out.is_absolute():
        return config.data
    # The working directory of the training: the run directory without the relative path ``out``.
    base = next(
        (parent for parent in (run_folder, *run_folder.parents) if parent / out == run_folder), None
    )
    if base is None or base == Path.cwd() or not (base / data).is_dir():
        return config.data
    return str(base / data)


def _model_of_checkpoint(folder: Path) -> str | None:
    """Return the model's name from a checkpoint, for settings of older runs, which lack it."""
    for name in _CHECKPOINTS:
        path = current_folder(folder / name) / CONFIG
        if path.is_file():
            recorded: str | None = _read(path).get("model")
            return recorded
    return None


def _read(path: Path) -> dict[str, Any]:
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise ValueError(f"{path} must contain a JSON object, got {type(plain).__name__}.")
    return plain
