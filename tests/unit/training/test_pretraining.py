"""Pretraining: loss, schedules, whole runs."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from genesis_rl.data.pack import Pack
from genesis_rl.models import BdVaeConfig, Genesis, GenesisConfig
from genesis_rl.models.geco import GecoConfig, min_error
from genesis_rl.slots import ElboTerms
from genesis_rl.training import PretrainConfig, Trainer, train_terms
from genesis_rl.training.loop import State, noise_key
from genesis_rl.training.pretraining import foreground_weight, kl_weight, learning_rate
from genesis_rl.training.validate import labelled_images

CPU = torch.device("cpu")
RECONSTRUCTION = {"mse", "nll", "kl_m", "kl_c"}
SEGMENTATION = {"ari", "ari_fg", "ari_fg_2plus", "sc", "msc"}

# ---- the loss ------------------------------------------------------------------------------------


class Recorder:
    """Stub model that records pixel weights."""

    def __init__(self) -> None:
        self.weight: Tensor | None = None

    def __call__(
        self, x: Tensor, *, generator: torch.Generator, pixel_weight: Tensor | None
    ) -> ElboTerms:
        self.weight = pixel_weight
        per_image = torch.arange(1.0, len(x) + 1)
        return ElboTerms(10 * per_image, torch.ones(len(x), 5), torch.full((len(x), 5), 2.0))


def test_terms_are_batch_means_of_sums_over_slots() -> None:
    model = Recorder()
    terms = train_terms(model, torch.rand(3, 3, 4, 6), torch.Generator())
    assert [float(term) for term in terms] == [20, 5, 10]
    assert model.weight is None  # nothing to weigh


def test_pixels_of_the_median_colour_have_weight_one() -> None:
    images = torch.full((2, 3, 4, 6), 0.5)
    images[0, :, 1, 2] = 0.9  # all channels differ
    images[0, 1, 3, 5] = 0.3  # one does
    images[0, :, 0, 0] = 0.55  # hardly differs
    images[1] = torch.tensor([1.0, 0.0, 0.25])[:, None, None]  # another background
    images[1, :, 2, :3] = 0.5
    model = Recorder()
    train_terms(model, images, torch.Generator(), foreground_weight=4.0)
    expected = torch.ones(2, 1, 4, 6)
    expected[0, 0, 1, 2] = expected[0, 0, 3, 5] = 4
    expected[1, 0, 2, :3] = 4
    assert model.weight is not None and torch.equal(model.weight, expected)


def test_the_weight_enters_the_loss(tiny: Genesis, pack: Pack) -> None:
    images, _ = next(labelled_images(pack, 2, CPU))
    nll = {
        weight: train_terms(tiny, images, torch.Generator().manual_seed(0), weight)[0].item()
        for weight in (1.0, 3.0)
    }
    assert nll[1.0] != nll[3.0]


def test_noise_keys_differ() -> None:
    keys = {
        noise_key(seed, step, process)
        for seed in (0, 1, 2**40, 2**63 - 1)
        for step in (0, 1, 2**33)
        for process in (0, 1, 300)
    }
    assert len(keys) == 36 and all(0 <= key < 2**64 for key in keys)
    assert noise_key(3, 4, 5) == noise_key(3, 4, 5)
    torch.Generator().manual_seed(max(keys))


# ---- schedules -----------------------------------------------------------------------------------


def rates(config: PretrainConfig, steps: list[int]) -> list[float]:
    return [learning_rate(config, State(config, step)) for step in steps]


def test_the_learning_rate_warms_up_and_stays(config: PretrainConfig) -> None:
    config = dataclasses.replace(config, learning_rate=0.4)
    assert rates(config, [0, 19]) == pytest.approx([0.4, 0.4])
    config = dataclasses.replace(config, warmup_steps=4)
    assert rates(config, [0, 1, 3, 4, 19]) == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])


def test_the_learning_rate_follows_a_cosine(config: PretrainConfig) -> None:
    config = dataclasses.replace(config, learning_rate=0.4, warmup_steps=2, schedule="cosine")
    quarter = 0.2 * (1 + math.sqrt(0.5))
    assert rates(config, [0, 5, 10, 15, 20]) == pytest.approx([0.2, quarter, 0.2, 0.4 - quarter, 0])


def test_progress_by_steps_or_time(config: PretrainConfig) -> None:
    assert State(config, 5, 1e6).progress == 0.25
    timed = dataclasses.replace(config, max_minutes=2.0, schedule="cosine")
    # Progress by time, less a twentieth of the training, is used if it is ahead.
    for step, seconds, done in (
        (5, 34, 0.25),
        (5, 63, 0.5),
        (15, 90, 0.75),
        (5, 120, 1),
        (5, 500, 1),
    ):
        state = State(timed, step, seconds)
        assert state.progress == pytest.approx(done) and (state.progress == 1) == (done == 1)
        rate = 5e-5 * (1 + math.cos(math.pi * done))
        assert learning_rate(timed, state) == pytest.approx(rate)


def test_trainings_that_finish_in_time_ignore_the_clock(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(
        config, objective="elbo", beta_end=4.0, schedule="cosine", max_minutes=1.0
    )
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("genesis_rl.training.loop.time", clock)

    def weights(name: str, first: float, others: float) -> dict[str, Tensor]:
        """Return progress of a training with the given seconds per step."""
        trainer = Trainer(dataclasses.replace(config, out=config.out / name))
        step, now[0] = trainer.task.train_step, 0.0

        def timed_step(state: State) -> Tensor:
            now[0] += others if state.step else first
            return step(state)

        trainer.task.train_step = timed_step
        trainer.run()
        assert trainer.step == config.steps
        return dict(trainer.model.state_dict())

    slow = weights("slow", first=4.0, others=2.5)
    for name, tensor in weights("quick", first=0.0, others=0.1).items():
        assert torch.equal(slow[name], tensor), name


def test_the_foreground_weight_is_annealed_to_one(config: PretrainConfig) -> None:
    config = dataclasses.replace(config, foreground_weight=5.0, foreground_anneal_fraction=0.5)
    for step, weight in ((0, 5.0), (5, 3.0), (10, 1.0), (15, 1.0), (20, 1.0)):
        assert foreground_weight(config, State(config, step)) == pytest.approx(weight)


def test_beta_is_annealed_geometrically(config: PretrainConfig) -> None:
    config = dataclasses.replace(config, objective="elbo", beta=0.01)
    assert kl_weight(config, State(config)) == 0.01
    config = dataclasses.replace(config, beta_end=0.16, beta_anneal_fraction=0.8)
    for step, beta in ((0, 0.01), (8, 0.04), (16, 0.16), (20, 0.16)):
        assert kl_weight(config, State(config, step)) == pytest.approx(beta)


# ---- whole runs ----------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize(
    "change",
    [
        {"objective": "elbo"},
        {"beta_end": 2.0, "objective": "elbo"},
        {"precision": "bf16"},
        {"precision": "auto"},
        {"schedule": "cosine", "warmup_steps": 2},
        {"clip_norm": 0.5},
        {"foreground_weight": 3.0},
        {"max_minutes": 10.0},
        {"seed": 2**62},
    ],
    ids=lambda change: next(iter(change)),
)
def test_options_train(config: PretrainConfig, change: dict[str, Any]) -> None:
    trainer = Trainer(dataclasses.replace(config, **{"steps": 3, **change}))
    before = [p.detach().clone() for p in trainer.model.parameters()]
    scores = trainer.run()
    assert trainer.step == 3 and not trainer.stopped
    assert scores.keys() == RECONSTRUCTION | SEGMENTATION
    assert all(math.isfinite(value) for value in scores.values())
    assert any((p != old).any() for p, old in zip(trainer.model.parameters(), before, strict=True))


def test_a_training_starts_from_the_weights_of_another(
    config: PretrainConfig, tmp_path: Path
) -> None:
    first = Trainer(config)
    first.run()
    follower = dataclasses.replace(config, out=tmp_path / "follower", init=str(first.folder.last))
    second = Trainer(follower)
    trained = first.model.state_dict()
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, trained[name]), name
    second.run()
    # A resumed run loads its own weights.
    resumed = Trainer(dataclasses.replace(follower, resume=True, steps=config.steps + 1))
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_modules_in_fresh_may_have_another_shape(config: PretrainConfig, tmp_path: Path) -> None:
    first = Trainer(config)
    first.run()
    assert isinstance(config.model, GenesisConfig)
    other = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, component_decoder="flat"),
        init=str(first.folder.last),
        reinit_modules=("component_decoder",),
        out=tmp_path / "other",
    )
    trained = first.model.state_dict()
    state = Trainer(other).model.state_dict()
    kept = {name for name in state if not name.startswith("component_decoder")}
    assert kept < state.keys()
    for name in kept:
        assert torch.equal(state[name], trained[name]), name


def test_weights_of_another_shape_are_refused(config: PretrainConfig, tmp_path: Path) -> None:
    first = Trainer(config)
    first.run()
    assert isinstance(config.model, GenesisConfig)
    wider = dataclasses.replace(config.model, mask_latent_size=9)
    other = dataclasses.replace(
        config, model=wider, out=tmp_path / "other", init=str(first.folder.last)
    )
    with pytest.raises(ValueError, match=r"^init .*shape"):
        Trainer(other)
    with pytest.raises(ValueError, match=r"^reinit_modules "):
        Trainer(dataclasses.replace(other, reinit_modules=("decoder",)))
    name = config.model.__class__.__name__.removesuffix("Config")
    with pytest.raises(ValueError, match=rf"^init .*BdVae.* {name} "):
        Trainer(dataclasses.replace(other, model=BdVaeConfig(image_size=config.model.image_size)))


def test_threads_are_set_on_request(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    Trainer(config)
    assert asked == []
    Trainer(dataclasses.replace(config, threads=3))
    assert asked == [3]


def test_another_device_needs_another_process(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(config)
    monkeypatch.setattr("genesis_rl.training.pretraining.pick_device", torch.device)
    with pytest.raises(ValueError, match=r"^device "):
        Trainer(dataclasses.replace(config, device="cuda"))


def test_time_ends_a_run(config: PretrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, steps=10_000, max_minutes=1e-3))
    trainer.run()
    assert 0 < trainer.step < 10_000 and trainer.finished


def test_a_goal_that_the_mean_image_meets_is_reported_before_the_training(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    near = min_error(config.model.sigma_x)
    for goal, warned in ((near + 10.0, True), (near + 1e-6, False)):
        out = config.out.with_name(f"goal-{goal}")
        changed = dataclasses.replace(config, out=out, steps=1, geco=GecoConfig(goal=goal))
        Trainer(changed).run()
        text = capsys.readouterr().err
        assert ("geco.goal" in text and "--preset auto" in text) == warned


def test_a_reconstruction_no_better_than_the_mean_image_is_reported(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for mse, first_step, warned in ((1.0, 1, True), (0.0, 1, False), (1.0, 300, False)):
        monkeypatch.setattr("genesis_rl.training.pretraining._LEARNT_STEP", first_step)
        monkeypatch.setattr(
            "genesis_rl.training.pretraining.validate",
            lambda *args, mse=mse: {"mse": mse, "nll": 1.0, "kl_m": 0.0, "kl_c": 0.0},
        )
        out = config.out.with_name(f"mse-{mse}-{first_step}")
        Trainer(dataclasses.replace(config, out=out, steps=1)).run()
        text = capsys.readouterr().err
        assert ("no better than the mean image" in text) == warned
        assert ("--preset auto" in text) == warned  # the model has no background


def test_the_time_per_step_excludes_slow_first_steps(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(dataclasses.replace(config, steps=25))
    now, paces = [0.0], list[float]()

    def step(state: State) -> Tensor:
        now[0] += 2.0 if state.step else 100.0  # the first waits for the compiler
        return torch.ones(4)

    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("genesis_rl.training.loop.time", clock)
    trainer.task.train_step = step
    trainer.task.measured = lambda state, seconds: paces.append(seconds)
    trainer.run()
    assert paces == [2.0]


def test_the_elbo_has_no_weight_on_the_kl(config: PretrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, objective="elbo", steps=2))
    beta = trainer.geco.beta.clone()
    trainer.run()
    assert torch.equal(trainer.geco.beta, beta)
    rows = (config.out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["train/beta"] for row in rows if "train/beta" in row] == [1.0]


def test_the_best_model_is_kept_without_masks(
    config: PretrainConfig, write_pack: Callable[..., Pack], tmp_path: Path
) -> None:
    bare = write_pack(tmp_path / "bare", masks=False)
    trainer = Trainer(dataclasses.replace(config, data=str(bare.folder), steps=2))
    scores = trainer.run()
    assert scores.keys() == RECONSTRUCTION
    assert trainer.state.best == pytest.approx(-scores["nll"] - scores["kl_m"] - scores["kl_c"])
    assert (config.out / "best" / "config.json").is_file()
