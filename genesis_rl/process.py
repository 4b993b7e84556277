"""What a long-running program asks of its process: to stop in order, to keep its memory."""

import ctypes
import platform
import signal
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignal:
    """Turns SIGTERM into a wish that a loop can look at, for the length of a ``with`` block.

    Works in the main thread only, as all signal handlers do.

    Attributes:
        received: whether SIGTERM has come.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Take over the signal."""
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signal back."""
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.received = True


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of handing it back to the system.

    It maps every big activation anew otherwise, and the system clears each page of it: a third of
    a training step on a CPU. For programs, which own their process; has no effect with another C
    library.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 1 << 30)
