"""Pretraining's parts: settings, schedules, the loss, validation, presets."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genesis_rl.data.pack import Pack, PackWriter
from genesis_rl.models import Genesis, GenesisConfig, build_model
from genesis_rl.presets import PRESETS
from genesis_rl.slots import ElboTerms
from genesis_rl.training import PretrainConfig, Trainer, train_terms
from genesis_rl.training.loop import noise_key
from genesis_rl.training.validate import baseline_scores, labelled_images, pictures, validate

CPU = torch.device("cpu")
N, SIDE = 9, 32
TINY = GenesisConfig(
    image_size=SIDE,
    num_slots=3,
    mask_latent_size=7,
    component_latent_size=2,
    encoder_channels=(4, 4, 4, 4, 4),
    decoder_channels=(4, 4, 4, 4, 4),
    feature_size=8,
    posterior_lstm_size=8,
    prior_lstm_size=8,
    component_decoder_channels=4,
    component_encoder_channels=(4, 4),
    component_encoder_size=8,
    prior_mlp_size=8,
)
RECONSTRUCTION = {"mse", "nll", "kl_m", "kl_c"}
SEGMENTATION = {"ari", "ari_fg", "ari_fg_2plus", "sc", "msc"}


def write_pack(folder: Path, masks: bool = True, side: int = SIDE) -> Pack:
    """Grey images with two squares."""
    rng = np.random.default_rng(0)
    images = np.full((N, side, side, 3), 128, np.uint8)
    labels = np.zeros((N, side, side), np.uint8)
    for image, label in zip(images, labels, strict=True):
        for k in (1, 2):
            row, column = rng.integers(0, side - 8, 2)
            image[row : row + 8, column : column + 8] = rng.integers(0, 256, 3)
            label[row : row + 8, column : column + 8] = k
    with PackWriter(folder, N, side, masks=masks) as writer:
        writer.write(images, labels if masks else None)
    return Pack.open(folder)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_pack(tmp_path / "pack")


@pytest.fixture
def tiny() -> Genesis:
    torch.manual_seed(0)
    return Genesis(TINY)


@pytest.fixture
def config(pack: Pack, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(
        model=TINY,
        data=str(pack.folder),
        steps=20,
        batch_size=4,
        precision="fp32",
        device="cpu",
        eval_images=5,
        tensorboard=False,
        out=tmp_path / "run",
    )


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({name: 0}, f"{name} is 0; wanted at least 1")
            for name in (
                "steps",
                "batch_size",
                "log_every",
                "eval_every",
                "eval_images",
                "save_every",
            )
        ),
        ({"beta_end": 0.0}, r"beta_end is 0\.0; wanted a value > 0"),
        ({"beta_until": 0.0}, r"beta_until is 0\.0; wanted a value > 0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0; wanted a value > 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan; wanted a value > 0"),
        ({"foreground_until": -0.5}, r"foreground_until is -0\.5; wanted a value > 0"),
        ({"max_minutes": 0.0}, r"max_minutes is 0\.0; wanted a value > 0"),
        ({"clip_norm": -1.0}, r"clip_norm is -1\.0; wanted a value > 0"),
        ({"threads": 0}, "threads is 0; wanted a value > 0"),
        ({"foreground_weight": 0.5}, r"foreground_weight is 0\.5; wanted at least 1"),
        ({"foreground_weight": math.nan}, "foreground_weight is nan; wanted at least 1"),
        ({"warmup_steps": -1}, "warmup_steps is -1; wanted at least 0"),
        ({"seed": -1}, "seed is -1; wanted 0 to"),
        ({"seed": 2**63}, "seed is 9223372036854775808; wanted 0 to"),
        ({"schedule": "linear"}, "schedule is 'linear'; wanted 'constant' or 'cosine'"),
        ({"objective": "vae"}, "objective is 'vae'; wanted 'geco' or 'elbo'"),
        ({"precision": "fp16"}, "precision is 'fp16'; wanted 'bf16' or 'fp32'"),
        ({"data_options": "[1]"}, r"data_options is '\[1\]'; wanted a JSON object"),
        ({"data_options": "{"}, "data_options is '{', which is not JSON"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**change)


def test_data_are_checked_against_the_model(config: PretrainConfig, tmp_path: Path) -> None:
    assert len(config.open_data("train")) == N
    with pytest.raises(ValueError, match=f"has {N} images; batch_size is 10"):
        dataclasses.replace(config, batch_size=10).open_data("train")
    assert len(dataclasses.replace(config, batch_size=10).open_data("validation")) == N
    other = write_pack(tmp_path / "other", side=64)
    with pytest.raises(ValueError, match=r"images of 64 x 64 px; the model takes 32 x 32"):
        dataclasses.replace(config, data=str(other.folder)).open_data("train")
    with pytest.raises(TypeError, match="takes no options, got seed"):
        dataclasses.replace(config, data_options='{"seed": 1}').open_data("train")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_their_models(name: str) -> None:
    about, config = PRESETS[name]
    assert about
    model = build_model(config.model)
    assert model.config == config.model
    options = json.loads(config.data_options)
    assert options.get("image_size", 64) == config.model.image_size
    assert not config.resume and config.out.parts[0] == "runs"


# ---- the loss ------------------------------------------------------------------------------------


class Recorder:
    """Stands for a model: keeps the weights of pixels that it is given."""

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


def rates(trainer: Trainer, steps: list[int]) -> list[float]:
    values = []
    for trainer.step in steps:
        values.append(trainer._learning_rate())
    return values


def test_the_learning_rate_warms_up_and_stays(config: PretrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, learning_rate=0.4, warmup_steps=4))
    assert rates(trainer, [0, 1, 3, 4, 19]) == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])
    trainer = Trainer(dataclasses.replace(config, learning_rate=0.4))
    assert rates(trainer, [0, 19]) == pytest.approx([0.4, 0.4])


def test_the_learning_rate_falls_along_a_cosine(config: PretrainConfig) -> None:
    config = dataclasses.replace(config, learning_rate=0.4, warmup_steps=2, schedule="cosine")
    trainer = Trainer(config)
    quarter = 0.2 * (1 + math.sqrt(0.5))
    assert rates(trainer, [0, 5, 10, 15, 20]) == pytest.approx(
        [0.2, quarter, 0.2, 0.4 - quarter, 0]
    )


def test_progress_is_of_steps_or_of_time(config: PretrainConfig) -> None:
    trainer = Trainer(config)
    trainer.step, trainer.seconds = 5, 1e6
    assert trainer.progress() == 0.25 and not trainer._finished()
    timed = Trainer(dataclasses.replace(config, max_minutes=2.0, schedule="cosine"))
    for step, seconds, done in ((5, 15, 0.25), (5, 60, 0.5), (15, 60, 0.75), (5, 500, 1.0)):
        timed.step, timed.seconds = step, seconds
        assert timed.progress() == done
        assert timed._learning_rate() == pytest.approx(5e-5 * (1 + math.cos(math.pi * done)))
        assert timed._finished() == (done == 1)


def test_the_foreground_weight_falls_to_one(config: PretrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, foreground_weight=5.0, foreground_until=0.5))
    for trainer.step, weight in ((0, 5.0), (5, 3.0), (10, 1.0), (15, 1.0), (20, 1.0)):
        assert trainer._foreground_weight() == pytest.approx(weight)


def test_the_weight_of_the_kl_moves_geometrically(config: PretrainConfig) -> None:
    config = dataclasses.replace(config, objective="elbo", beta=0.01)
    assert Trainer(config)._beta() == 0.01
    trainer = Trainer(dataclasses.replace(config, beta_end=0.16, beta_until=0.8))
    for trainer.step, beta in ((0, 0.01), (8, 0.04), (16, 0.16), (20, 0.16)):
        assert trainer._beta() == pytest.approx(beta)


# ---- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "elbo"},
        {"beta_end": 2.0, "objective": "elbo"},
        {"precision": "bf16"},
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
    monkeypatch.setattr("genesis_rl.training.loop.pick_device", torch.device)
    with pytest.raises(ValueError, match="device is 'cuda', but this process trains on cpu"):
        Trainer(dataclasses.replace(config, device="cuda"))


def test_time_ends_a_run(config: PretrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, steps=10_000, max_minutes=1e-3))
    trainer.run()
    assert 0 < trainer.step < 10_000 and trainer.progress() == 1


def test_the_elbo_has_no_weight_on_the_kl(config: PretrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, objective="elbo", steps=2))
    beta = trainer.geco.beta.clone()
    trainer.run()
    assert torch.equal(trainer.geco.beta, beta)
    rows = (config.out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["train/beta"] for row in rows if "train/beta" in row] == [1.0]


def test_the_best_model_is_kept_without_masks(config: PretrainConfig, tmp_path: Path) -> None:
    bare = write_pack(tmp_path / "bare", masks=False)
    trainer = Trainer(dataclasses.replace(config, data=str(bare.folder), steps=2))
    scores = trainer.run()
    assert scores.keys() == RECONSTRUCTION
    assert trainer.best == pytest.approx(-scores["nll"] - scores["kl_m"] - scores["kl_c"])
    assert (config.out / "best" / "config.json").is_file()


# ---- validation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_validation_scores(tiny: Genesis, tmp_path: Path, masks: bool, training: bool) -> None:
    pack = write_pack(tmp_path / "pack", masks)
    tiny.train(training)
    state = {name: value.clone() for name, value in tiny.state_dict().items()}
    scores = validate(tiny, pack, 5, seed=1)
    assert scores.keys() == RECONSTRUCTION | (SEGMENTATION if masks else set())
    assert all(type(value) is float and math.isfinite(value) for value in scores.values())
    assert tiny.training == training and tiny.encoder.training == training
    for name, value in tiny.state_dict().items():  # batch statistics, too
        assert torch.equal(value, state[name]), name
    assert validate(tiny, pack, 5, seed=1) == scores
    other = validate(tiny, pack, 5, seed=2)
    assert other["mse"] == scores["mse"] and other["nll"] != scores["nll"]


def test_validation_takes_as_many_images_as_there_are(tiny: Genesis, pack: Pack) -> None:
    assert validate(tiny, pack, 1000) == validate(tiny, pack, N)
    assert validate(tiny, pack, 1)["mse"] != validate(tiny, pack, N)["mse"]


def test_the_mse_is_of_posterior_means(tiny: Genesis, pack: Pack) -> None:
    images, masks = next(labelled_images(pack, 4, CPU))
    assert images.shape == (4, 3, SIDE, SIDE) and images.max() <= 1
    assert masks is not None and masks.shape == (4, SIDE, SIDE) and masks.dtype == torch.int64
    tiny.eval()
    with torch.no_grad():
        image = tiny.decode(tiny.infer(images)).image
    assert validate(tiny, pack, 4)["mse"] == pytest.approx(float((image - images).square().mean()))


def test_validation_puts_the_mode_back_after_an_error(
    tiny: Genesis, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    tiny.train()
    monkeypatch.setattr(tiny, "infer", broken)
    with pytest.raises(RuntimeError, match="broken"):
        validate(tiny, pack, 2)
    assert tiny.training


def test_batches_of_images_go_on_where_the_last_ended(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genesis_rl.training.validate._BATCH", 4)
    batches = [images for images, _ in labelled_images(pack, N, CPU)]
    assert [len(images) for images in batches] == [4, 4, 1]
    want = torch.from_numpy(np.array(pack.images)).permute(0, 3, 1, 2) / 255
    assert torch.equal(torch.cat(batches), want)


def test_baselines_are_scored_where_there_are_masks(pack: Pack, tmp_path: Path) -> None:
    scores = baseline_scores(pack, 5, num_slots=3)
    assert len(scores) >= 3
    for figures in scores.values():
        assert figures.keys() >= SEGMENTATION
    assert baseline_scores(write_pack(tmp_path / "bare", masks=False), 5, 3) == {}


def test_pictures_are_grids_of_held_out_images_and_samples(tiny: Genesis, pack: Pack) -> None:
    tiny.train()
    grids = pictures(tiny, pack)
    assert grids.keys() == {"decomposition", "samples"} and tiny.training
    for grid in grids.values():
        assert grid.ndim == 3 and grid.shape[2] == 3 and grid.dtype == np.uint8
    np.testing.assert_array_equal(pictures(tiny, pack)["samples"], grids["samples"])
    assert (pictures(tiny, pack, seed=1)["samples"] != grids["samples"]).any()
