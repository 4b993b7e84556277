"""From a run to what is wrong with it, and how that is told."""

import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genesis_rl.doctor import image_checks, log_checks
from genesis_rl.doctor.evidence import Evidence, look
from genesis_rl.doctor.findings import SEVERITIES, CannotTellError, Finding
from genesis_rl.doctor.thresholds import Thresholds
from genesis_rl.training import Run

Check = Callable[[Evidence, Thresholds], Finding | None]

#: All checks by name; each gives findings of its name. Causes come before what follows from them.
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        log_checks.non_finite,
        log_checks.too_few_updates,
        log_checks.geco_goal_unreachable,
        log_checks.geco_goal_met_at_once,
        log_checks.geco_goal_never_met,
        log_checks.geco_runaway,
        log_checks.kl_explodes,
        log_checks.still_falling,
        log_checks.overfitting,
        image_checks.reconstruction_not_learnt,
        image_checks.mask_posterior_collapse,
        image_checks.component_posterior_collapse,
        image_checks.one_slot,
        image_checks.background_split,
        image_checks.soft_masks,
        image_checks.dead_slots,
        image_checks.objects_lost,
        image_checks.painted_by_background,
        image_checks.objects_merged,
        image_checks.encoder_lags,
        image_checks.no_better_than_grid,
        image_checks.no_better_than_palette,
        log_checks.unfinished,
    )
}
_WIDTH = 100


@dataclass(frozen=True)
class DoctorConfig:
    """What to examine, and how closely."""

    run: Path
    """folder of a run of pretrain/train.py"""
    which: Literal["best", "last"] = "best"
    """the model to look at, if there is one: else the other"""
    images: int = 256
    """held-out images to look at; 0: read the log only"""
    split: Literal["validation", "test"] = "validation"
    """the held-out images"""
    device: str = "auto"
    """auto, cpu or cuda"""
    seed: int = 0
    """of the posterior's noise"""
    json: bool = False
    """print JSON instead of text"""
    limits: Thresholds = field(default_factory=Thresholds)
    """from where on to speak"""

    def __post_init__(self) -> None:
        """Check values."""
        if self.images < 0 or self.images == 1:
            raise ValueError(f"images is {self.images}; wanted 0, or at least 2.")


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        findings: what is wrong; what comes first may be the cause of the rest.
        well: names of the checks that found nothing.
        unknown: names of the checks that could not be made, with the reason.
        about: the run in words.
    """

    findings: list[Finding]
    well: list[str]
    unknown: dict[str, str]
    about: str = ""

    @property
    def healthy(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as JSON data."""
        return {
            "about": self.about,
            "healthy": self.healthy,
            "findings": [finding.as_json() for finding in self.findings],
            "well": self.well,
            "unknown": self.unknown,
        }

    def __str__(self) -> str:
        lines = [*textwrap.wrap(self.about, _WIDTH), ""]
        for finding in self.findings:
            lines += _paragraph(f"{finding.severity:9}", f"{finding.name}: {finding.what}")
            lines += _paragraph(
                " " * 11 + "saw  ",
                f"{finding.quantity}: {finding.seen:.4g}; wanted {finding.wanted}",
            )
            for knob in finding.knobs:
                lines += _paragraph(" " * 11 + "try  ", f"{shlex.join(knob.flags)}  ({knob.why})")
            lines.append("")
        lines += _paragraph("all well ", ", ".join(self.well) or "nothing")
        for reason in dict.fromkeys(self.unknown.values()):
            names = ", ".join(name for name, why in self.unknown.items() if why == reason)
            lines += _paragraph("unknown  ", f"{reason}: {names}")
        if len(self.findings) > 1:
            lines += ["", "Begin at the top: what comes first may be the cause of the rest."]
        counts = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        told = ", ".join(f"{n} {s}{'s' * (n > 1)}" for s, n in counts.items() if n)
        lines += ["", ("Healthy" if self.healthy else "Not healthy") + f": {told or 'no finding'}."]
        return "\n".join(lines)


def diagnose(evidence: Evidence, limits: Thresholds | None = None) -> Diagnosis:
    """Make every check on the evidence."""
    limits = limits or Thresholds()
    findings: list[Finding] = []
    well: list[str] = []
    unknown: dict[str, str] = {}
    for name, check in CHECKS.items():
        try:
            finding = check(evidence, limits)
        except CannotTellError as reason:
            unknown[name] = str(reason)
            continue
        if finding is None:
            well.append(name)
        else:
            findings.append(finding)
    return Diagnosis(findings, well, unknown)


def examine(config: DoctorConfig) -> Diagnosis:
    """Read a run's log, look at its model on held-out images, and make every check.

    Raises:
        ValueError: if there is no run, a checkpoint is damaged, or the data cannot be had.
    """
    run = Run.open(config.run)
    about = (
        f"{run.folder}: {type(run.config.model).__name__.removesuffix('Config')}, step "
        f"{run.step:,}, {run.images_seen:,} images, {run.minutes:.1f} minutes"
    )
    sight = None
    # A training that broke off early may have left only one, or none.
    which = config.which if config.which in run.checkpoints else next(iter(run.checkpoints), None)
    if config.images and which is not None:
        model, _, metadata = run.load(which, device=config.device)
        pack = run.config.open_data(config.split)
        sight = look(model, pack, config.images, seed=config.seed, drawn=config.limits.drawn)
        about += (
            f"; {which}/ (step {metadata.get('step', '?')}) seen on {sight.num_images} "
            f"{config.split} images"
        )
    else:
        about += "; the log alone" + (", for there is no checkpoint" if which is None else "")
    found = diagnose(Evidence(run.config, run.updates, run.validations, sight), config.limits)
    return Diagnosis(found.findings, found.well, found.unknown, about)


def _paragraph(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )
