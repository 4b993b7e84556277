"""The diagnosis of a run: all checks, their findings and the report."""

import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from genesis_rl.evaluation.diagnostics import image_checks, log_checks
from genesis_rl.evaluation.diagnostics.findings import (
    SEVERITIES,
    CheckSkippedError,
    Finding,
    Thresholds,
)
from genesis_rl.evaluation.diagnostics.model_statistics import CheckInputs, compute_statistics
from genesis_rl.training import Run
from genesis_rl.utils.checks import Checked, Must

Check = Callable[[CheckInputs, Thresholds], Finding | None]

#: All checks by name, causes before their consequences. A check's finding has the check's name.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        log_checks.non_finite,
        log_checks.too_few_updates,
        log_checks.geco_goal_unreachable,
        log_checks.geco_goal_met_at_once,
        log_checks.geco_goal_never_met,
        log_checks.geco_beta_diverged,
        log_checks.kl_explodes,
        log_checks.not_converged,
        log_checks.overfitting,
        image_checks.reconstruction_not_learnt,
        image_checks.mask_posterior_collapse,
        image_checks.component_posterior_collapse,
        image_checks.one_slot,
        image_checks.background_split,
        image_checks.soft_masks,
        image_checks.dead_slots,
        image_checks.objects_lost,
        image_checks.drawn_by_background,
        image_checks.objects_merged,
        image_checks.amortisation_gap,
        image_checks.no_better_than_grid,
        image_checks.no_better_than_palette,
        log_checks.unfinished,
    )
}
#: Number of images of a diagnosis; statistics of a single image have no spread.
CheckImages = Annotated[int, Must("0 or at least 2", lambda images: images == 0 or images > 1)]
_WIDTH = 100


@dataclass(frozen=True)
class DoctorConfig(Checked):
    """Settings of a diagnosis."""

    run: Path
    """run directory of pretrain/train.py"""
    which: Literal["best", "last"] = "best"
    """the model to check; the other one if it does not exist"""
    images: CheckImages = 256
    """number of held-out images; 0: check the log only"""
    split: Literal["validation", "test"] = "validation"
    """split of the held-out images"""
    device: str = "auto"
    """auto, cpu or cuda"""
    seed: int = 0
    """seed of the posterior's noise"""
    json: bool = False
    """print JSON instead of text"""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """thresholds of the checks"""


@dataclass(frozen=True)
class Diagnosis:
    """Result of all checks.

    Attributes:
        findings: problems; the first may be the cause of the others.
        passed: names of the checks without a finding.
        skipped: names of the checks that could not run, with the reason.
        summary: one-line description of the run.
    """

    findings: list[Finding]
    passed: list[str]
    skipped: dict[str, str]
    summary: str = ""

    @property
    def healthy(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "summary": self.summary,
            "healthy": self.healthy,
            "findings": [finding.as_json() for finding in self.findings],
            "passed": self.passed,
            "skipped": self.skipped,
        }

    def __str__(self) -> str:
        lines = [*textwrap.wrap(self.summary, _WIDTH), ""]
        for finding in self.findings:
            lines += _paragraph(f"{finding.severity:9}", f"{finding.name}: {finding.message}")
            lines += _paragraph(
                " " * 11,
                f"{finding.quantity}: {finding.value:.4g}, expected {finding.expected}",
            )
            for suggestion in finding.suggestions:
                lines += _paragraph(
                    " " * 11 + "try ", f"{shlex.join(suggestion.flags)}  ({suggestion.reason})"
                )
            lines.append("")
        lines += _paragraph("passed   ", ", ".join(self.passed) or "none")
        for reason in dict.fromkeys(self.skipped.values()):
            names = ", ".join(name for name, why in self.skipped.items() if why == reason)
            lines += _paragraph("skipped  ", f"{reason}: {names}")
        if len(self.findings) > 1:
            lines += ["", "Start with the first finding: it may be the cause of the others."]
        counts = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        listed = ", ".join(f"{n} {s}{'s' * (n > 1)}" for s, n in counts.items() if n)
        verdict = "Healthy" if self.healthy else "Not healthy"
        return "\n".join([*lines, "", f"{verdict}: {listed or 'no findings'}."])


def run_checks(inputs: CheckInputs, thresholds: Thresholds | None = None) -> Diagnosis:
    """Run every check."""
    thresholds = thresholds or Thresholds()
    findings: list[Finding] = []
    passed: list[str] = []
    skipped: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            finding = check(inputs, thresholds)
        except CheckSkippedError as reason:
            skipped[name] = str(reason)
            continue
        if finding is None:
            passed.append(name)
        else:
            findings.append(finding)
    return Diagnosis(findings, passed, skipped)


def diagnose(config: DoctorConfig) -> Diagnosis:
    """Read a run's log, evaluate its model on held-out images, and run every check.

    Raises:
        ValueError: if the run does not exist, a checkpoint is damaged, or the data is missing.
    """
    run = Run.open(config.run)
    summary = (
        f"{run.folder}: {type(run.config.model).__name__.removesuffix('Config')}, step "
        f"{run.step:,}, {run.images_seen:,} images, {run.minutes:.1f} minutes"
    )
    statistics = None
    # An interrupted training may have only one checkpoint, or none.
    which = config.which if config.which in run.checkpoints else next(iter(run.checkpoints), None)
    if config.images and which is not None:
        model, _, metadata = run.load(which, device=config.device)
        pack = run.config.open_data(config.split)
        statistics = compute_statistics(
            model,
            pack,
            config.images,
            seed=config.seed,
            min_drawn_contrast=config.thresholds.min_drawn_contrast,
        )
        summary += (
            f"; {which}/ (step {metadata.get('step', '?')}) on {statistics.num_images} "
            f"{config.split} images"
        )
    else:
        summary += "; log only" + (" (no checkpoint)" if which is None else "")
    inputs = CheckInputs(run.config, run.updates, run.validations, statistics)
    return replace(run_checks(inputs, config.thresholds), summary=summary)


def _paragraph(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )
