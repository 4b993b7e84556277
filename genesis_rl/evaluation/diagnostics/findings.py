"""Findings of the checks, suggested flags, and the thresholds, each with its reason."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from genesis_rl.models.geco import min_error
from genesis_rl.training import PretrainConfig
from genesis_rl.utils.checks import Checked, Natural, NonNegative

_PAPER_SIGMA = 0.7
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Thresholds(Checked):
    """Thresholds of the checks.

    "Own runs" are the project's trainings on sprite scenes at 32 and 64 px (docs/notes/demo.md has
    some). Thresholds derived from them rest on few seeds, so all are configurable.
    """

    min_active_slots: NonNegative = 1.5
    """fewest slots with at least 1 % of an image's pixels, mean over images; below it, one slot
    explains most images whole. Objects of the published tasks cover at least 1.6 %"""
    min_background_share: NonNegative = 0.8
    """smallest share of the background in its largest slot: own runs that later separated objects
    had passed it; runs that split the image by position had not"""
    max_mask_entropy: NonNegative = 0.5
    """largest entropy of a pixel's mask probabilities divided by log K; at 0.5 each pixel is spread
    over sqrt(K) slots, as before training"""
    max_objects_lost: NonNegative = 0.15
    """largest share of objects that are assigned to the background's slot and not drawn by it; one
    object in a scene of six is 0.17"""
    max_background_drawn_objects: NonNegative = 0.15
    """largest share of objects drawn by the background's component; one object in a scene of six is
    0.17"""
    min_drawn_contrast: NonNegative = 0.5
    """smallest share of an object's squared difference from the background that the background's
    component must remove for the object to count as drawn by it"""
    max_merged_objects: NonNegative = 0.3
    """largest share of pairs of objects in one slot: a fixed grid has 0.05 on the published tasks;
    own runs that segmented by colour had 0.4 to 0.6 of the same-coloured pairs"""
    min_kl: NonNegative = 1.0
    """smallest KL of the mask or component latents per image, in nats; 1 nat distinguishes fewer
    than e = 2.7 images"""
    min_variance: NonNegative = 0.01
    """variance over images of a latent's posterior mean above which the latent is active (Burda,
    Grosse, Salakhutdinov 2016, section 5.2)"""
    max_kl: NonNegative = 2000.0
    """largest KL per image in nats: own runs beyond it did not recover; successful ones had 50 to
    800"""
    beta_low: NonNegative = 1e-6
    """beta below which the KL has practically no weight: beta * max_kl is then 0.002 nats per
    image"""
    beta_high: NonNegative = 1e3
    """beta above which GECO's constraint has no effect: the clipping limit of
    github.com/pemami4911/genesis.pytorch"""
    goal_margin: NonNegative = 0.0032
    """distance of the paper's goal from the smallest possible error, in nats per pixel and channel:
    0.5655 - (log 0.7 + 0.5 log 2 pi); it corresponds to a mean squared error of 0.0031, which the
    goals suggested for other sigma_x keep"""
    early_goal_fraction: NonNegative = 0.01
    """fraction of the training before which a goal that is met has no effect"""
    max_amortisation_gap: NonNegative = 0.2
    """largest share of the squared error that five gradient steps on the latents remove: own runs
    on small sprites with posterior noise of 0.2 had 0.31 to 0.37; runs on larger sprites, limited
    by their decoders, had 0.13"""
    max_relative_mse: NonNegative = 0.9
    """largest squared error relative to an image without objects (the mean of all images, or each
    image's median colour)"""
    min_updates: Natural = 2_000
    """fewest updates at 32 px, or with an attention posterior: own runs at 32 px began to separate
    objects after 2,000 to 3,000"""
    min_updates_large: Natural = 20_000
    """fewest updates above 32 px: own runs at 64 px had separated nothing after 2,000; the paper
    uses 500,000"""
    max_late_decrease: NonNegative = 0.2
    """relative decrease of the validation's squared error over the last third of the training above
    which the training has not converged"""
    max_overfit: NonNegative = 0.1
    """increase of the validation's nll from its minimum, relative to its decrease until then, above
    which the model is overfitted, if the training's nll kept decreasing"""
    grid_margin: NonNegative = 0.02
    """smallest difference of mSC to a fixed grid's: the variation between two sets of 300
    validation images"""


@dataclass(frozen=True)
class Suggestion:
    """A suggested setting.

    Attributes:
        setting: its path in PretrainConfig, e.g. "geco.beta_min", or "preset".
        value: the suggested value, as on the command line.
        reason: its expected effect.
    """

    setting: str
    value: str
    reason: str

    @property
    def flags(self) -> list[str]:
        """The flag of pretrain/train.py with its value, as separate words."""
        flag = "--" + self.setting.replace("_", "-")
        return [flag, self.value] if self.value else [flag]


def applicable(config: PretrainConfig, *candidates: Suggestion | None) -> tuple[Suggestion, ...]:
    """Return the suggestions that exist for the run's model and objective and change the run."""
    suggestions = []
    for suggestion in candidates:
        if suggestion is None:
            continue
        if suggestion.setting == "preset":
            suggestions.append(suggestion)
            continue
        owner: Any = config
        *path, name = suggestion.setting.split(".")
        for step in path:
            owner = getattr(owner, step)
        if name not in {field.name for field in fields(owner)}:
            continue
        if suggestion.setting.startswith("geco.") and config.objective != "geco":
            continue
        if suggestion.setting.startswith("beta") and config.objective != "elbo":
            continue
        if not _same(suggestion.value, getattr(owner, name)):
            suggestions.append(suggestion)
    return tuple(suggestions)


def number(value: float) -> str:
    """Format a number as a flag's value, with three significant digits."""
    return f"{value:.3g}"


def _same(text: str, value: Any) -> bool:
    if isinstance(value, float):
        return abs(float(text) - value) <= 1e-3 * abs(value)
    return text == str(value)


# ---- suggestions shared by several findings ------------------------------------------------------


def auto_preset(config: PretrainConfig) -> Suggestion | None:
    """Suggest settings inferred from the images, for a model without a background."""
    if config.background != "none":
        return None
    return Suggestion("preset", "auto", "infers the settings from the images, background first")


def lower_beta(config: PretrainConfig) -> tuple[Suggestion | None, ...]:
    """Suggest a lower beta from the start: at 1 the posterior stays collapsed for a long time."""
    reason = "lets slots bind to objects before the KL counts"
    low = 1e-3  # initial value of own short trainings
    return (
        Suggestion("geco.beta_init", number(low), reason) if config.geco.beta_init > low else None,
        Suggestion("geco.beta_min", number(low), reason) if config.geco.beta_min > low else None,
        Suggestion("beta", number(config.beta / 10), reason),
    )


def higher_final_beta(config: PretrainConfig) -> tuple[Suggestion, ...]:
    """Suggest a higher beta late in training, which penalises shared objects and backgrounds."""
    reason = "penalises slots that share an object or the background"
    floor = max(config.geco.beta_min, 1e-3)
    end = config.beta if config.beta_end is None else config.beta_end
    return (
        Suggestion("geco.beta_min", number(3 * floor), reason),
        Suggestion("beta_end", number(4 * end), reason),
    )


def higher_beta_min(config: PretrainConfig) -> Suggestion:
    """Suggest a higher minimum of GECO's beta."""
    floor = config.geco.beta_min
    higher = 1e-3 if floor < 1e-3 else 10 * floor
    return Suggestion("geco.beta_min", number(higher), "bounds the KL weight from below")


def half_size(config: PretrainConfig, name: str, reason: str) -> Suggestion | None:
    """Suggest half of a size of the model, if the size exists and is at least 8."""
    size = getattr(config.model, name, 0)
    return Suggestion(f"model.{name}", str(size // 2), reason) if size >= 8 else None


def smaller_sigma(config: PretrainConfig, reason: str) -> Suggestion | None:
    """Suggest a smaller sigma_x with its matching goal."""
    sigma = 0.3
    if config.model.sigma_x <= sigma:
        return None
    goal = f" (with --geco.goal {goal_for(sigma, Thresholds()):.4f})"
    return Suggestion("model.sigma_x", number(sigma), reason + goal * (config.objective == "geco"))


def longer(
    config: PretrainConfig, last: Mapping[str, float], min_steps: int = 0
) -> tuple[Suggestion, ...]:
    """Suggest three times as many updates: in minutes if the time limit ended the run.

    Args:
        config: the run's settings.
        last: the last row of an update.
        min_steps: fewest updates to suggest.
    """
    done = max(int(last["step"]), 1)
    steps = max(3 * done, min_steps)
    reason = "longer, anew or with --resume"
    if config.max_minutes is None or done >= config.steps:
        return (Suggestion("steps", str(steps), reason),)
    minutes = Suggestion("max_minutes", number(config.max_minutes * steps / done), reason)
    return (minutes, *([Suggestion("steps", str(steps), reason)] if steps > config.steps else ()))


def goal_for(sigma_x: float, thresholds: Thresholds) -> float:
    """Return the goal with the same squared error as the paper's goal at its sigma_x."""
    return min_error(sigma_x) + thresholds.goal_margin * (_PAPER_SIGMA / sigma_x) ** 2


def paper_goal(config: PretrainConfig, thresholds: Thresholds) -> Suggestion:
    """Suggest the paper's goal, converted to the run's sigma_x."""
    sigma = config.model.sigma_x
    reason = f"the paper's goal, converted to sigma_x {sigma:g}"
    return Suggestion("geco.goal", f"{goal_for(sigma, thresholds):.4f}", reason)


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
