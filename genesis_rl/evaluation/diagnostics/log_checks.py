"""Checks of a run's log."""

import json
import math

from genesis_rl.evaluation.diagnostics.findings import (
    CheckSkippedError,
    Finding,
    Suggestion,
    Thresholds,
    applicable,
    goal_for,
    higher_beta_min,
    longer,
    number,
    paper_goal,
)
from genesis_rl.evaluation.diagnostics.model_statistics import CheckInputs
from genesis_rl.models import GenesisSConfig
from genesis_rl.models.geco import min_error
from genesis_rl.training import PretrainConfig

_TERMS = ("nll", "kl_m", "kl_c", "beta")


def non_finite(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that loss terms, weights and the model's outputs are finite."""
    config, where, value = inputs.config, "", math.nan
    for row in inputs.updates:
        bad = [name for name in _TERMS if not math.isfinite(row.get(name, 0.0))]
        if bad:
            where, value = f"{bad[0]} at step {row['step']:.0f}", row[bad[0]]
        elif row.get("nonfinite_weights"):
            where = f"{row['nonfinite_weights']:.0f} weights at step {row['step']:.0f}"
    if not where and inputs.statistics is not None and not inputs.statistics.finite:
        where = "the model's weights or outputs on held-out images"
    if not where:
        return None
    return Finding(
        "non_finite",
        "error",
        f"Not finite: {where}. The training stopped there; last/, if present, is older.",
        "first non-finite value",
        value,
        "finite values",
        applicable(
            config,
            Suggestion("geco.step_size", number(config.geco.step_size / 10), "slows beta down")
            if where.startswith("beta")
            else None,
            Suggestion(
                "learning_rate", number(min(config.learning_rate / 3, 1e-3)), "smaller steps"
            ),
            Suggestion("clip_norm", "5", "clips large gradients"),
            Suggestion("model.posterior_sigma_min", "0.01", "bounds the density of latents"),
            higher_beta_min(config),
            Suggestion("precision", "fp32", "avoids half precision"),
        ),
    )


def kl_explodes(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the KL of an image is bounded."""
    config, last = inputs.config, _last_update(inputs)
    kl = last["kl_m"] + last["kl_c"]
    if not kl > thresholds.max_kl:
        return None
    return Finding(
        "kl_explodes",
        "error",
        f"The KL of an image is {kl:,.0f} nats (mask {last['kl_m']:,.0f}, component "
        f"{last['kl_c']:,.0f}) at beta {last['beta']:.1e}: the posterior is not regularised, slots "
        "share objects, and the prior does not match the posterior.",
        "KL per image in nats, last row",
        kl,
        f"at most {thresholds.max_kl:,.0f}",
        applicable(
            config,
            higher_beta_min(config),
            Suggestion("beta", number(10 * config.beta), "weights the KL more"),
            Suggestion("model.posterior_sigma_min", "0.01", "bounds the KL of a latent"),
        ),
    )


def geco_beta_diverged(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that GECO's beta is in its effective range."""
    config, last = _geco(inputs), _last_update(inputs)
    beta, goal = last["beta"], config.geco.goal
    if thresholds.beta_low <= beta <= thresholds.beta_high:
        return None
    low, suggested = beta < thresholds.beta_low, goal_for(config.model.sigma_x, thresholds)
    reason = (
        "the goal was not met for a long time, and the KL has no weight left."
        if low
        else "the goal is met too easily, and the KL outweighs the reconstruction."
    )
    return Finding(
        "geco_beta_diverged",
        "error",
        f"GECO's beta went {'down' if low else 'up'} to {beta:.1e}: {reason}",
        "beta, last row",
        beta,
        f"{thresholds.beta_low:g} to {thresholds.beta_high:g}",
        applicable(
            config,
            higher_beta_min(config) if low else None,
            paper_goal(config, thresholds) if low == (goal < suggested) else None,
            Suggestion("geco.step_size", number(config.geco.step_size / 10), "slows beta down"),
        ),
    )


def geco_goal_unreachable(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that GECO's goal is above the error of a perfect reconstruction."""
    config = _geco(inputs)
    goal, least = config.geco.goal, min_error(config.model.sigma_x)
    if goal > least:
        return None
    return Finding(
        "geco_goal_unreachable",
        "error",
        f"No reconstruction can meet GECO's goal of {goal:g} nats per pixel and channel: with "
        f"sigma_x {config.model.sigma_x:g} a perfect one has {least:.4f}. Beta only decreases.",
        "geco.goal",
        goal,
        f"above {least:.4f}",
        applicable(
            config,
            paper_goal(config, thresholds),
            Suggestion("model.sigma_x", "0.7", "the paper's value, for a goal of 0.5655"),
        ),
    )


def geco_goal_met_at_once(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that GECO's goal is not met from the start."""
    config, errors = _geco(inputs), _errors(inputs)
    goal = config.geco.goal
    first_step = next((step for step, error in errors if error < goal), math.inf)
    if first_step > max(thresholds.early_goal_fraction * config.steps, errors[0][0]):
        return None
    return Finding(
        "geco_goal_met_at_once",
        "warning",
        f"GECO's goal of {goal:g} nats per pixel and channel (a squared error of about "
        f"{config.geco.goal_mse(config.model.sigma_x):.3f}) was met at step {first_step:.0f}. Beta "
        "then grows from the start and collapses the latents before slots form.",
        "step of the first row that meets the goal",
        first_step,
        f"after the first row and {thresholds.early_goal_fraction:.0%} of the steps",
        applicable(config, paper_goal(config, thresholds)),
    )


def geco_goal_never_met(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that GECO's goal was met at some step."""
    config, errors = _geco(inputs), _errors(inputs)
    goal, last = config.geco.goal, _last_update(inputs)
    best = min(error for _, error in errors)
    if best < goal or goal <= min_error(config.model.sigma_x):
        return None  # the latter is reported by geco_goal_unreachable
    floor = ", its minimum" if last["beta"] <= 1.01 * config.geco.beta_min else ""
    return Finding(
        "geco_goal_never_met",
        "warning",
        f"GECO's goal of {goal:g} nats per pixel and channel (a squared error of about "
        f"{config.geco.goal_mse(config.model.sigma_x):.4f}) was never met. Beta decreases until it "
        f"is (now {last['beta']:.1e}{floor}) and the KL is not regularised: objects may be "
        "separated, but samples of the prior will be poor.",
        "smallest error in the log, nats per pixel and channel",
        best,
        f"below {goal:g}",
        applicable(
            config,
            *longer(config, _last_update(inputs)),
            paper_goal(config, thresholds)
            if goal < goal_for(config.model.sigma_x, thresholds)
            else None,
        ),
    )


def too_few_updates(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the run has enough updates for its image size."""
    config, step = inputs.config, int(_last_update(inputs)["step"])
    # The slots of an attention posterior start on objects, at any size.
    attends = isinstance(config.model, GenesisSConfig) and config.model.posterior == "attention"
    small = config.model.image_size <= 32 or attends
    least = thresholds.min_updates if small else thresholds.min_updates_large
    if step >= least:
        return None
    several = config.model.num_slots > 1
    regions = ": slots divide the image into regions first and separate objects later" * several
    return Finding(
        "too_few_updates",
        "warning",
        f"{step:,} updates are few at {config.model.image_size} px{regions}. Other findings may "
        "be consequences.",
        "updates",
        step,
        f"at least {least:,}",
        applicable(config, *longer(config, _last_update(inputs), least)),
    )


def not_converged(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the validation error had converged at the end of the log."""
    config = inputs.config
    errors = _held_out(inputs, "mse")
    earlier = [error for at, error in errors if 3 * at <= 2 * errors[-1][0]]
    if not earlier:
        raise CheckSkippedError("no validation in the first two thirds of the log")
    decrease = 1 - errors[-1][1] / earlier[-1] if earlier[-1] else 0.0
    if not decrease > thresholds.max_late_decrease:
        return None
    faster = Suggestion("learning_rate", number(3 * config.learning_rate), "if time is limited")
    return Finding(
        "not_converged",
        "warning",
        f"The squared error on held-out images decreased by {decrease:.0%} over the last third of "
        "the training.",
        "relative decrease of the validation's squared error over the last third",
        decrease,
        f"at most {thresholds.max_late_decrease:g}",
        applicable(
            config,
            *longer(config, _last_update(inputs)),
            faster if config.learning_rate < 1e-3 else None,
        ),
    )


def overfitting(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the validation's nll does not increase while the training's decreases."""
    config = inputs.config
    held_out = _held_out(inputs, "nll")
    at, least = min(held_out, key=lambda pair: pair[1])
    rise, fall = held_out[-1][1] - least, held_out[0][1] - least
    train_nll = [row["nll"] for row in inputs.updates if "nll" in row and row["step"] >= at]
    if (
        not train_nll
        or not train_nll[-1] < train_nll[0]
        or not rise > thresholds.max_overfit * fall
    ):
        return None
    num_images = json.loads(config.data_options).get("num_images")
    more = None
    if num_images:
        options = json.loads(config.data_options) | {"num_images": 5 * num_images}
        more = Suggestion("data_options", json.dumps(options), "more images")
    return Finding(
        "overfitting",
        "warning",
        f"The nll of held-out images has increased since step {at:.0f}, while the training's kept "
        "decreasing. best/ may be from before the increase; last/ is not.",
        "increase of the validation's nll relative to its decrease",
        rise / fall if fall else math.inf,
        f"at most {thresholds.max_overfit:g}",
        applicable(config, more, Suggestion("steps", str(int(at)), "ends at the smallest nll")),
    )


def unfinished(inputs: CheckInputs, thresholds: Thresholds) -> Finding | None:
    """Check that the run is complete."""
    config, last = inputs.config, _last_update(inputs)
    progress = last["step"] / config.steps
    if config.max_minutes is not None:
        progress = max(progress, last.get("seconds", 0.0) / (60 * config.max_minutes))
    if progress >= 1:
        return None
    return Finding(
        "unfinished",
        "note",
        f"The log ends at step {last['step']:,.0f}, {progress:.0%} of the training: the run is in "
        "progress or was stopped.",
        "progress",
        progress,
        "1",
        (Suggestion("resume", "", "continues the run"),),
    )


def _last_update(inputs: CheckInputs) -> dict[str, float]:
    rows = [
        row
        for row in inputs.updates
        if all(math.isfinite(row.get(name, math.nan)) for name in _TERMS)
    ]
    if not rows:
        raise CheckSkippedError("the log has no finite row of updates")
    return rows[-1]


def _geco(inputs: CheckInputs) -> PretrainConfig:
    if inputs.config.objective != "geco":
        raise CheckSkippedError("the objective is not GECO's")
    return inputs.config


def _errors(inputs: CheckInputs) -> list[tuple[float, float]]:
    """Return steps and reconstruction errors in GECO's unit, nats per pixel and channel."""
    values = 3 * inputs.config.model.image_size**2
    errors = [
        (row["step"], row["nll"] / values)
        for row in inputs.updates
        if math.isfinite(row.get("nll", math.nan))
    ]
    if not errors:
        raise CheckSkippedError("the log has no finite row of updates")
    return errors


def _held_out(inputs: CheckInputs, name: str) -> list[tuple[float, float]]:
    """Return steps and scores of the validations."""
    scores = [(row["step"], row[name]) for row in inputs.validations if name in row]
    if len(scores) < 3:
        raise CheckSkippedError("the log has fewer than three validations")
    return scores
