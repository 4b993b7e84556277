"""Fit of the prior to the posteriors of a trained model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from genesis_rl.data.feed import ImageFeed
from genesis_rl.data.pack import Pack
from genesis_rl.models import build_model
from genesis_rl.training import PretrainConfig, Trainer, pretraining
from genesis_rl.training.prior import fit_prior, infer_posteriors, with_new_prior
from genesis_rl.training.validate import validate
from genesis_rl.utils.files import read_json

CPU = torch.device("cpu")


@pytest.fixture
def objects(small_config: Callable[..., Any]) -> Any:
    return small_config(
        compact=True,
        background="static",
        posterior="attention",
        mask_decoder="local",
        component_decoder="flat",
        mask_latent_size=8,
        component_latent_size=4,
        prior_components=2,
    )


@pytest.fixture
def run(config: PretrainConfig, objects: Any, tmp_path: Path) -> PretrainConfig:
    return dataclasses.replace(
        config,
        model=objects,
        objective="elbo",
        trained_modules="objects",
        steps=4,
        prior_steps=30,
        out=tmp_path / "run",
    )


def _slots(model: Any, pack: Pack) -> Any:
    with torch.no_grad():
        return model.infer(ImageFeed(pack, CPU)(torch.arange(4)))


def test_only_the_prior_changes_and_its_kl_decreases(objects: Any, pack: Pack) -> None:
    torch.manual_seed(0)
    model = build_model(objects).eval()
    feed = ImageFeed(pack, CPU)
    model.fit_background(feed(torch.arange(len(pack))))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    slots, scores = _slots(model, pack), validate(model, pack, 9)
    posteriors = infer_posteriors(model, feed)
    assert posteriors.q_m.mu.shape == (9, objects.num_slots, 8)
    assert fit_prior(model, posteriors, 60)

    after = {name for name, w in model.state_dict().items() if not torch.equal(w, before[name])}
    parts = {name.split(".")[0] for name in after}
    assert parts == {"prior_lstm", "prior_head", "component_prior"}
    assert all(p.grad is None for p in model.parameters())
    fitted = validate(model, pack, 9)
    assert fitted["nll"] == scores["nll"] and fitted["msc"] == scores["msc"]
    assert fitted["kl_m"] < scores["kl_m"] - 1 and fitted["kl_c"] < scores["kl_c"] - 1
    torch.testing.assert_close(_slots(model, pack).z_m, slots.z_m, rtol=0, atol=0)


def test_fits_are_reproducible_and_stop(objects: Any, pack: Pack) -> None:
    torch.manual_seed(0)
    first, second = build_model(objects), build_model(objects)
    second.load_state_dict(first.state_dict())
    posteriors = infer_posteriors(first, ImageFeed(pack, CPU), seed=3)
    fit_prior(first, posteriors, 5, seed=3)
    fit_prior(second, posteriors, 5, seed=3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    answers = iter([False, False, True])
    assert not fit_prior(first, posteriors, 5, stopped=lambda: next(answers))


def test_an_independent_prior_ignores_the_other_slots(objects: Any, pack: Pack) -> None:
    torch.manual_seed(0)
    model = build_model(objects).eval()
    other = with_new_prior(model, prior="independent")
    assert model.config.prior == "autoregressive" and other.config.prior == "independent"
    z_m = torch.randn(1, objects.num_slots, 8)
    changed = z_m.clone()
    changed[:, 1] += 1
    scene_model: Any
    for scene_model, same in ((model, False), (other, True)):
        with torch.no_grad():
            p, q = (scene_model._priors(z)[0] for z in (z_m, changed))
        assert torch.equal(p.mu[:, 2:], q.mu[:, 2:]) == same
    assert torch.equal(_slots(model, pack).z_m, _slots(other, pack).z_m)


def test_a_flow_is_fitted_to_the_background_too(objects: Any, pack: Pack) -> None:
    torch.manual_seed(0)
    old = build_model(dataclasses.replace(objects, background="predicted"))
    model = with_new_prior(old, prior_flow_layers=2)
    posteriors = infer_posteriors(model, ImageFeed(pack, CPU))
    posteriors.q_m.mu[:, 0] += 3
    posteriors.q_c.mu[:, 0] += 3
    fit_prior(model, posteriors, 60)
    with torch.no_grad():
        before, after = (
            each.sample(64, generator=torch.Generator().manual_seed(1)).features[:, 0]
            for each in (old, model)
        )
    assert ((after - before).mean(0) > 0.02).all()
    changed = {
        name.split(".")[0]
        for name, weight in old.state_dict().items()
        if not torch.equal(weight, model.state_dict()[name])
    }
    assert changed == {"prior_lstm", "prior_head", "component_prior"}


def test_training_ends_with_the_fit_of_the_best_model(
    run: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Trainer(run).run()
    assert read_json(run.out / "best" / "config.json")["prior_steps"] == 30
    best, last = (load_file(run.out / name / "model.safetensors") for name in ("best", "last"))
    changed = {n.split(".")[0] for n, weight in best.items() if not torch.equal(weight, last[n])}
    assert changed == {"prior_lstm", "prior_head", "component_prior"}
    plain = Trainer(dataclasses.replace(run, prior_steps=0, out=run.out.with_name("plain"))).run()
    assert scores["kl_m"] < plain["kl_m"] and scores["nll"] == plain["nll"]

    def never(*args: Any, **options: Any) -> bool:
        raise AssertionError("the fit is complete")

    monkeypatch.setattr(pretraining, "fit_prior", never)
    Trainer(dataclasses.replace(run, resume=True)).run()


def test_a_fit_that_was_stopped_is_made_on_resumption(
    run: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "fit_prior", lambda *args, **options: False)
    Trainer(run).run()
    assert "prior_steps" not in read_json(run.out / "best" / "config.json")
    monkeypatch.undo()
    Trainer(dataclasses.replace(run, resume=True)).run()
    assert read_json(run.out / "best" / "config.json")["prior_steps"] == 30


def test_a_trained_run_can_be_fitted_later(run: PretrainConfig) -> None:
    Trainer(dataclasses.replace(run, prior_steps=0)).run()
    Trainer(dataclasses.replace(run, resume=True)).run()
    assert read_json(run.out / "best" / "config.json")["prior_steps"] == 30


def test_other_posteriors_are_refused(config: PretrainConfig) -> None:
    with pytest.raises(ValueError, match="prior_steps must be 0 without"):
        dataclasses.replace(config, prior_steps=5)
    with pytest.raises(ValueError, match="prior_steps must be at least 0"):
        dataclasses.replace(config, prior_steps=-1)
