"""Result of a check that failed or could not run."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from genesis_rl.evaluation.diagnostics.suggestions import Suggestion

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class CheckSkippedError(Exception):
    """Raised by a check that lacks an input; the message names it."""


@dataclass(frozen=True)
class Finding:
    """A problem of a run.

    Attributes:
        name: name of the check.
        severity: "error": the model is useless; "warning": it is worse than it could be; "note":
            for information.
        message: the problem, in sentences.
        quantity: name of the measured quantity.
        value: its value.
        expected: the threshold with its direction, e.g. "at least 1.5".
        suggestions: settings to change.
    """

    name: str
    severity: Severity
    message: str
    quantity: str
    value: float
    expected: str
    suggestions: tuple[Suggestion, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return JSON data; NaN and infinity become strings, suggestions contain their flags."""
        plain = dataclasses.asdict(self)
        plain["value"] = self.value if math.isfinite(self.value) else str(self.value)
        plain["suggestions"] = [
            {"flags": suggestion.flags, "setting": suggestion.setting, "reason": suggestion.reason}
            for suggestion in self.suggestions
        ]
        return plain
