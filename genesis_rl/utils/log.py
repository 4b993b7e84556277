"""Logs of metrics (JSON lines, TensorBoard, Weights & Biases) and progress on a terminal."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from genesis_rl.utils import process
from genesis_rl.utils.extras import require
from genesis_rl.utils.files import json_text, naming_full_disk, new_file

FILE = "metrics.jsonl"
_LINE_FORMAT = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} elapsed, {left} left{postfix}"
_BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):  # type: ignore[misc]  # tqdm has no annotations
    """A bar on a terminal; elsewhere, such as in a log file, a line every 25 seconds.

    The lines are written by a thread, so that they also appear during a long step. Programs of less
    than 25 seconds write none.
    """

    def __init__(
        self, *args: Any, disable: bool = False, seconds: float | None = None, **options: Any
    ) -> None:
        """Start the bar.

        Args:
            *args: as of `tqdm.tqdm`.
            disable: display nothing.
            seconds: time limit, for the time left; None: unlimited.
            **options: as of `tqdm.tqdm`.
        """
        self._closed, self._seconds = threading.Event(), seconds
        options = {"bar_format": _BAR_FORMAT} | options
        self._lines = not disable and not sys.stderr.isatty()
        if self._lines:
            # Only the thread writes lines; updates never do.
            options |= {"mininterval": math.inf, "delay": math.inf, "bar_format": _LINE_FORMAT}
        super().__init__(*args, disable=disable, **options)
        if self._lines:
            threading.Thread(target=self._write_lines, daemon=True).start()

    @property
    def format_dict(self) -> dict[str, Any]:
        """Values of the formats, with the time left by steps and by the time limit."""
        values: dict[str, Any] = super().format_dict
        elapsed, made = values["elapsed"], values["n"] - values["initial"]
        left = [] if self._seconds is None else [self._seconds - elapsed]
        if made > 0 and values["total"]:
            left.append((values["total"] - values["n"]) * elapsed / made)
        text = self.format_interval(max(min(left), 0)) if left else "?"
        return values | {"left": text}

    def _write_lines(self) -> None:
        while not self._closed.wait(process.LINE_SECONDS):
            process.write_progress(str(self))

    def __iter__(self) -> Iterator[Any]:
        """Iterate; tqdm's own iterator counts only when it displays."""
        with self:
            for item in self.iterable:
                yield item
                self.update()

    def display(self, *args: Any, **options: Any) -> None:
        """Display the bar on a terminal."""
        if not self._lines:
            super().display(*args, **options)

    def clear(self, *args: Any, **options: Any) -> None:
        """Clear the bar on a terminal."""
        if not self._lines:
            super().clear(*args, **options)

    def close(self) -> None:
        """End the bar or its lines."""
        self._closed.set()
        super().close()


class RunLog:
    """Logger of a run's scalars and images to its run directory.

    ``metrics.jsonl`` contains one object per line: ``step``, ``time`` (seconds since 1970) and the
    scalars. Non-finite numbers are written as null, which `read` returns as NaN. Lines are flushed
    one by one: a killed run loses at most an unfinished line, which is dropped when the log is
    opened again.

    Args:
        folder: the run directory, created if missing.
        tensorboard: also write TensorBoard events to ``folder/tensorboard``.
        wandb: also log to Weights & Biases, which must be installed.
        config: plain data that describes the run, for Weights & Biases.
        resume_step: drop rows after this step, which a resumed run writes again; None: keep all.
        enabled: if False, nothing is written; as in all processes but the first.

    Raises:
        ValueError: if wandb is enabled but not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tensorboard: bool = True,
        wandb: bool = False,
        config: Mapping[str, Any] | None = None,
        resume_step: int | None = None,
        enabled: bool = True,
    ) -> None:
        self._lines: Any = None
        self._tensorboard: Any = None
        self._wandb: Any = None
        if not enabled:
            return
        folder = self._folder = Path(folder)
        wandb_module = require("wandb") if wandb else None
        folder.mkdir(parents=True, exist_ok=True)
        _truncate(folder / FILE, resume_step)
        self._lines = (folder / FILE).open("a", encoding="utf-8", buffering=1)
        if tensorboard:
            require("tensorboard")
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._tensorboard = SummaryWriter(
                str(folder / "tensorboard"),
                purge_step=None if resume_step is None else resume_step + 1,
            )
        if wandb_module is not None:
            self._wandb = wandb_module.init(
                project="genesis_rl",
                name=folder.resolve().name,
                dir=str(folder),
                config=dict(config or {}),
                id=_wandb_id(folder, wandb_module),
                resume="allow",
            )
            self._wandb_image = wandb_module.Image

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars of a step.

        Args:
            step: training step, update or environment step.
            values: numbers by name; a ``/`` in a name groups it in TensorBoard.

        Raises:
            ValueError: if a name is "step" or "time", which are reserved.
        """
        if self._lines is None:
            return
        if reserved := {"step", "time"} & values.keys():
            raise ValueError(f"values must not be named {sorted(reserved)}, which are reserved.")
        numbers = {name: _number(value) for name, value in values.items()}
        row = {"step": step, "time": round(time.time(), 3)} | numbers
        with naming_full_disk(self._folder / FILE):
            self._lines.write(json_text(row) + "\n")
            if self._tensorboard is not None:
                for name, value in numbers.items():
                    self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def images(self, step: int, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Log images (H, W, 3) uint8 of a step to TensorBoard and Weights & Biases."""
        if self._tensorboard is not None:
            for name, picture in pictures.items():
                self._tensorboard.add_image(name, picture, step, dataformats="HWC")
        if self._wandb is not None:
            shown = {name: self._wandb_image(picture) for name, picture in pictures.items()}
            self._wandb.log(shown, step=step)

    def close(self) -> None:
        """Flush and close all outputs; further calls have no effect."""
        with ExitStack() as stack:
            if self._lines is not None:
                stack.enter_context(naming_full_disk(self._folder / FILE))
                stack.callback(self._lines.close)
            if self._tensorboard is not None:
                stack.callback(self._tensorboard.close)
        if self._wandb is not None:
            self._wandb.finish()
        self._lines = self._tensorboard = self._wandb = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read the rows of a run's ``metrics.jsonl``, oldest first.

    An unfinished last line is dropped. Non-finite numbers are NaN; logs of older versions, which
    store them as strings, keep their values.

    Raises:
        ValueError: if the folder contains no such file.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"folder must be a run directory with {FILE}, got {str(folder)!r}.")
    return [{name: _parse(value) for name, value in row.items()} for row in _rows(path)]


def _number(value: float) -> float:
    """Convert NumPy and PyTorch scalars to Python numbers, keeping integers exact."""
    return value if isinstance(value, int) else float(value)


def _parse(value: Any) -> float:
    """Return a number of the log; null and strings represent non-finite numbers."""
    if value is None:
        return math.nan
    return float(value) if isinstance(value, str) else value


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # only the last line can be unfinished
        except RecursionError as error:
            raise ValueError(f"{path} cannot be read as JSON: it is nested too deeply") from error
    return rows


def _truncate(path: Path, last_step: int | None) -> None:
    """Drop the rows after last_step and an unfinished line."""
    if not path.exists():
        return
    rows = [row for row in _rows(path) if last_step is None or row["step"] <= last_step]
    with new_file(path) as temporary:
        temporary.write_text("".join(json_text(row) + "\n" for row in rows), encoding="utf-8")


def _wandb_id(folder: Path, wandb: Any) -> str:
    """Return the run's Weights & Biases id, created once so that resuming continues the run."""
    path = folder / "wandb_id"
    if not path.exists():
        path.write_text(wandb.util.generate_id(), encoding="utf-8")
    return path.read_text(encoding="utf-8")
