"""Settings to try: the flags of pretrain/train.py that change what was found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from genesis_rl.doctor.thresholds import Thresholds
from genesis_rl.training import PretrainConfig

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_PAPER_SIGMA = 0.7


@dataclass(frozen=True)
class Knob:
    """A setting to try.

    Attributes:
        setting: its path in PretrainConfig, e.g. "geco.beta_min".
        value: what to set it to, as on the command line.
        why: what that does.
    """

    setting: str
    value: str
    why: str

    @property
    def flags(self) -> list[str]:
        """The flag of pretrain/train.py with its value, as separate words."""
        flag = "--" + self.setting.replace("_", "-")
        return [flag, self.value] if self.value else [flag]


def knobs(config: PretrainConfig, *candidates: Knob | None) -> tuple[Knob, ...]:
    """Keep the knobs that this run has (its model's, its objective's) and that change it."""
    kept = []
    for knob in candidates:
        if knob is None:
            continue
        owner: Any = config
        *path, name = knob.setting.split(".")
        for step in path:
            owner = getattr(owner, step)
        if name not in {field.name for field in fields(owner)}:
            continue
        if knob.setting.startswith("geco.") and config.objective != "geco":
            continue
        if knob.setting.startswith("beta") and config.objective != "elbo":
            continue
        if not _same(knob.value, getattr(owner, name)):
            kept.append(knob)
    return tuple(kept)


def number(value: float) -> str:
    """Write a number as a flag's value: three digits, without an exponent where that is short."""
    return f"{value:.3g}"


def _same(text: str, value: Any) -> bool:
    if isinstance(value, float):
        return abs(float(text) - value) <= 1e-3 * abs(value)
    return text == str(value)


# ---- knobs that several findings turn ------------------------------------------------------------


def cheaper_kl(config: PretrainConfig) -> tuple[Knob | None, ...]:
    """A lower price of the KL, from the start: at 1 the posterior collapses for a long time."""
    why = "lets slots take hold of objects before the KL counts"
    low = 1e-3  # where own short trainings start
    return (
        Knob("geco.beta_init", number(low), why) if config.geco.beta_init > low else None,
        Knob("geco.beta_min", number(low), why) if config.geco.beta_min > low else None,
        Knob("beta", number(config.beta / 10), why),
    )


def dearer_kl(config: PretrainConfig) -> tuple[Knob, ...]:
    """A higher price of the KL, later: sharing an object or the background then costs."""
    why = "makes sharing an object or the background cost more than it is worth"
    floor = max(config.geco.beta_min, 1e-3)
    end = config.beta if config.beta_end is None else config.beta_end
    return (
        Knob("geco.beta_min", number(3 * floor), why),
        Knob("beta_end", number(4 * end), why),
    )


def floor_knob(config: PretrainConfig) -> Knob:
    """A higher floor under GECO's beta."""
    floor = config.geco.beta_min
    higher = 1e-3 if floor < 1e-3 else 10 * floor
    return Knob("geco.beta_min", number(higher), "a floor under the price of the KL")


def halve(config: PretrainConfig, name: str, why: str) -> Knob | None:
    """Half of a size of the model, if it has one of at least 8."""
    size = getattr(config.model, name, 0)
    return Knob(f"model.{name}", str(size // 2), why) if size >= 8 else None


def smaller_sigma(config: PretrainConfig, why: str) -> Knob | None:
    """A smaller sigma_x, with the goal that fits it."""
    sigma = 0.3
    if config.model.sigma_x <= sigma:
        return None
    goal = f" (with --geco.goal {advised_goal(sigma, Thresholds()):.4f})"
    return Knob("model.sigma_x", number(sigma), why + goal * (config.objective == "geco"))


def longer(config: PretrainConfig, last: Mapping[str, float], least: int = 0) -> tuple[Knob, ...]:
    """Three times as long, and at least a number of updates: by time if time ended the run.

    Args:
        config: the run's settings.
        last: the last row of an update.
        least: fewest updates wanted.
    """
    done = max(int(last["step"]), 1)
    steps = max(3 * done, least)
    why = "longer, anew or with --resume"
    if config.max_minutes is None or done >= config.steps:
        return (Knob("steps", str(steps), why),)
    minutes = Knob("max_minutes", number(config.max_minutes * steps / done), why)
    return (minutes, *([Knob("steps", str(steps), why)] if steps > config.steps else ()))


def least_error(sigma_x: float) -> float:
    """Error of a perfect reconstruction, nats per pixel and channel.

    No mixture of Gaussians is denser than the peak of one.
    """
    return math.log(sigma_x) + _HALF_LOG_2PI


def advised_goal(sigma_x: float, limits: Thresholds) -> float:
    """The goal that stands for the same squared error as the paper's does at its sigma_x."""
    return least_error(sigma_x) + limits.goal_margin * (_PAPER_SIGMA / sigma_x) ** 2


def goal_knob(config: PretrainConfig, limits: Thresholds) -> Knob:
    """GECO's goal as advised."""
    sigma = config.model.sigma_x
    why = f"what the paper's goal is at its sigma_x, for {sigma:g}"
    return Knob("geco.goal", f"{advised_goal(sigma, limits):.4f}", why)
