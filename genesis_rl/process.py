"""A long-running program's process: to stop in order, to keep its memory, what it runs on."""

import ctypes
import platform
import signal
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch

#: What a process ended by SIGTERM returns.
TERMINATED = 143
_CPUINFO = Path("/proc/cpuinfo")


class StoppedError(Exception):
    """SIGTERM ended what was under way."""


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


def hardware(device: torch.device) -> str:
    """Name what a process computes on, with its share of it.

    Args:
        device: of the model.

    Returns:
        For example "NVIDIA A100 (8 processes)", "AMD EPYC 7B12 (2 threads)".
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        count = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return f"{name} ({count} process{'es' * (count > 1)})"
    threads = torch.get_num_threads()
    return f"{_processor()} ({threads} thread{'s' * (threads > 1)})"


def versions() -> dict[str, str]:
    """Versions of what decides a model's numbers."""
    from genesis_rl import __version__

    return {
        "genesis_rl": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "CPU"
