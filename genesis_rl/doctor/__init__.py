"""Why slots do not bind: reads a pretraining run and says what is wrong, in words."""

from genesis_rl.doctor.diagnosis import CHECKS, Diagnosis, DoctorConfig, diagnose, examine
from genesis_rl.doctor.evidence import Evidence, Sight, look
from genesis_rl.doctor.findings import CannotTellError, Finding
from genesis_rl.doctor.knobs import Knob
from genesis_rl.doctor.thresholds import Thresholds

__all__ = [
    "CHECKS",
    "CannotTellError",
    "Diagnosis",
    "DoctorConfig",
    "Evidence",
    "Finding",
    "Knob",
    "Sight",
    "Thresholds",
    "diagnose",
    "examine",
    "look",
]
