"""Processes that render scenarios, each with an OpenGL context of its own."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_AHEAD = 4  # scenarios per worker that are handed out before they are asked for

_work: Callable[[int], Any] | None = None  # of this process


class Workers(Generic[T]):
    """A function of a number that is computed by several processes; use it in a `with` block."""

    def __init__(self, make: Callable[[], Callable[[int], T]], count: int) -> None:
        """Prepare; nothing starts before it is needed.

        Args:
            make: makes the function, once per process; to be pickled.
            count: processes; 1 computes in this one.
        """
        self._make, self._count = make, count
        self._here: Callable[[int], T] | None = None
        spawn = multiprocessing.get_context("spawn")  # a copy of an OpenGL context is of no use
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
        """End the processes; what has not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Callable[[int], Any]]) -> None:
    """Prepare a worker's process."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others in order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Mesa draws with all processors otherwise, in each of the processes.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    _work = make()


def _end_with_parent() -> None:
    """Do not outlive a first process that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(number: int) -> Any:
    if _work is None:
        raise RuntimeError("the worker was not started")
    return _work(number)
