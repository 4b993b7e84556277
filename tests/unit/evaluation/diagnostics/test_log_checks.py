"""Checks of logs, on hand-made rows for each finding."""

import dataclasses
import json
import math
from typing import Any

import pytest

from genesis_rl.evaluation.diagnostics import CHECKS, CheckInputs, Finding, Thresholds, run_checks
from genesis_rl.evaluation.diagnostics.findings import goal_for
from genesis_rl.models import MODELS, GenesisConfig
from genesis_rl.models.geco import GecoConfig, min_error
from genesis_rl.training import PretrainConfig

Rows = list[dict[str, float]]
STEPS = 10_000
VALUES = 3 * 32 * 32
LIMITS = Thresholds()
CONFIG = PretrainConfig(
    model=GenesisConfig(image_size=32),
    steps=STEPS,
    learning_rate=1e-3,
    geco=GecoConfig(beta_init=1e-3, beta_min=1e-3),
)


def updates(nll: list[float], **others: float) -> Rows:
    """Return rows of updates at equal distances; the errors are per pixel and channel."""
    terms = {"kl_m": 60.0, "kl_c": 40.0, "beta": 0.01, "seconds": 60.0} | others
    return [
        {"step": STEPS * (i + 1) / len(nll), "nll": value * VALUES, **terms}
        for i, value in enumerate(nll)
    ]


def validations(name: str, values: list[float]) -> Rows:
    return [{"step": STEPS * (i + 1) / len(values), name: v} for i, v in enumerate(values)]


WELL = updates([0.70, 0.60, 0.57, 0.564, 0.563, 0.563])


def found(
    name: str,
    rows: Rows | None = None,
    held_out: Rows | None = None,
    config: PretrainConfig = CONFIG,
) -> Finding | None:
    """Return the finding of one check and verify its name."""
    rows = WELL if rows is None else rows
    finding = CHECKS[name](CheckInputs(config, rows, held_out or []), LIMITS)
    assert finding is None or finding.name == name
    return finding


def settings(finding: Finding | None) -> dict[str, str]:
    assert finding is not None
    return {each.setting: each.value for each in finding.suggestions}


def test_a_good_log_passes() -> None:
    held_out = validations("mse", [0.1, 0.012, 0.011, 0.01]) + validations("nll", [9, 6, 5, 5])
    diagnosis = run_checks(CheckInputs(CONFIG, WELL, held_out))
    assert diagnosis.findings == [] and diagnosis.healthy
    assert set(diagnosis.passed) == {
        *("non_finite", "too_few_updates", "geco_goal_unreachable", "geco_goal_met_at_once"),
        *(
            "geco_goal_never_met",
            "geco_beta_diverged",
            "kl_explodes",
            "not_converged",
            "overfitting",
        ),
        "unfinished",
    }
    assert len(set(diagnosis.skipped.values())) == 1
    assert {*diagnosis.passed, *diagnosis.skipped} == set(CHECKS)
    assert str(diagnosis).endswith("\nHealthy: no findings.")


def test_an_empty_log_skips_checks() -> None:
    diagnosis = run_checks(CheckInputs(CONFIG, [], []))
    assert diagnosis.findings == []
    assert diagnosis.passed == ["non_finite", "geco_goal_unreachable"]
    assert diagnosis.skipped["kl_explodes"] == "the log has no finite row of updates"
    assert "three validations" in diagnosis.skipped["overfitting"]


# ---- one finding after the other -----------------------------------------------------------------


@pytest.mark.parametrize("term", ["nll", "kl_m", "kl_c", "beta"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_terms(term: str, value: float) -> None:
    finding = found("non_finite", [*WELL[:2], WELL[2] | {term: value}])
    assert finding is not None and finding.severity == "error"
    assert f"{term} at step 5000" in finding.message
    assert finding.value == value or math.isnan(value)
    assert json.loads(json.dumps(finding.as_json(), allow_nan=False))["value"] == str(value)
    assert float(settings(finding)["learning_rate"]) < CONFIG.learning_rate
    assert ("geco.step_size" in settings(finding)) == (term == "beta")


def test_what_is_not_finite_decides_nothing_else() -> None:
    bad = {"step": STEPS + 1.0, "nll": math.nan, "kl_m": math.inf, "kl_c": 1.0, "beta": math.nan}
    diagnosis = run_checks(CheckInputs(CONFIG, [*WELL, bad], []))
    assert [finding.name for finding in diagnosis.findings] == ["non_finite"]
    alone = run_checks(CheckInputs(CONFIG, [bad], []))
    assert [finding.name for finding in alone.findings] == ["non_finite"]
    assert "kl_explodes" in alone.skipped and "geco_goal_never_met" in alone.skipped


def test_non_finite_weights() -> None:
    finding = found("non_finite", [*WELL, {"step": 77.0, "nonfinite_weights": 3.0}])
    assert finding is not None and "3 weights at step 77" in finding.message


def test_exploding_kl() -> None:
    finding = found("kl_explodes", updates([0.6, 0.6], kl_m=1900.0, kl_c=101.0))
    assert finding is not None and finding.value == 2001 and finding.expected == "at most 2,000"
    assert settings(finding)["geco.beta_min"] == "0.01"
    assert found("kl_explodes", updates([0.6, 0.6], kl_m=1900.0, kl_c=99.0)) is None
    without = dataclasses.replace(CONFIG, objective="elbo", beta=0.02)
    dear = found("kl_explodes", updates([0.6, 0.6], kl_m=3000.0), config=without)
    assert settings(dear)["beta"] == "0.2" and "geco.beta_min" not in settings(dear)


@pytest.mark.parametrize(
    ("beta", "goal", "expected"),
    [
        (9e-7, 0.5655, {"geco.beta_min": "0.001", "geco.step_size": "1e-06"}),
        (9e-7, 0.5630, {"geco.beta_min": "0.001", "geco.goal": "0.5655"}),
        (1.1e3, 0.7, {"geco.step_size": "1e-06", "geco.goal": "0.5655"}),
        (1e-6, 0.5655, None),
        (1e3, 0.5655, None),
    ],
)
def test_runaway_beta(beta: float, goal: float, expected: dict[str, str] | None) -> None:
    config = dataclasses.replace(CONFIG, geco=GecoConfig(goal=goal))
    finding = found("geco_beta_diverged", updates([0.6, 0.6], beta=beta), config=config)
    if expected is None:
        assert finding is None
    else:
        assert finding is not None and finding.value == beta
        assert ("down" if beta < 1 else "up") in finding.message
        assert settings(finding).items() >= expected.items()


def test_unreachable_goals() -> None:
    assert min_error(0.7) == pytest.approx(0.5623, abs=1e-4)
    low = dataclasses.replace(CONFIG, geco=GecoConfig(goal=0.5622))
    finding = found("geco_goal_unreachable", config=low)
    assert finding is not None and finding.severity == "error"
    assert settings(finding) == {"geco.goal": "0.5655"}  # not the run's own sigma
    assert found("geco_goal_never_met", updates([0.6, 0.57]), config=low) is None  # reported above
    model = dataclasses.replace(CONFIG.model, sigma_x=1.2)
    wide = dataclasses.replace(CONFIG, model=model)
    assert settings(found("geco_goal_unreachable", config=wide))["model.sigma_x"] == "0.7"


def test_the_suggested_goal_keeps_the_papers_squared_error() -> None:
    assert goal_for(0.7, LIMITS) == pytest.approx(0.5655, abs=5e-5)
    for sigma in (0.1, 0.3, 1.0):
        mse = 2 * sigma**2 * (goal_for(sigma, LIMITS) - min_error(sigma))
        assert mse == pytest.approx(2 * 0.49 * (0.5655 - min_error(0.7)), rel=0.02)


def test_goals_never_met() -> None:
    finding = found("geco_goal_never_met", updates([0.6, 0.57, 0.5656], beta=1e-3))
    assert finding is not None and finding.severity == "warning"
    assert finding.value == pytest.approx(0.5656) and "its minimum" in finding.message
    assert settings(finding) == {"steps": "30000"}  # the goal is the paper's: it stays
    falling = found("geco_goal_never_met", updates([0.6, 0.57], beta=0.5))
    assert falling is not None and "minimum" not in falling.message
    assert found("geco_goal_never_met", updates([0.6, 0.5654, 0.57])) is None


def test_goals_met_at_once() -> None:
    finding = found("geco_goal_met_at_once", updates([0.565, 0.7, 0.6]))
    assert finding is not None and finding.value == pytest.approx(STEPS / 3)
    early = updates([0.9] * 99 + [0.5])
    early[1]["step"], early[1]["nll"] = 100, 0.5 * VALUES
    early[0]["step"] = 50
    assert found("geco_goal_met_at_once", early) is not None
    early[1]["step"] = 101  # after 1 % of the steps
    assert found("geco_goal_met_at_once", early) is None
    assert found("geco_goal_met_at_once", updates([0.7, 0.565, 0.6])) is None
    sharp = dataclasses.replace(CONFIG.model, sigma_x=0.3)
    loose = found(
        "geco_goal_met_at_once",
        updates([0.3, 0.1]),
        config=dataclasses.replace(CONFIG, model=sharp),
    )
    assert settings(loose) == {"geco.goal": "-0.2676"}


@pytest.mark.parametrize("name", [name for name in CHECKS if name.startswith("geco_")])
def test_the_elbo_has_no_goal(name: str) -> None:
    config = dataclasses.replace(CONFIG, objective="elbo")
    assert run_checks(CheckInputs(config, WELL, [])).skipped[name] == "the objective is not GECO's"


ATTENTION: dict[str, Any] = {"background": "static", "posterior": "attention"}


@pytest.mark.parametrize(
    ("side", "options", "least"),
    [(32, {}, 2_000), (64, {}, 20_000), (128, {}, 20_000), (64, ATTENTION, 2_000)],
)
def test_few_updates(side: int, options: dict[str, Any], least: int) -> None:
    model = GenesisConfig(image_size=side, **options)
    for step, few in ((least - 1, True), (least, False)):
        config = dataclasses.replace(CONFIG, model=model, steps=least + 5)
        finding = found("too_few_updates", [WELL[0] | {"step": step}], config=config)
        assert (finding is not None) == few
        if finding:
            assert finding.value == step
            assert settings(finding) == {"steps": str(max(least, 3 * step))}
            assert "regions" in finding.message
    vae = dataclasses.replace(CONFIG, model=MODELS["bd_vae"][0](image_size=side))
    finding = found("too_few_updates", [WELL[0] | {"step": 5}], config=vae)
    assert finding is not None and "regions" not in finding.message


def test_minutes_are_suggested_where_the_time_limit_ended_the_run() -> None:
    timed = dataclasses.replace(CONFIG, max_minutes=6.0, steps=1_000)
    finding = found("too_few_updates", [WELL[0] | {"step": 500}], config=timed)
    assert settings(finding) == {"max_minutes": "24", "steps": "2000"}
    ended = found("too_few_updates", [WELL[0] | {"step": 1_000}], config=timed)
    assert settings(ended) == {"steps": "3000"}


def test_errors_that_still_fall() -> None:
    finding = found("not_converged", held_out=validations("mse", [0.2, 0.1, 0.0799]))
    assert finding is not None and finding.value == pytest.approx(0.201)
    assert settings(finding) == {"steps": "30000"}
    assert found("not_converged", held_out=validations("mse", [0.2, 0.1, 0.081])) is None
    slow = dataclasses.replace(CONFIG, learning_rate=1e-4)
    finding = found("not_converged", held_out=validations("mse", [3, 2, 1]), config=slow)
    assert settings(finding)["learning_rate"] == "0.0003"
    late = [{"step": step, "mse": 1.0} for step in (9.0, 9.5, 10.0)]
    skipped = run_checks(CheckInputs(CONFIG, WELL, late)).skipped
    assert "first two thirds" in skipped["not_converged"]


def test_overfitting() -> None:
    held_out = validations("nll", [100.0, 20.0, 15.0, 10.0, 15.0, 19.1])
    config = dataclasses.replace(CONFIG, data_options='{"num_images": 70}')
    finding = found("overfitting", held_out=held_out, config=config)
    assert finding is not None and finding.value == pytest.approx(9.1 / 90)
    assert f"since step {4 * STEPS / 6:.0f}" in finding.message
    assert json.loads(settings(finding)["data_options"]) == {"num_images": 350}
    assert settings(finding)["steps"] == str(4 * STEPS // 6)
    assert "data_options" not in settings(found("overfitting", held_out=held_out))
    mild = [*held_out[:-1], held_out[-1] | {"nll": 18.9}]
    assert found("overfitting", held_out=mild) is None
    rising = updates([0.7, 0.6, 0.58, 0.57, 0.575, 0.58])  # possible under GECO
    assert found("overfitting", rising, held_out=held_out) is None


def test_unfinished_runs() -> None:
    finding = found("unfinished", WELL[:3])
    assert finding is not None and finding.severity == "note" and finding.value == 0.5
    assert finding.suggestions[0].flags == ["--resume"]
    timed = dataclasses.replace(CONFIG, max_minutes=2.0, steps=100 * STEPS)
    finding = found("unfinished", updates([0.6], seconds=90.0), config=timed)
    assert finding is not None and finding.value == 0.75
    assert found("unfinished", updates([0.6], seconds=121.0), config=timed) is None
