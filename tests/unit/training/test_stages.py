"""Curricula: configs of stages, and resumption across stages."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genesis_rl.data.pack import Pack
from genesis_rl.models import GenesisConfig
from genesis_rl.training import PretrainConfig, State, Trainer
from genesis_rl.training.presets import PRESETS
from genesis_rl.training.stages import join_stages

ROOT = Path(__file__).parents[3]


def test_flags_reach_the_stages_that_they_name(tmp_path: Path, train_program: Any) -> None:
    out = str(tmp_path / "towers")
    flags = ["--preset", "towers", "--out", out, "--seed", "3", "--steps", "7"]
    first, last = train_program.parse(
        [*flags, "--stage-1.steps", "5", "--stage-1.batch-size", "4"]
    ).stages
    assert (first.trained_modules, first.steps, first.batch_size, first.seed) == (
        "background",
        5,
        4,
        3,
    )
    assert (last.trained_modules, last.steps, last.batch_size, last.seed) == ("objects", 7, 16, 3)
    assert first.out == Path(out) / "stage-1"
    assert last.init == str(first.out)
    assert (first.data, first.model) == (last.data, last.model)


def test_data_given_by_flag_apply_to_all_stages(train_program: Any) -> None:
    first, last = train_program.parse(["--preset", "towers", "--data", "packs/mine"]).stages
    assert (
        (first.data, first.data_options) == (last.data, last.data_options) == ("packs/mine", "{}")
    )


def test_flags_of_a_stage_have_priority(train_program: Any) -> None:
    flags = ["--preset", "towers", "--data", "packs/mine", "--seed", "3"]
    first, last = train_program.parse([*flags, "--stage-1.data", "packs/empty"]).stages
    assert (first.data, last.data) == ("packs/empty", "packs/mine")
    assert (first.seed, last.seed) == (3, 3)


def test_init_given_by_flag_skips_the_stages_before(train_program: Any) -> None:
    (only,) = train_program.parse(["--preset", "towers", "--init", "runs/mine"]).stages
    assert only.init == "runs/mine"


def test_unknown_stages_are_refused(train_program: Any) -> None:
    with pytest.raises(ValueError, match="--stage-2"):
        train_program.parse(["--preset", "towers", "--stage-2.steps", "5"])


def test_curricula_are_stages(train_program: Any) -> None:
    stages = train_program.parse(
        ["--preset", "sprites-sharp", "--out", "runs/mine", "--seed", "3"]
    ).stages
    assert [stage.out for stage in stages] == [
        Path("runs/mine/stage-1"),
        Path("runs/mine/stage-2"),
        Path("runs/mine"),
    ]
    assert [stage.init for stage in stages] == [None, "runs/mine/stage-1", "runs/mine/stage-2"]
    assert {stage.seed for stage in stages} == {3}
    assert stages[0].data_options != stages[1].data_options != stages[2].data_options
    stages = train_program.parse(["--preset", "multi-dsprites-sharp"]).stages
    assert stages[-1].reinit_modules == ("corrector", "mask_decoder")
    assert [stage.data for stage in stages] == ["sprite_scenes", "multi_dsprites", "multi_dsprites"]


def test_presets_without_stages_are_one() -> None:
    preset = PRESETS["smoke"]
    assert join_stages(preset.before, preset.config, preset.config) == [preset.config]


@pytest.fixture
def model(small_config: Callable[..., Any]) -> Any:
    return small_config(compact=True, background="predicted")


@pytest.fixture
def stages(
    write_pack: Callable[..., Pack], model: Any, tmp_path: Path
) -> Callable[..., list[PretrainConfig]]:
    pack = write_pack(tmp_path / "pack")

    def line_up(resume: bool = False, out: str = "run") -> list[PretrainConfig]:
        last = PretrainConfig(
            model=model,
            data=str(pack.folder),
            trained_modules="objects",
            objective="elbo",
            steps=4,
            batch_size=4,
            likelihood_stride=2,
            sigma_x_start=0.25,
            precision="fp32",
            log_every=2,
            eval_every=4,
            eval_images=4,
            save_every=2,
            tensorboard=False,
            out=tmp_path / out,
            resume=resume,
        )
        first = dataclasses.replace(
            last,
            trained_modules="background",
            likelihood_stride=1,
            sigma_x_start=None,
            resume=False,
        )
        return join_stages([first], last, dataclasses.replace(last, resume=False))

    return line_up


def train(stages: list[PretrainConfig]) -> Any:
    for config in stages:
        trainer = Trainer(config)
        trainer.run()
    return trainer.model


def test_the_second_stage_leaves_the_background_alone(
    stages: Callable[..., list[PretrainConfig]],
) -> None:
    first, second = stages()
    background = Trainer(first)
    before = {k: v.clone() for k, v in background.model.state_dict().items()}
    background.run()
    after = background.model.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved and all(name.startswith("background.") for name in moved)
    objects = Trainer(second)
    objects.run()
    last = objects.model.state_dict()
    moved = {k for k in last if not torch.equal(last[k], after[k])}
    assert moved and not any(name.startswith("background.") for name in moved)


def test_a_signal_in_the_last_validation_of_a_stage_stops_the_training(
    stages: Callable[..., list[PretrainConfig]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    train_program: Any,
) -> None:
    first, second = stages()
    validate = Trainer._validate

    def interrupted(self: Trainer, state: State) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return validate(self, state)

    monkeypatch.setattr(Trainer, "_validate", interrupted)
    monkeypatch.setattr(
        train_program, "parse", lambda argv: train_program.Plan([first, second], [])
    )
    assert train_program.main([]) == 143
    assert "--resume" in capsys.readouterr().err
    assert (first.out / "last").is_dir() and not (second.out / "last").exists()


@pytest.mark.parametrize("stopped_in", [0, 1])
def test_stages_resume_where_they_were(
    stages: Callable[..., list[PretrainConfig]], stopped_in: int
) -> None:
    whole = train(stages(out="whole"))
    for config in stages()[:stopped_in]:
        Trainer(config).run()
    Trainer(dataclasses.replace(stages()[stopped_in], steps=2)).run()
    resumed = train(stages(resume=True))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_parts_that_a_model_lacks_are_refused(model: Any, tmp_path: Path) -> None:
    plain = GenesisConfig(image_size=32)
    static = dataclasses.replace(model, background="static")
    for changes, name in (
        ({"trained_modules": "objects"}, "trained_modules"),
        ({"occluders": 3}, "occluders"),
        ({"likelihood_stride": 2}, "likelihood_stride"),
        (
            {"model": static, "trained_modules": "background"},
            "trained_modules",
        ),
        ({"model": model, "likelihood_stride": 3}, "likelihood_stride"),
        ({"model": model, "compile": True, "sigma_x_start": 0.2}, "compile"),
    ):
        options: dict[str, Any] = {"model": plain, "out": tmp_path, **changes}
        with pytest.raises(ValueError, match=f"^{name} "):
            PretrainConfig(**options)
