"""A pretraining run as it lies on disk, for everything that looks at one afterwards."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from genesis_rl import log
from genesis_rl.checkpoint import CONFIG, Pretrained, load_pretrained
from genesis_rl.data import DATASETS
from genesis_rl.files import current_folder, read_json
from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import SETTINGS, parse_settings

_CHECKPOINTS: tuple[Literal["best", "last"], ...] = ("best", "last")


@dataclass(frozen=True, eq=False)
class Run:
    """A run of pretrain/train.py, finished or not: its settings, its log and its models.

    Attributes:
        folder: where it lies now (``config.out`` says where it was made).
        config: its settings.
        rows: the rows of metrics.jsonl, oldest first; those of updates have ``train/...``, those
            of validations ``validation/...``.
    """

    folder: Path
    config: PretrainConfig
    rows: list[dict[str, float]]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a run's settings and log.

        A relative path of the data is taken from the folder in which the run was made, as far as
        the run's own folder tells that, and else from the current one.

        Raises:
            ValueError: if the folder holds no run, or what it holds is damaged.
        """
        path = Path(folder).expanduser()
        for name in (SETTINGS, log.FILE):
            if not (path / name).is_file():
                raise ValueError(f"{path} holds no run of pretrain/train.py: it has no {name}.")
        plain = _read(path / SETTINGS)
        try:
            config = parse_settings(plain, _model_of_checkpoint(path))
        except ValueError as error:
            raise ValueError(f"{path / SETTINGS}: {error}") from error
        config = dataclasses.replace(config, data=_data_of(path, config))
        return cls(path, config, log.read(path))

    @property
    def step(self) -> int:
        """Updates made, as of the last row; 0 without any."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def images_seen(self) -> int:
        """Images trained on, counting each as often as it was seen."""
        return self.step * self.config.batch_size

    @property
    def minutes(self) -> float:
        """Time of the training, over all its resumptions, as of the last row of an update."""
        return self._last("train/seconds") / 60

    @property
    def img_per_s(self) -> float:
        """Images trained on per second, validations included; 0 without any row."""
        return self._last("train/images_per_second")

    @property
    def scores(self) -> dict[str, float]:
        """The last validation's scores, by their names without ``validation/``; empty if none."""
        rows = self.validations
        return {k: v for k, v in rows[-1].items() if k not in ("step", "time")} if rows else {}

    @property
    def updates(self) -> list[dict[str, float]]:
        """The rows of updates: ``step``, ``time`` and names without ``train/``."""
        return self._rows_of("train/")

    @property
    def validations(self) -> list[dict[str, float]]:
        """The rows of validations: ``step``, ``time`` and names without ``validation/``."""
        return self._rows_of("validation/")

    @property
    def checkpoints(self) -> list[Literal["best", "last"]]:
        """Those that there are: the best validation's model first, then the last one."""
        return [w for w in _CHECKPOINTS if (current_folder(self.folder / w) / CONFIG).is_file()]

    def load(
        self,
        which: Literal["best", "last"] = "best",
        *,
        device: str | torch.device = "auto",
    ) -> Pretrained:
        """Load the model of the best validation or of the last checkpoint, in eval mode.

        Raises:
            ValueError: if there is none yet, or it is damaged.
        """
        if which not in _CHECKPOINTS:
            raise ValueError(f"which is {which!r}; wanted 'best' or 'last'.")
        if which not in self.checkpoints:
            raise ValueError(f"{self.folder} has no checkpoint {which}/ (yet).")
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
    """The name or the path of a run's data, from wherever the run is looked at."""
    data, out, here = Path(config.data), config.out, folder.resolve()
    if config.data in DATASETS or data.expanduser().is_absolute() or out.is_absolute():
        return config.data
    # Both were given in one folder: the run's, without the part of it that was given.
    base = next((place for place in (here, *here.parents) if place / out == here), None)
    if base is None or base == Path.cwd() or not (base / data).is_dir():
        return config.data
    return str(base / data)


def _model_of_checkpoint(folder: Path) -> str | None:
    """The model's name from a checkpoint: the settings of older runs lack it."""
    for name in _CHECKPOINTS:
        path = current_folder(folder / name) / CONFIG
        if path.is_file():
            recorded: str | None = _read(path).get("model")
            return recorded
    return None


def _read(path: Path) -> dict[str, Any]:
    plain = read_json(path)
    if not isinstance(plain, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return plain
