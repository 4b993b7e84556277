"""A long-running program's process: to stop in order, to keep its memory, what it runs on."""

import ctypes
import multiprocessing
import platform
import signal
import sys
import time
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ParamSpec, Self

import torch

#: Exit statuses of a process that SIGINT (Ctrl-C) or SIGTERM ended.
INTERRUPTED, TERMINATED = 130, 143
_REPEAT_SECONDS = 0.5
_CPUINFO = Path("/proc/cpuinfo")
_Arguments = ParamSpec("_Arguments")


class StoppedError(Exception):
    """SIGINT or SIGTERM ended the work; what could be saved is saved.

    Attributes:
        status: the exit status of the process, `INTERRUPTED` or `TERMINATED`.
    """

    def __init__(self, message: str = "", status: int = TERMINATED) -> None:
        super().__init__(message)
        self.status = status


class StopSignal:
    """Turns SIGINT and SIGTERM into a flag that a loop polls, within a ``with`` block.

    A second SIGINT raises KeyboardInterrupt, so that a second Ctrl-C ends the process at once; one
    that follows within half a second is the first one again, as ``timeout`` and process groups
    send it. Works in the main thread only, as all signal handlers do.

    Attributes:
        signum: the signal received; None before one is.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._received_at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal has been received."""
        return self.signum is not None

    @property
    def status(self) -> int:
        """The exit status of a process that stopped: 130 after SIGINT, otherwise 143."""
        return INTERRUPTED if self.signum == signal.SIGINT else TERMINATED

    def __enter__(self) -> Self:
        """Install the handler."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous handlers."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if signum == self.signum == signal.SIGINT:
            if time.monotonic() - self._received_at >= _REPEAT_SECONDS:
                raise KeyboardInterrupt
            return
        self.signum, self._received_at = signum, time.monotonic()


def ignore_interrupts() -> None:
    """Ignore SIGINT in a worker process, which lives no longer than the main process.

    A terminal sends Ctrl-C to all of a program's processes, and the main process ends the others.
    Does nothing in a process that is no worker (``daemon``).
    """
    if multiprocessing.current_process().daemon:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def report_stop(
    program: str, advice: str = ""
) -> Callable[[Callable[_Arguments, int]], Callable[_Arguments, int]]:
    """Decorate a program's ``main``: report a stop in one line instead of a traceback.

    The decorated function returns 130 after SIGINT and 143 after SIGTERM.

    Args:
        program: its name, for the message.
        advice: what to do next after an interrupt outside of any `StopSignal`.
    """

    def decorate(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
        @wraps(main)
        def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except StoppedError as error:
                text, status = str(error), error.status
            except KeyboardInterrupt:
                text, status = f"interrupted{advice and f'; {advice}'}", INTERRUPTED
            sys.stderr.write(f"{program}: {text}\n")
            return status

        return wrapped

    return decorate


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


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16, rather than imitating it in float32.

    A CPU needs AVX-512: without, PyTorch's bfloat16 convolutions take ten times as long as those
    of float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
