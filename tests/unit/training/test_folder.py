"""Reading of pretraining runs."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_rl.checkpoints import loading
from genesis_rl.data.pack import Pack
from genesis_rl.models import MODELS, GenesisConfig, build_model
from genesis_rl.models.geco import GecoConfig
from genesis_rl.training import PretrainConfig, Run
from genesis_rl.training.folder import RunFolder, parse_settings, settings
from genesis_rl.training.presets import PRESETS
from genesis_rl.utils.log import RunLog

SMOKE = PRESETS["smoke"].config


def write_run(config: PretrainConfig, *, best: bool = True) -> Path:
    """Write a run directory as the trainer does, without training."""
    folder = RunFolder(config)
    folder.write_settings()
    model = build_model(config.model)
    folder.save_last(model, {"step": 20}, {"step": 20})
    if best:
        folder.save_best(model, {"step": 10})
    with RunLog(config.out, tensorboard=False) as rows:
        rows.scalars(10, {"train/nll": 9.0, "train/seconds": 30.0, "train/images_per_second": 1.5})
        rows.scalars(10, {"validation/mse": 0.5})
        rows.scalars(20, {"train/nll": 8.0, "train/seconds": 90.0, "train/images_per_second": 2.5})
        rows.scalars(20, {"validation/mse": 0.25, "validation/msc": 0.75})
    return config.out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(dataclasses.replace(SMOKE, out=tmp_path / "run"))


def test_a_run_is_read(folder: Path) -> None:
    run = Run.open(str(folder))
    assert run.folder == folder
    assert run.config == dataclasses.replace(SMOKE, out=folder)
    assert [row["step"] for row in run.rows] == [10, 10, 20, 20]
    assert (run.step, run.images_seen, run.minutes, run.img_per_s) == (20, 80, 1.5, 2.5)
    assert run.scores == {"mse": 0.25, "msc": 0.75}
    assert [row["nll"] for row in run.updates] == [9.0, 8.0]
    assert [(row["step"], row["mse"]) for row in run.validations] == [(10, 0.5), (20, 0.25)]


def test_relative_data_are_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_pack: Callable[..., Pack]
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    pack = write_pack(home / "packs" / "mine")
    (elsewhere / "packs" / "mine").mkdir(parents=True)  # of the same name, but not the run's
    monkeypatch.chdir(home)
    config = dataclasses.replace(SMOKE, out=Path("runs/a"), data="packs/mine", data_options="{}")
    folder = home / write_run(config)
    assert Run.open("runs/a").config == config  # as it was given
    monkeypatch.chdir(elsewhere)
    found = Run.open(folder).config
    assert found.data == str(pack.folder)
    assert found.open_data("test").folder == pack.folder
    # Written paths stay relative, without folders of the machine.
    assert json.loads((folder / "train.json").read_text())["data"] == "packs/mine"


def test_relative_data_that_are_gone_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(SMOKE, out=tmp_path / "run", data="packs/mine", data_options="{}")
    found = Run.open(write_run(config)).config
    assert found.data == "packs/mine"
    with pytest.raises(ValueError, match=r"^data .*'packs/mine'.*--data"):
        found.open_data("test")


def test_a_run_is_read_before_its_first_row(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text("")
    run = Run.open(folder)
    assert (run.step, run.images_seen, run.minutes, run.img_per_s) == (0, 0, 0.0, 0.0)
    assert run.scores == {} and run.updates == [] and run.validations == []


@pytest.mark.parametrize(
    "config",
    [
        *(preset.config for preset in PRESETS.values()),
        PretrainConfig(
            model=GenesisConfig(encoder_channels=(3, 5, 7, 9, 11)),
            geco=GecoConfig(goal=-1.25, beta_min=1e-3),
            init="runs/other",
            reinit_modules=("encoder", "mask_decoder"),
            max_minutes=7,
            clip_norm=0.1,
            threads=3,
            beta_end=3.0,
            seed=2**63 - 1,
            out=Path("/somewhere/else"),
            resume=True,
        ),
        *(PretrainConfig(model=config_class()) for config_class, _ in MODELS.values()),
    ],
)
def test_settings_are_read_back_exactly(config: PretrainConfig) -> None:
    again = parse_settings(json.loads(json.dumps(settings(config))))
    assert again == config
    assert type(again.model) is type(config.model)


@pytest.mark.parametrize("checkpoints", [("best", "last"), ("last",), ("best",)])
def test_older_settings_use_the_model_name_of_a_checkpoint(
    folder: Path, checkpoints: tuple[str, ...]
) -> None:
    plain = json.loads((folder / "train.json").read_text())
    assert plain.pop("model_name") == "genesis"
    del plain["beta_end"]  # a setting of later
    (folder / "train.json").write_text(json.dumps(plain))
    for name in {"best", "last"} - set(checkpoints):
        shutil.rmtree(folder / name)
    assert Run.open(folder).config == dataclasses.replace(SMOKE, out=folder)
    if "last" in checkpoints:
        RunFolder(dataclasses.replace(SMOKE, out=folder, resume=True))
    for name in checkpoints:
        shutil.rmtree(folder / name)
    with pytest.raises(ValueError, match=r"train\.json: model_name "):
        Run.open(folder)


def test_models_are_loaded(folder: Path) -> None:
    run = Run.open(folder)
    assert run.checkpoints == ["best", "last"]
    assert run.load(device="cpu").metadata["step"] == 10
    best, last = run.load("best", device="cpu"), run.load("last", device="cpu")
    assert last.metadata["step"] == 20 and last.model.config == SMOKE.model
    assert loading.fingerprint(best.model) == loading.fingerprint(last.model)
    with pytest.raises(ValueError, match=r"^which "):
        run.load("first")  # type: ignore[arg-type]


def test_a_missing_checkpoint_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(dataclasses.replace(SMOKE, out=Path("run")), best=False)
    run = Run.open("run")
    assert run.checkpoints == ["last"]
    with pytest.raises(ValueError, match=r"^which .*'best'"):
        run.load()


def test_folders_without_a_run_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere .*train\.json"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"best .*train\.json"):
        Run.open(folder / "best")
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        Run.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"train\.json .*JSON:"),
        ("[]", r"train\.json .*list"),
        ("{}", r"train\.json: .*'model'"),
        ('{"model_name": [], "model": {}}', r"train\.json: model_name "),
        ('{"model": [], "geco": {}, "out": ""}', r"train\.json: "),
        ('{"model": {}, "geco": {}}', r"train\.json: .*'out'"),
        ('{"model": {}, "geco": {}, "out": "", "colour": 1}', r"train\.json: .*'colour'"),
        ('{"model": {"num_slots": 1}, "geco": {}, "out": ""}', r"train\.json: .*num_slots "),
    ],
)
def test_damaged_settings_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "train.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Run.open(folder)
