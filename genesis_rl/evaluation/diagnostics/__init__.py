"""Diagnostics of a pretraining run: checks, findings and suggested flags."""

from genesis_rl.evaluation.diagnostics.diagnosis import (
    CHECKS,
    Diagnosis,
    DoctorConfig,
    diagnose,
    run_checks,
)
from genesis_rl.evaluation.diagnostics.findings import (
    CheckSkippedError,
    Finding,
    Suggestion,
    Thresholds,
)
from genesis_rl.evaluation.diagnostics.model_statistics import (
    CheckInputs,
    ModelStatistics,
    compute_statistics,
)

__all__ = [
    "CHECKS",
    "CheckInputs",
    "CheckSkippedError",
    "Diagnosis",
    "DoctorConfig",
    "Finding",
    "ModelStatistics",
    "Suggestion",
    "Thresholds",
    "compute_statistics",
    "diagnose",
    "run_checks",
]
