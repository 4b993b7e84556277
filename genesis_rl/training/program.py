"""Error handling and output of training programs that print a report."""

import sys
from collections.abc import Callable
from typing import Any

from genesis_rl.text_tables import as_text
from genesis_rl.training.steps import NonFiniteError


def run_and_report(name: str, train: Callable[[], dict[str, Any]]) -> int:
    """Train, and print the report's tables and the run directory.

    Args:
        name: name of the program, for error messages.
        train: function that trains and returns the report: ``tables``, the input of `as_text`, and
            ``settings`` with ``out``.

    Returns:
        The exit status: 0 for success, 2 for invalid settings, 1 for a failed training.

    Raises:
        StoppedError: after SIGINT or SIGTERM.
    """
    status, text = 0, ""
    try:
        report = train()
        text = f"{as_text(report['tables'])}\n{report['settings']['out']}"
    except (ValueError, TypeError, OSError) as error:
        status, text = 2, f"{name}: {' '.join(str(error).split())}"
    except NonFiniteError as error:
        status, text = 1, f"{name}: {error}"
    print(text, file=sys.stderr if status else sys.stdout)
    return status
