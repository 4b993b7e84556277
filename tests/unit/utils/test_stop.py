"""Stopping a program by SIGINT and SIGTERM: the flag, the second Ctrl-C, message and status."""

import os
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.utils import process
from genesis_rl.utils.process import StoppedError, StopSignal, report_stop

ROOT = Path(__file__).parents[3]
PROGRAMS = sorted(
    path.relative_to(ROOT)
    for folder in ("agents", "envs", "pretrain", "tools")
    for path in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_sets_the_flag_and_the_status(signum: int, status: int) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with StopSignal() as stop:
        states = [stop.received]
        os.kill(os.getpid(), signum)
        states.append(stop.received)
    assert states == [False, True] and stop.status == status
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # the same one, to the process and to its group
        monkeypatch.setattr(process, "_REPEAT_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.status == 130


def test_repeated_sigterm_does_not_end_the_saving() -> None:
    with StopSignal() as stop:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        assert stop.status == 143


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (StoppedError("stopped at step 3", 130), 130, "p.py: stopped at step 3\n"),
        (StoppedError("stopped"), 143, "p.py: stopped\n"),
        (KeyboardInterrupt(), 130, "p.py: interrupted; try again\n"),
    ],
    ids=str,
)
def test_a_stop_is_one_line(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @report_stop("p.py", "try again")
    def main() -> int:
        raise error

    assert main() == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_every_program_reports_ctrl_c(
    program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    main = runpy.run_path(str(ROOT / program))["main"]
    monkeypatch.setattr("tyro.cli", interrupt)
    assert main([]) == 130
    assert capsys.readouterr().err.startswith(f"{program.name}: interrupted")
