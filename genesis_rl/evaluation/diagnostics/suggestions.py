"""Suggested settings: flags of pretrain/train.py that address a finding."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from genesis_rl.evaluation.diagnostics.thresholds import Thresholds
from genesis_rl.models.geco import min_error
from genesis_rl.training import PretrainConfig

_PAPER_SIGMA = 0.7


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
