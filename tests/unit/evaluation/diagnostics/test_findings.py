"""Findings of prescribed statistics, their report, and the suggested flags."""

import dataclasses
import functools
import math
from typing import Any

import pytest
import tyro

from genesis_rl.evaluation.diagnostics import (
    CHECKS,
    CheckInputs,
    Diagnosis,
    Finding,
    ModelStatistics,
    Suggestion,
    Thresholds,
    run_checks,
)
from genesis_rl.models import MODELS, GenesisConfig
from genesis_rl.models.geco import GecoConfig
from genesis_rl.training import PretrainConfig
from genesis_rl.training.presets import PRESETS

VALUES = 3 * 32 * 32
CONFIG = PretrainConfig(model=GenesisConfig(image_size=32))
ROW = {"kl_m": 9e9, "kl_c": 1.0, "seconds": 60.0}
BAD = ModelStatistics(
    num_images=2,
    finite=True,
    latent_sizes=(7, 3),
    num_slots=5,
    mse=1.0,
    mse_refined=0.5,
    mse_mean_image=0.1,
    mse_flat=0.1,
    active_slots=1.6,
    dead_slots=3,
    mask_entropy=0.9,
    background_share=0.5,
    background_masks=True,
    num_segments=4.0,
    lost=0.4,
    lost_drawn=0.3,
    taken_drawn=0.3,
    same_colour_shared=0.8,
    other_colour_shared=0.2,
    kl_m=0.1,
    kl_c=0.1,
    variance_m=0.0,
    variance_c=0.5,
    msc=0.1,
    msc_baselines={"one_slot": 0.05, "fixed_grid": 0.2, "colour_palette": 0.7},
)
GOOD = dataclasses.replace(
    BAD,
    mse=0.001,
    mse_refined=0.0009,
    active_slots=4.0,
    dead_slots=0,
    mask_entropy=0.1,
    background_share=0.9,
    lost=0.0,
    lost_drawn=0.0,
    taken_drawn=0.0,
    same_colour_shared=0.0,
    other_colour_shared=0.0,
    kl_m=20.0,
    kl_c=10.0,
    variance_m=0.5,
    msc=0.8,
)


def found(name: str, **stats: Any) -> Any:
    """Return the finding of one check for good statistics with changes and verify its name."""
    seen = dataclasses.replace(GOOD, **stats)
    finding = CHECKS[name](CheckInputs(CONFIG, [], [], seen), Thresholds())
    assert finding is None or (isinstance(finding, Finding) and finding.name == name)
    return finding


# ---- slots and latents ---------------------------------------------------------------------------


def test_good_statistics_pass() -> None:
    assert run_checks(CheckInputs(CONFIG, [], [], GOOD)).findings == []


@pytest.mark.parametrize(
    ("dead", "segments", "severity"),
    [(0, 5.0, None), (1, 4.0, "note"), (1, 4.1, "warning"), (2, math.nan, "note")],
)
def test_slots_that_are_never_used(dead: int, segments: float, severity: str | None) -> None:
    finding = found("dead_slots", dead_slots=dead, num_segments=segments)
    assert (finding and finding.severity) == severity
    if finding:
        assert finding.value == dead and ("too few" in finding.message) == (severity == "warning")
        flags = {each.setting: each.value for each in finding.suggestions}
        assert flags.get("model.num_slots") == (str(5 - dead) if severity == "note" else None)
    # With one slot for everything the others are dead: only one_slot reports it.
    assert found("dead_slots", dead_slots=4, num_segments=segments, active_slots=1.4) is None


@pytest.mark.parametrize(("kind", "letter"), [("mask", "m"), ("component", "c")])
def test_collapsed_posteriors(kind: str, letter: str) -> None:
    name = f"{kind}_posterior_collapse"
    silent = found(name, **{f"kl_{letter}": 0.99})
    assert silent.severity == "error" and (silent.value, silent.expected) == (0.99, "at least 1")
    constant = found(name, **{f"variance_{letter}": 0.0099})
    assert (constant.value, constant.expected) == (0.0099, "at least 0.01")
    assert found(name, **{f"kl_{letter}": 1.0, f"variance_{letter}": 0.01}) is None
    other = f"{'mask' if letter == 'c' else 'component'}_posterior_collapse"
    assert found(other, **{f"kl_{letter}": 0.0, f"variance_{letter}": 0.0}) is None
    without = dataclasses.replace(GOOD, latent_sizes=(0, 4) if letter == "m" else (4, 0))
    skipped = run_checks(CheckInputs(CONFIG, [], [], without)).skipped
    assert skipped[name] == f"the model has no {kind} latents"


def test_amortisation_gaps() -> None:
    assert found("amortisation_gap", mse=0.01, mse_refined=0.0081) is None
    finding = found("amortisation_gap", mse=0.01, mse_refined=0.0075)
    assert finding.severity == "note" and "25%" in finding.message
    assert finding.value == pytest.approx(0.25) and finding.expected == "at most 0.2"
    # The paper's minimum of sigma is close to 0 already.
    assert [each.setting for each in finding.suggestions] == ["steps"]
    noisy = dataclasses.replace(
        CONFIG, model=dataclasses.replace(CONFIG.model, posterior_sigma_min=0.2)
    )
    stats = dataclasses.replace(GOOD, mse_refined=0.0005)
    finding = CHECKS["amortisation_gap"](CheckInputs(noisy, [], [], stats), Thresholds())
    assert finding and finding.suggestions[0].flags == ["--model.posterior-sigma-min", "0.05"]
    skipped = run_checks(
        CheckInputs(CONFIG, [], [], dataclasses.replace(GOOD, mse_refined=math.nan))
    ).skipped
    assert skipped["amortisation_gap"] == "the model's latents cannot be refined"


# ---- report --------------------------------------------------------------------------------------


def test_notes_leave_a_run_healthy() -> None:
    def finding(severity: Any) -> Finding:
        each = Suggestion("geco.beta_min", "0.1", "because")
        return Finding("name", severity, "What it is.", "a share", 0.25, "at most 0.1", (each,))

    well = Diagnosis([finding("note")], ["one"], {"two": "no masks", "three": "no masks"}, "a run")
    assert well.healthy and well.as_json()["healthy"] is True
    assert str(well).splitlines() == [
        "a run",
        "",
        "note     name: What it is.",
        "           a share: 0.25, expected at most 0.1",
        "           try --geco.beta-min 0.1  (because)",
        "",
        "passed   one",
        "skipped  no masks: two, three",
        "",
        "Healthy: 1 note.",
    ]
    for severity in ("warning", "error"):
        ill = Diagnosis([finding(severity), finding("note")], [], {})
        assert not ill.healthy
        assert str(ill).endswith(f"Not healthy: 1 {severity}, 1 note.")
        assert "first finding" in str(ill)


def test_thresholds_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^max_kl .*-1"):
        Thresholds(max_kl=-1)
    with pytest.raises(ValueError, match=r"^min_kl "):
        Thresholds(min_kl=math.nan)


def get(config: PretrainConfig, setting: str) -> Any:
    return functools.reduce(getattr, setting.split("."), config)


@pytest.mark.parametrize("objective", ["geco", "elbo"])
@pytest.mark.parametrize("name", MODELS)
def test_suggestions_are_flags_of_the_training(name: str, objective: Any) -> None:
    """Every suggestion of every finding is a flag for the run's own model and changes it."""
    model = MODELS[name][0](image_size=32)
    geco = GecoConfig(goal=0.7, beta_min=2e-3)
    config = PretrainConfig(
        model=model, steps=10, objective=objective, geco=geco, data_options='{"num_images": 9}'
    )
    held_out = [{"step": s, "mse": 4 - s, "nll": abs(s - 2)} for s in (1.0, 2.0, 3.0)]
    names: set[str] = set()
    values: dict[str, Suggestion] = {}
    for active in (1.6, 1.0):
        stats = dataclasses.replace(BAD, num_slots=config.model.num_slots, active_slots=active)
        for nll, beta in ((0.58, 1e-9), (0.58, 1e9), (math.nan, 1.0)):
            rows = [
                ROW | {"step": s, "nll": n * VALUES, "beta": beta}
                for s, n in ((4.0, 0.9), (9.0, 0.6), (10.0, nll))
            ]
            for finding in run_checks(CheckInputs(config, rows, held_out, stats)).findings:
                names.add(finding.name)
                values |= {each.setting: each for each in finding.suggestions}
    assert len(names) > 6 and len(values) > 4
    assert values.pop("preset").value in PRESETS  # a flag of the program itself
    changed = tyro.cli(
        tyro.conf.AvoidSubcommands[PretrainConfig],
        default=config,
        args=[flag for each in values.values() for flag in each.flags],
    )
    for setting in values:
        assert get(changed, setting) != get(config, setting), setting
