"""Reading of pretraining runs: settings, log and models."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from genesis_rl.checkpoints.loading import CONFIG, Pretrained, load_pretrained
from genesis_rl.data import DATASETS
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import SETTINGS, parse_settings
from genesis_rl.utils import log
from genesis_rl.utils.files import current_folder, read_json

_CHECKPOINTS: tuple[Literal["best", "last"], ...] = ("best", "last")


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
