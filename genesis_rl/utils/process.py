"""Signals, memory allocation, hardware and versions of a process."""

import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, Self

import torch

from genesis_rl.utils.extras import MissingExtraError

#: Exit statuses of a process that SIGINT (Ctrl-C) or SIGTERM ended.
INTERRUPTED, TERMINATED = 130, 143
_REPEAT_SECONDS = 0.5
_CPUINFO = Path("/proc/cpuinfo")
_Arguments = ParamSpec("_Arguments")


class StoppedError(Exception):
    """SIGINT or SIGTERM stopped the program after its state was saved.

    Attributes:
        status: the exit status of the process, `INTERRUPTED` or `TERMINATED`.
    """

    def __init__(self, message: str = "", status: int = TERMINATED) -> None:
        super().__init__(message)
        self.status = status


class StopSignal:
    """Context manager that turns SIGINT and SIGTERM into a flag for a loop to poll.

    A second SIGINT (Ctrl-C) raises KeyboardInterrupt; within half a second of the first it is
    ignored, as ``timeout`` and process groups send duplicates. Works in the main thread only, as
    all signal handlers do.

    Attributes:
        signum: the received signal; None before.
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
        """Exit status of the stopped process: 130 after SIGINT, otherwise 143."""
        return INTERRUPTED if self.signum == signal.SIGINT else TERMINATED

    def __enter__(self) -> Self:
        """Install the handler."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if signum == self.signum == signal.SIGINT:
            if time.monotonic() - self._received_at >= _REPEAT_SECONDS:
                raise KeyboardInterrupt
            return
        self.signum, self._received_at = signum, time.monotonic()


def ignore_interrupts() -> None:
    """Ignore SIGINT in a worker process (``daemon``).

    A terminal sends Ctrl-C to all processes of a program; the main process shuts the workers down.
    """
    if multiprocessing.current_process().daemon:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


#: Seconds between two lines of progress of a program without a terminal.
LINE_SECONDS = 25.0
_last_line = 0.0


def write_progress(text: str) -> None:
    """Write a line of progress to stderr."""
    global _last_line
    _last_line = time.monotonic()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def _elapsed_lines(program: str) -> Iterator[None]:
    """Write the elapsed time when there was no other line of progress, without a terminal."""
    ended, start = threading.Event(), time.monotonic()

    def write() -> None:
        while not ended.wait(LINE_SECONDS / 10):
            now = time.monotonic()
            if now - max(_last_line, start) > 1.1 * LINE_SECONDS:
                minutes, seconds = divmod(int(now - start), 60)
                write_progress(f"{program}: {minutes:02d}:{seconds:02d} elapsed")

    if not sys.stderr.isatty():
        threading.Thread(target=write, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def report_stop(
    program: str, advice: str = ""
) -> Callable[[Callable[_Arguments, int]], Callable[_Arguments, int]]:
    """Decorate a program's ``main``: report a stop in one line instead of a traceback.

    Without a terminal, a line with the elapsed time is written whenever `write_progress` was not
    called for 25 seconds. The decorated function returns 130 after SIGINT, 143 after SIGTERM,
    and 2 if an optional dependency is missing.

    Args:
        program: name of the program, for the message.
        advice: next step for the user after an interrupt outside of any `StopSignal`.
    """

    def decorate(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
        @wraps(main)
        def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
            try:
                with _elapsed_lines(program):
                    return main(*args, **kwargs)
            except StoppedError as error:
                text, status = str(error), error.status
            except MissingExtraError as error:
                text, status = str(error), 2
            except KeyboardInterrupt:
                text, status = f"interrupted{advice and f'; {advice}'}", INTERRUPTED
            sys.stderr.write(f"{program}: {text}\n")
            return status

        return wrapped

    return decorate


def pick_device(device: str | torch.device) -> torch.device:
    """Resolve "auto" to CUDA if available, else to the CPU.

    Raises:
        TypeError: if the device is neither a string nor a torch.device.
        ValueError: if the device is unknown, not supported or not available.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a string or a torch.device, got {device!r}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {str(device)!r}.")
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device must be 'cpu' without a GPU, got {str(device)!r}.")
        count = torch.cuda.device_count()
        if count and chosen.index is not None and chosen.index >= count:
            raise ValueError(f"device must be 'cuda:0' to 'cuda:{count - 1}', got {str(device)!r}.")
    return chosen


def configure_cpu(threads: int | None) -> None:
    """Set the number of PyTorch's CPU threads, if given, and reuse freed memory."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Configure glibc to reuse freed memory instead of returning it to the system.

    Otherwise each large activation is mapped anew and its pages are zeroed, which takes a third of
    a training step on a CPU. Intended for programs only; has no effect with other C libraries.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 1 << 30)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device supports bfloat16 natively.

    A CPU requires AVX-512: without, bfloat16 convolutions take ten times as long as float32 ones.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def hardware(device: torch.device) -> str:
    """Return the name of the hardware and the number of processes or threads on it.

    Args:
        device: device of the model.

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
    """Return the versions of genesis_rl, PyTorch and Python."""
    from genesis_rl import __version__

    return {
        "genesis_rl": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Return the name of the CPU if available, else its architecture."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "CPU"


def choose_opengl() -> None:
    """Let MuJoCo, which reads MUJOCO_GL on import, render with EGL on Linux without a display."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not display:
        os.environ.setdefault("MUJOCO_GL", "egl")


def check_main_guard() -> None:
    """Raise in a process that executes an unguarded main script again when it is started.

    Python's own check comes too late: the process would first wait for its parent to complete a
    pack, and the parent waits for it.

    Raises:
        RuntimeError: in such a process.
    """
    # Set while a spawned process imports its main module.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a script that renders in several processes must do so under"
            " `if __name__ == '__main__':`, because each process imports the script."
        )
