"""Parallel calls of a function: processes of this program, or jobs of submitit such as SLURM's."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from genesis_rl.utils.checks import Checked, Count, Must, parse_object
from genesis_rl.utils.extras import require
from genesis_rl.utils.process import StoppedError, StopSignal

Function = Callable[..., str | None]
# Seconds between two checks for ended jobs.
_INTERVAL = 0.5


def _is_object(text: str) -> bool:
    try:
        parse_object("executor_options", text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class JobsConfig(Checked):
    """Settings of the parallel runs of a grid."""

    jobs: Count = 1
    """runs in parallel, one process or job per run"""
    executor: Literal["processes", "slurm", "local"] = "processes"
    """processes of this program, or jobs of submitit: on a SLURM cluster (slurm) or, to try the
    options, on this machine (local)"""
    executor_options: Annotated[str, Must("a JSON object", _is_object)] = "{}"
    """parameters of submitit.AutoExecutor as JSON, e.g. {"timeout_min": 600, "slurm_partition":
    "gpu"}; timeout_min is 1440 by default"""

    @property
    def in_process(self) -> bool:
        """Whether the runs are executed one after another in this process."""
        return self.executor == "processes" and self.jobs == 1


def run_jobs(
    function: Function,
    calls: Sequence[tuple[Any, ...]],
    config: JobsConfig,
    folder: Path,
    ended: Callable[[int, str | None], None],
) -> None:
    """Call a function with each tuple of arguments, at most ``config.jobs`` at a time.

    Args:
        function: importable by name; returns the reason of a failure, or None. SLURM calls it again
            after a preemption or a time limit, so it must resume its work.
        calls: the arguments of each call, which can be pickled.
        config: the settings.
        folder: folder of the jobs' logs, in a file system that all machines share.
        ended: called with the index of each ended call and the reason of a failure, if it is known.

    Raises:
        ValueError: if the executor is not available or rejects its options.
        StoppedError: after SIGINT or SIGTERM, which also stop the calls.
    """
    submit = _submitter(function, config, folder)
    if config.in_process:
        for index, arguments in enumerate(calls):
            ended(index, function(*arguments))
        return
    pending, running = list(range(len(calls))), dict[int, Any]()
    with StopSignal() as stop:
        try:
            while (pending or running) and not stop.received:
                while pending and len(running) < config.jobs:
                    running[pending[0]] = submit(*calls[pending[0]])
                    del pending[0]
                time.sleep(_INTERVAL)
                for index in [index for index, job in running.items() if job.done()]:
                    ended(index, _result(running.pop(index)))
        finally:
            for job in running.values():
                job.cancel(check=False)
            for job in running.values():
                if isinstance(job, _Process):  # SLURM's end later
                    job.result()
    if stop.received:
        raise StoppedError(f"stopped with {len(pending) + len(running)} runs left", stop.status)


def _submitter(function: Function, config: JobsConfig, folder: Path) -> Callable[..., Any]:
    """Return a function that submits a call and returns its job."""
    call, options = _Call(function), parse_object("executor_options", config.executor_options)
    if config.executor == "processes":
        if options:
            raise ValueError(
                "executor must be slurm or local with executor_options, got processes."
            )
        return lambda *arguments: _Process(call, arguments)
    submitit = require("submitit")
    try:
        executor = submitit.AutoExecutor(folder, cluster=config.executor)
    except RuntimeError as error:
        text = f"executor must be processes or local without srun, got {config.executor}"
        raise ValueError(f"{text}: {error}") from error
    try:
        executor.update_parameters(**{"timeout_min": 1440, "name": "genesis_rl", **options})
    except (AssertionError, NameError, TypeError, ValueError) as error:
        text = f"executor_options must be parameters of submitit.AutoExecutor, got {options}"
        raise ValueError(f"{text}: {error}") from error

    def submit(*arguments: Any) -> Any:
        try:
            return executor.submit(call, *arguments)
        except RuntimeError as error:
            text = f"executor_options must be accepted by sbatch, got {options}"
            raise ValueError(f"{text}: {error}") from error

    return submit


def _result(job: Any) -> str | None:
    """Return the result of an ended job, or the file with its error."""
    try:
        result: str | None = job.result()
    except RuntimeError:
        return f"see {job.paths.stderr}"
    return result


@dataclass(frozen=True)
class _Call:
    """A function for other processes, where a signal or an OSError is also a failure."""

    function: Function

    def __call__(self, *arguments: Any) -> str | None:
        try:
            return self.function(*arguments)
        except (StoppedError, OSError) as error:
            return str(error)

    def checkpoint(self, *arguments: Any) -> Any:
        """Return the call that submitit requeues at a time limit."""
        return require("submitit").helpers.DelayedSubmission(self, *arguments)


class _Process:
    """A call in a process, with the methods of submitit's jobs; the process prints its failure."""

    def __init__(self, call: _Call, arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_work, args=(call, arguments))
        self._process.start()

    def done(self) -> bool:
        return not self._process.is_alive()

    def result(self) -> None:
        self._process.join()

    def cancel(self, check: bool) -> None:
        self._process.terminate()


def _work(call: _Call, arguments: tuple[Any, ...]) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent sends SIGTERM to the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    problem = call(*arguments)
    if problem is not None:
        sys.exit(problem)
