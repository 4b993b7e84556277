"""What the doctor says."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from genesis_rl.doctor.knobs import Knob

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class CannotTellError(Exception):
    """Raised by a check that lacks what it would look at; the message says what."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        name: what it is called, a word with underscores.
        severity: "error": what comes out is useless; "warning": it is worse than it could be;
            "note": worth knowing.
        what: what is wrong, in words.
        quantity: what was measured.
        seen: its value.
        wanted: the threshold with the direction, e.g. "at least 1.5".
        knobs: what to change.
    """

    name: str
    severity: Severity
    what: str
    quantity: str
    seen: float
    wanted: str
    knobs: tuple[Knob, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON data; knobs have their flags, numbers JSON lacks are strings."""
        plain = dataclasses.asdict(self)
        plain["seen"] = self.seen if math.isfinite(self.seen) else str(self.seen)
        plain["knobs"] = [
            {"flags": knob.flags, "setting": knob.setting, "why": knob.why} for knob in self.knobs
        ]
        return plain
