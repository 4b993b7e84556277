"""The run log: valid JSON whatever comes, exact resumption, TensorBoard and W&B."""

import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genesis_rl.utils import log
from genesis_rl.utils.extras import MissingExtraError
from genesis_rl.utils.log import ProgressBar
from genesis_rl.utils.process import report_stop


def lines(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_one_object_a_line(tmp_path: Path) -> None:
    before = time.time() - 0.001
    with log.RunLog(tmp_path / "new" / "run", tensorboard=False) as run:
        run.scalars(10, {"nll": 1.5, "images": 2**60 + 1})
        assert len(lines(tmp_path / "new" / "run")) == 1  # already on disk
        run.scalars(20, {"nll": torch.tensor(0.25), "kl": np.float32(2)})  # type: ignore[dict-item]
    first, second = lines(tmp_path / "new" / "run")
    assert before <= first.pop("time") <= second.pop("time") <= time.time() + 0.001
    assert first == {"step": 10, "nll": 1.5, "images": 2**60 + 1}
    assert second == {"step": 20, "nll": 0.25, "kl": 2.0}
    assert not (tmp_path / "new" / "run" / "tensorboard").exists()


def test_non_finite_numbers_are_null(tmp_path: Path) -> None:
    with log.RunLog(tmp_path, tensorboard=False) as run:
        run.scalars(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    row = lines(tmp_path)[0]
    assert (row["a"], row["b"], row["c"], row["d"]) == (None, None, None, 1.0)
    row = log.read(tmp_path)[0]
    assert all(math.isnan(row[name]) for name in "abc")
    assert (row["d"], row["step"]) == (1.0, 1)


def test_logs_of_older_versions_have_strings(tmp_path: Path) -> None:
    text = '{"step": 1, "a": "nan", "b": "inf", "c": "-inf", "d": 1.0}\n'
    (tmp_path / log.FILE).write_text(text)
    row = log.read(tmp_path)[0]
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"], row["step"]) == (math.inf, -math.inf, 1.0, 1)


@pytest.mark.parametrize(
    ("resume_step", "kept"), [(None, [1, 2, 3]), (2, [1, 2]), (0, []), (9, [1, 2, 3])]
)
def test_resuming_drops_what_comes_again(
    tmp_path: Path, resume_step: int | None, kept: list[int]
) -> None:
    with log.RunLog(tmp_path, tensorboard=False) as run:
        for step in (1, 2, 3):
            run.scalars(step, {"nll": math.nan if step == 2 else step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "nl')  # killed while writing
    assert [row["step"] for row in log.read(tmp_path)] == [1, 2, 3]
    with log.RunLog(tmp_path, tensorboard=False, resume_step=resume_step) as run:
        run.scalars(5, {"nll": 5.0})
    assert [row["step"] for row in lines(tmp_path)] == [*kept, 5]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


@pytest.mark.smoke
def test_tensorboard_by_default(tmp_path: Path) -> None:
    with log.RunLog(tmp_path) as run:
        run.scalars(1, {"train/nll": 1.5})
        run.scalars(2, {"train/nll": 9.0})
        run.images(2, {"slots": np.zeros((4, 6, 3), np.uint8)})
    with log.RunLog(tmp_path, resume_step=1) as run:
        run.scalars(2, {"train/nll": 0.5})
    written = events(tmp_path)
    assert [(event.step, event.value) for event in written.Scalars("train/nll")] == [
        (1, 1.5),
        (2, 0.5),
    ]


def test_tensorboard_pictures(tmp_path: Path) -> None:
    with log.RunLog(tmp_path) as run:
        run.images(3, {"slots": np.zeros((4, 6, 3), np.uint8)})
    (image,) = events(tmp_path).Images("slots")
    assert (image.step, image.height, image.width) == (3, 4, 6)


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    with log.RunLog(tmp_path / "run", wandb=True, enabled=False) as run:
        run.scalars(1, {"nll": 1.0})
        run.images(1, {"slots": np.zeros((4, 6, 3), np.uint8)})
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_and_bad_input(tmp_path: Path) -> None:
    run = log.RunLog(tmp_path, tensorboard=False)
    with pytest.raises(ValueError, match=r"^values "):
        run.scalars(1, {"time": 3.0})
    run.close()
    run.close()
    assert lines(tmp_path) == []
    with pytest.raises(ValueError, match=r"^folder "):
        log.read(tmp_path / "nowhere")


def test_missing_wandb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"wandb, .*'genesis_rl\[wandb\]'"):
        log.RunLog(tmp_path / "run", wandb=True)
    assert list(tmp_path.iterdir()) == []


def test_wandb_by_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class FakeWandb(ModuleType):
        util = SimpleNamespace(generate_id=lambda: f"id{len(calls)}")
        Image = staticmethod(lambda picture: ("image", picture.shape))

        @staticmethod
        def init(**options: Any) -> SimpleNamespace:
            calls.append(("init", options))
            return SimpleNamespace(
                log=lambda values, step: calls.append(("log", (step, values))),
                finish=lambda: calls.append(("finish", None)),
            )

    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("wandb"))
    for _ in range(2):
        with log.RunLog(tmp_path, tensorboard=False, wandb=True, config={"K": 5}) as run:
            run.scalars(1, {"nll": math.nan})
            run.images(2, {"slots": np.zeros((4, 6, 3), np.uint8)})
    assert [name for name, _ in calls] == ["init", "log", "log", "finish"] * 2
    options = calls[0][1]
    assert (options["name"], options["config"], options["id"]) == (tmp_path.name, {"K": 5}, "id0")
    assert options == calls[4][1]  # the second opening continues the first's run
    assert math.isnan(calls[1][1][1]["nll"])
    assert calls[2][1] == (2, {"slots": ("image", (4, 6, 3))})


def test_progress_without_a_terminal_is_written_as_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genesis_rl.utils.process.LINE_SECONDS", 0.05)
    for number in ProgressBar(range(3), desc="frames", unit="img"):
        if number == 2:
            time.sleep(0.2)  # one long step
    with ProgressBar(total=10, desc="training", unit="step") as bar:
        bar.update(5)
        bar.set_postfix_str("nll 3")
        ProgressBar.write("a message", file=sys.stderr)
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("frames: 2/3 img, ") for line in lines)
    assert any(line.startswith("training: 5/10 step, ") and "nll 3" in line for line in lines)
    assert "a message" in lines
    assert not any("\r" in line for line in lines) and all(lines)


@pytest.mark.parametrize(
    ("limit", "made", "left"),
    [
        (None, 0, "?"),
        (None, 25, "03:00"),  # a quarter in a minute
        (100.0, 25, "00:40"),  # by the limit
        (1000.0, 25, "03:00"),
        (50.0, 25, "00:00"),  # past it
        (100.0, 0, "00:40"),
    ],
)
def test_the_time_left_is_that_of_steps_or_of_the_limit(
    limit: float | None, made: int, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genesis_rl.utils.process.LINE_SECONDS", 1000)
    with ProgressBar(total=110, initial=10, desc="training", seconds=limit) as bar:
        bar.update(made)
        monkeypatch.setattr(bar, "_time", lambda: bar.start_t + 60)
        assert bar.format_dict["left"] == left
        assert str(bar).endswith(f"{left} left")


def test_short_or_disabled_progress_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(ProgressBar(range(3), desc="short")) == [0, 1, 2]
    monkeypatch.setattr("genesis_rl.utils.process.LINE_SECONDS", 0.02)
    with ProgressBar(total=3, desc="hidden", disable=True) as bar:
        time.sleep(0.1)
        bar.update()
    assert capsys.readouterr().err == ""


def test_programs_write_the_elapsed_time_only_without_other_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genesis_rl.utils.process.LINE_SECONDS", 0.1)

    @report_stop("measure.py")
    def main(bar: bool) -> int:
        with ProgressBar(total=3, desc="frames", disable=not bar):
            time.sleep(0.5)
        return 0

    assert main(False) == 0
    assert capsys.readouterr().err.splitlines()[0] == "measure.py: 00:00 elapsed"
    assert main(True) == 0
    lines = capsys.readouterr().err.splitlines()
    bars = [line for line in lines if line.startswith("frames: 0/3")]
    assert len(bars) >= 2 and len(lines) - len(bars) <= 1
