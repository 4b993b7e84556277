"""Probe networks: training, scores, independence of the targets."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from genesis_rl.evaluation.probes.heads import (
    MlpConfig,
    ProbeTarget,
    fit_linear,
    fit_mlps,
    standardise,
    wilson,
)

CPU = torch.device("cpu")
QUICK = MlpConfig(hidden=32, epochs=40, batch_size=32, learning_rate=1e-2)
SIZES = {"train": 256, "validation": 128, "test": 200}


def features(width: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {split: torch.randn(n, width, generator=generator) for split, n in SIZES.items()}


def xor(x: dict[str, Tensor]) -> ProbeTarget:
    values = {split: ((v[:, 0] > 0) ^ (v[:, 1] > 0)).long() for split, v in x.items()}
    return ProbeTarget("xor", values, (0, 1))


def line(x: dict[str, Tensor]) -> ProbeTarget:
    weights = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    return ProbeTarget("line", standardise({split: v @ weights for split, v in x.items()}))


def noise(x: dict[str, Tensor]) -> ProbeTarget:
    generator = torch.Generator().manual_seed(2)
    values = {s: torch.randint(4, (len(v),), generator=generator) for s, v in x.items()}
    return ProbeTarget("noise", values, (2, 3, 4, 5))


def test_all_targets_are_learned_in_one_training() -> None:
    x = features()
    fits = fit_mlps(x, [xor(x), line(x), noise(x)], QUICK, seed=0, device=CPU)
    assert fits["xor"].score > 0.9  # which no linear probe does
    assert fits["line"].score > 0.95
    assert fits["noise"].score < 0.4
    assert {fit.epoch for fit in fits.values()} == {QUICK.epochs}
    linear = fit_linear(x, [xor(x), line(x), noise(x)], ridge=1e-3)
    assert linear["line"] == pytest.approx(1, abs=1e-6)
    assert linear["xor"] < 0.65


def test_a_target_does_not_change_the_predictions_of_another() -> None:
    x = features()
    other = noise(x)
    shuffled = ProbeTarget("noise", {s: v.flip(0) for s, v in other.values.items()}, other.classes)
    config = MlpConfig(hidden=16, epochs=3, batch_size=32, learning_rate=1e-2)
    scores = [
        fit_mlps(x, [line(x), beside], config, seed=3, device=CPU) for beside in (other, shuffled)
    ]
    assert scores[0]["line"] == scores[1]["line"]
    assert scores[0]["noise"] != scores[1]["noise"]


def test_the_seed_decides_everything() -> None:
    x = features()
    before = torch.random.get_rng_state()
    config = MlpConfig(hidden=16, epochs=2, batch_size=32, learning_rate=1e-2)
    first, again, other = (
        fit_mlps(x, [line(x)], config, seed=seed, device=CPU)["line"].score for seed in (0, 0, 1)
    )
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_best_epoch_is_selected_by_validation_for_each_target() -> None:
    x = features()
    true = xor(x)
    # What training teaches is wrong on this validation split: the less of it, the better.
    wrong = ProbeTarget(
        "wrong", {**true.values, "validation": 1 - true.values["validation"]}, (0, 1)
    )
    config = MlpConfig(hidden=32, epochs=30, batch_size=32, learning_rate=1e-2, epoch="best")
    best = fit_mlps(x, [true, wrong], config, seed=0, device=CPU)
    assert best["wrong"].epoch < 5 < best["xor"].epoch
    assert best["wrong"].score < 0.7 < 0.9 < best["xor"].score
    for target in (true, wrong):
        fit = best[target.name]
        shorter = replace(config, epochs=fit.epoch, epoch="last")
        assert fit_mlps(x, [true, wrong], shorter, seed=0, device=CPU)[target.name] == fit


def test_a_diverging_training_raises() -> None:
    x = features()
    with pytest.raises(ValueError, match="learning_rate"):
        fit_mlps(
            x, [line(x)], MlpConfig(epochs=3, learning_rate=1e30), seed=0, device=CPU, name="mine"
        )


def test_scores_by_hand() -> None:
    train = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    values = ProbeTarget("v", {"train": train, "test": torch.tensor([[0.0, 5.0], [4.0, 5.0]])})
    # Residuals 1 and 1 against deviations 2 and 2; the column that never varies counts nothing.
    assert values.score(torch.tensor([[1.0, 0.0], [3.0, 9.0]]), "test") == 1 - 2 / 8
    assert values.baseline_score() == 1 - (1 + 9) / 8  # the training mean, 1
    classes = ProbeTarget(
        "c", {"train": torch.tensor([0, 1, 1]), "test": torch.tensor([1, 0, 0, 1])}, ("a", "b")
    )
    assert classes.score(torch.tensor([[0.0, 1], [0, 1], [1, 0], [0, 1]]), "test") == 0.75
    assert classes.baseline_score() == 0.5
    assert (classes.outputs, values.outputs) == (2, 2)


def test_ridge_is_least_squares_where_it_weighs_nothing_and_the_mean_where_all() -> None:
    x, rng = features(3), np.random.default_rng(0)
    values = {s: torch.from_numpy(rng.normal(size=(n, 2))).float() for s, n in SIZES.items()}
    target = ProbeTarget("v", standardise(values))
    design = {s: np.c_[v.numpy(), np.ones(len(v))] for s, v in x.items()}
    solved = np.linalg.lstsq(design["train"], target.values["train"].numpy(), rcond=None)[0]
    expected = target.score(torch.from_numpy(design["test"] @ solved), "test")
    assert fit_linear(x, [target], 1e-9)["v"] == pytest.approx(expected, abs=1e-6)
    assert fit_linear(x, [target], 1e12)["v"] == pytest.approx(target.baseline_score(), abs=1e-6)


def test_linear_probes_survive_a_feature_that_is_rare_in_training() -> None:
    x = features()
    target = line(x)
    rare = {name: torch.cat([v, torch.zeros(len(v), 1)], 1) for name, v in x.items()}
    rare["train"][:3, 4], rare["test"][:20, 4] = 0.01, 1.0
    target.values["train"][:3] += 0.5
    assert fit_linear(rare, [target], 1.0)[target.name] > 0.9


def test_a_column_that_does_not_vary_stays() -> None:
    values = {"train": torch.tensor([[1.0, 7.0], [3.0, 7.0]]), "test": torch.tensor([[5.0, 7.0]])}
    assert standardise(values)["test"].tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (6400, 10_000), (50, 50)])
def test_wilson_is_scipys(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, r"^hidden "),
        ({"epochs": -1}, r"^epochs "),
        ({"learning_rate": math.nan}, r"^learning_rate "),
        ({"epoch": "first"}, r"^epoch "),
    ],
)
def test_bad_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MlpConfig(**options)  # type: ignore[arg-type]
