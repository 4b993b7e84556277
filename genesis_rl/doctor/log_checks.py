"""What a run's log shows: checks of the numbers of its training."""

import json
import math

from genesis_rl.doctor.evidence import Evidence
from genesis_rl.doctor.findings import CannotTellError, Finding
from genesis_rl.doctor.knobs import (
    Knob,
    advised_goal,
    floor_knob,
    goal_knob,
    knobs,
    least_error,
    longer,
    number,
)
from genesis_rl.doctor.thresholds import Thresholds
from genesis_rl.training import PretrainConfig

_TERMS = ("nll", "kl_m", "kl_c", "beta")


def non_finite(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """A term of the loss, a weight or what the model makes of images is nan or infinite."""
    config, where, value = evidence.config, "", math.nan
    for row in evidence.updates:
        bad = [name for name in _TERMS if not math.isfinite(row.get(name, 0.0))]
        if bad:
            where, value = f"{bad[0]} at step {row['step']:.0f}", row[bad[0]]
        elif row.get("nonfinite_weights"):
            where = f"{row['nonfinite_weights']:.0f} weights at step {row['step']:.0f}"
    if not where and evidence.sight is not None and not evidence.sight.finite:
        where = "the model's weights or outputs on held-out images"
    if not where:
        return None
    return Finding(
        "non_finite",
        "error",
        f"Not finite: {where}. The training ended there; last/, if it was written, is of before.",
        "the first such number",
        value,
        "finite numbers",
        knobs(
            config,
            Knob("geco.step_size", number(config.geco.step_size / 10), "lets beta move slower")
            if where.startswith("beta")
            else None,
            Knob("learning_rate", number(min(config.learning_rate / 3, 1e-3)), "smaller steps"),
            Knob("clip_norm", "5", "bounds single large gradients"),
            Knob("model.posterior_sigma_floor", "0.01", "keeps the densities of latents bounded"),
            floor_knob(config),
            Knob("precision", "fp32", "if it happened in half precision"),
        ),
    )


def kl_explodes(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The KL of an image runs to thousands of nats."""
    config, last = evidence.config, _last_update(evidence)
    kl = last["kl_m"] + last["kl_c"]
    if not kl > limits.max_kl:
        return None
    return Finding(
        "kl_explodes",
        "error",
        f"The latents of an image cost {kl:,.0f} nats (mask {last['kl_m']:,.0f}, component "
        f"{last['kl_c']:,.0f}) at beta {last['beta']:.1e}: nothing holds the posterior, slots share"
        " whatever helps the reconstruction, and the prior cannot follow.",
        "KL per image in nats, last row",
        kl,
        f"at most {limits.max_kl:,.0f}",
        knobs(
            config,
            floor_knob(config),
            Knob("beta", number(10 * config.beta), "a higher price of the KL"),
            Knob("model.posterior_sigma_floor", "0.01", "bounds what a latent can cost"),
        ),
    )


def geco_runaway(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """GECO's beta left the range in which it weighs the KL at all."""
    config, last = _geco(evidence), _last_update(evidence)
    beta, goal = last["beta"], config.geco.goal
    if limits.beta_low <= beta <= limits.beta_high:
        return None
    low, advised = beta < limits.beta_low, advised_goal(config.model.sigma_x, limits)
    why = (
        "the goal was not met for so long that the KL is free."
        if low
        else "the goal is met so easily that only the KL counts, which squeezes the latents out."
    )
    return Finding(
        "geco_runaway",
        "error",
        f"GECO's beta ran {'down' if low else 'up'} to {beta:.1e}: {why}",
        "beta, last row",
        beta,
        f"{limits.beta_low:g} to {limits.beta_high:g}",
        knobs(
            config,
            floor_knob(config) if low else None,
            goal_knob(config, limits) if low == (goal < advised) else None,
            Knob("geco.step_size", number(config.geco.step_size / 10), "lets beta move slower"),
        ),
    )


def geco_goal_unreachable(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """GECO's goal lies below the error of a perfect reconstruction."""
    config = _geco(evidence)
    goal, least = config.geco.goal, least_error(config.model.sigma_x)
    if goal > least:
        return None
    return Finding(
        "geco_goal_unreachable",
        "error",
        f"No reconstruction can meet GECO's goal of {goal:g} nats per pixel and channel: with "
        f"sigma_x {config.model.sigma_x:g} a perfect one has {least:.4f}. Beta can only fall.",
        "geco.goal",
        goal,
        f"above {least:.4f}",
        knobs(
            config,
            goal_knob(config, limits),
            Knob("model.sigma_x", "0.7", "the paper's, for a goal of 0.5655"),
        ),
    )


def geco_goal_met_at_once(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """GECO's goal was met before anything was learnt."""
    config, errors = _geco(evidence), _errors(evidence)
    goal = config.geco.goal
    met = next((step for step, error in errors if error < goal), math.inf)
    if met > max(limits.goal_at_once * config.steps, errors[0][0]):
        return None
    return Finding(
        "geco_goal_met_at_once",
        "warning",
        f"GECO's goal of {goal:g} nats per pixel and channel (a squared error of about "
        f"{_goal_mse(config):.3f}) was met in the row of step {met:.0f}: it asks for next to "
        "nothing, so beta grows from the start and squeezes the latents before there are slots.",
        "step of the first row that meets it",
        met,
        f"after the first row and {limits.goal_at_once:.0%} of the steps",
        knobs(config, goal_knob(config, limits)),
    )


def geco_goal_never_met(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """GECO's goal was never met, so that nothing ever weighed on the KL."""
    config, errors = _geco(evidence), _errors(evidence)
    goal, last = config.geco.goal, _last_update(evidence)
    best = min(error for _, error in errors)
    if best < goal or goal <= least_error(config.model.sigma_x):
        return None  # the latter is said by geco_goal_unreachable
    floor = ", its floor" if last["beta"] <= 1.01 * config.geco.beta_min else ""
    return Finding(
        "geco_goal_never_met",
        "warning",
        f"GECO's goal of {goal:g} nats per pixel and channel (a squared error of about "
        f"{_goal_mse(config):.4f}) was never met. Until it is, beta only falls (now "
        f"{last['beta']:.1e}{floor}) and nothing squeezes the KL: slots may come apart all the "
        "same, but scenes from the prior will be poor.",
        "least error in the log, nats per pixel and channel",
        best,
        f"below {goal:g}",
        knobs(
            config,
            *longer(config, _last_update(evidence)),
            goal_knob(config, limits)
            if goal < advised_goal(config.model.sigma_x, limits)
            else None,
        ),
    )


def too_few_updates(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Little can be expected yet."""
    config, step = evidence.config, int(_last_update(evidence)["step"])
    small = config.model.image_size <= 32
    least = limits.min_updates if small else limits.min_updates_large
    if step >= least:
        return None
    several = config.model.num_slots > 1
    territories = ": slots form territories first, and find objects only later" * several
    return Finding(
        "too_few_updates",
        "warning",
        f"{step:,} updates are few at {config.model.image_size} px{territories}. What else is "
        "wrong may come from it.",
        "updates",
        step,
        f"at least {least:,}",
        knobs(config, *longer(config, _last_update(evidence), least)),
    )


def still_falling(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The training ended, at the latest look, before it had done what it could."""
    config = evidence.config
    errors = _held_out(evidence, "mse")
    then = [error for at, error in errors if 3 * at <= 2 * errors[-1][0]]
    if not then:
        raise CannotTellError("no validation in the first two thirds to see a trend from")
    fall = 1 - errors[-1][1] / then[-1] if then[-1] else 0.0
    if not fall > limits.still_falling:
        return None
    faster = Knob("learning_rate", number(3 * config.learning_rate), "if time is what lacks")
    return Finding(
        "still_falling",
        "warning",
        f"The squared error on held-out images fell by {fall:.0%} over the last third of the "
        "training: it was not over.",
        "fall of the validation's squared error over the last third",
        fall,
        f"at most {limits.still_falling:g}",
        knobs(
            config,
            *longer(config, _last_update(evidence)),
            faster if config.learning_rate < 1e-3 else None,
        ),
    )


def overfitting(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """Held-out images get worse while the training's get better."""
    config = evidence.config
    held_out = _held_out(evidence, "nll")
    at, least = min(held_out, key=lambda pair: pair[1])
    rise, fall = held_out[-1][1] - least, held_out[0][1] - least
    own = [row["nll"] for row in evidence.updates if "nll" in row and row["step"] >= at]
    if not own or not own[-1] < own[0] or not rise > limits.overfit * fall:
        return None
    num_images = json.loads(config.data_options).get("num_images")
    more = None
    if num_images:
        options = json.loads(config.data_options) | {"num_images": 5 * num_images}
        more = Knob("data_options", json.dumps(options), "more images")
    return Finding(
        "overfitting",
        "warning",
        f"The nll of held-out images has risen since step {at:.0f}, while the training's kept "
        "falling. best/ may be of before; last/ is not.",
        "rise of the validation's nll as a share of its fall",
        rise / fall if fall else math.inf,
        f"at most {limits.overfit:g}",
        knobs(config, more, Knob("steps", str(int(at)), "ends where held-out images were best")),
    )


def unfinished(evidence: Evidence, limits: Thresholds) -> Finding | None:
    """The run has not come to its end."""
    config, last = evidence.config, _last_update(evidence)
    progress = last["step"] / config.steps
    if config.max_minutes is not None:
        progress = max(progress, last.get("seconds", 0.0) / (60 * config.max_minutes))
    if progress >= 1:
        return None
    return Finding(
        "unfinished",
        "note",
        f"The log ends at step {last['step']:,.0f}, {progress:.0%} of the training: it is still "
        "going on, or was stopped.",
        "progress",
        progress,
        "1",
        (Knob("resume", "", "goes on with it"),),
    )


def _last_update(evidence: Evidence) -> dict[str, float]:
    rows = [
        row
        for row in evidence.updates
        if all(math.isfinite(row.get(name, math.nan)) for name in _TERMS)
    ]
    if not rows:
        raise CannotTellError("the log has no finite row of updates (yet)")
    return rows[-1]


def _geco(evidence: Evidence) -> PretrainConfig:
    if evidence.config.objective != "geco":
        raise CannotTellError("the objective is not GECO's")
    return evidence.config


def _errors(evidence: Evidence) -> list[tuple[float, float]]:
    """Steps and errors as GECO sees them, in nats per pixel and channel."""
    values = 3 * evidence.config.model.image_size**2
    errors = [
        (row["step"], row["nll"] / values)
        for row in evidence.updates
        if math.isfinite(row.get("nll", math.nan))
    ]
    if not errors:
        raise CannotTellError("the log has no finite row of updates (yet)")
    return errors


def _held_out(evidence: Evidence, name: str) -> list[tuple[float, float]]:
    """Steps and scores of the validations."""
    scores = [(row["step"], row[name]) for row in evidence.validations if name in row]
    if len(scores) < 3:
        raise CannotTellError("fewer than three validations to see a trend in")
    return scores


def _goal_mse(config: PretrainConfig) -> float:
    """Squared error of one Gaussian that just meets the goal."""
    return float(
        2 * config.model.sigma_x**2 * (config.geco.goal - least_error(config.model.sigma_x))
    )
