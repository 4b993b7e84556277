"""Error handling and output of training programs that print a report."""

import sys
from collections.abc import Callable
from typing import Any

from genesis_rl.training.loop import NonFiniteError
from genesis_rl.utils.flags import report_error
from genesis_rl.utils.tables import as_text


def run_and_report(name: str, settings: Any, train: Callable[[], dict[str, Any]]) -> int:
    """Train, and print the report's tables and the run directory.

    Args:
        name: name of the program, for error messages.
        settings: dataclass of the program's flags, as passed to `tyro.cli`.
        train: function that trains and returns the report: ``tables``, the input of `as_text`, and
            ``settings`` with ``out``.

    Returns:
        The exit status: 0 for success, 2 for invalid settings, 1 for a failed training.

    Raises:
        StoppedError: after SIGINT or SIGTERM.
    """
    try:
        report = train()
        sys.stdout.write(f"{as_text(report['tables'])}\n{report['settings']['out']}\n")
    except (ValueError, TypeError, OSError, NonFiniteError) as error:
        report_error(name, error, settings)
        return 1 if isinstance(error, NonFiniteError) else 2
    return 0
