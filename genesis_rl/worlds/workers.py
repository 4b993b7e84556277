"""Parallel rendering in several processes, in a fixed order."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from genesis_rl.utils.process import check_main_guard

T = TypeVar("T")

_AHEAD = 4  # prefetched numbers per worker

_work: Callable[[int], Any] | None = None  # of this process


class Workers(Generic[T]):
    """Parallel map of a function of a number over several processes; a context manager."""

    def __init__(self, make: Callable[[], Callable[[int], T]], count: int) -> None:
        """Create the pool; processes start with the first call of `map`.

        Args:
            make: picklable factory of the function, called once per process.
            count: number of processes; 1: compute in this process, as does a program read from
                standard input, which other processes could not import.

        Raises:
            RuntimeError: for several processes, in a process that was started by a script without
                `if __name__ == '__main__'` and imports that script.
        """
        program = getattr(sys.modules["__main__"], "__file__", None)
        if program is not None and not Path(program).is_file():
            count = 1
        if count > 1:
            check_main_guard()
        self._make, self._count = make, count
        self._here: Callable[[int], T] | None = None
        spawn = multiprocessing.get_context("spawn")  # OpenGL contexts do not survive a fork
        self._pool = ProcessPoolExecutor(count, spawn, initializer=_start, initargs=(make,))

    def map(self, numbers: Iterable[int]) -> Iterator[T]:
        """Yield the function's values in the order of the numbers.

        Raises:
            RuntimeError: if a process dies.
        """
        if self._count == 1:
            for number in numbers:
                self._here = self._here or self._make()
                yield self._here(number)
            return
        waiting: deque[Future[T]] = deque()
        for number in numbers:
            waiting.append(self._pool.submit(_do, number))
            if len(waiting) > _AHEAD * self._count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shut down the processes and cancel pending work."""
        self._pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Callable[[int], Any]]) -> None:
    """Initialise a worker process."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process shuts the workers down
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # By default, Mesa uses all processors in each of the processes.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    _work = make()


def _end_with_parent() -> None:
    """Exit when the parent process ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(number: int) -> Any:
    if _work is None:
        raise RuntimeError("the worker process was not initialised.")
    return _work(number)
