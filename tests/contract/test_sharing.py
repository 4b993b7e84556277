"""Every model saves, loads and shares itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import genesis_rl
from genesis_rl.checkpoints import hub
from genesis_rl.checkpoints.loading import fingerprint, load_pretrained, save_pretrained
from genesis_rl.models import MODELS, Genesis, GenesisS, Monet
from genesis_rl.models.base import BaseModel
from genesis_rl.perception.preprocessing import Preprocessing

NAMES = list(MODELS)
Build = Callable[..., Any]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_comes_back_as_itself(small_model: Build, name: str, tmp_path: Path) -> None:
    model, kind = small_model(name), MODELS[name][1]
    assert model.save_pretrained(tmp_path / "m", extra={"step": 3}) is None
    again = kind.from_pretrained(str(tmp_path / "m"), device="cpu")
    assert type(again) is kind and not again.training
    assert again.config == model.config and fingerprint(again) == fingerprint(model)
    assert type(genesis_rl.load(tmp_path / "m", device="cpu")) is kind
    assert load_pretrained(tmp_path / "m", device="cpu").metadata["step"] == 3
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.infer(x).features, again.infer(x).features)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_the_classes_own(name: str) -> None:
    config_class, kind = MODELS[name]
    assert vars(kind)["model_name"] == name and vars(kind)["config_class"] is config_class
    assert kind.__annotations__["config"] is config_class


def test_another_class_is_refused(small_model: Build, tmp_path: Path) -> None:
    small_model("monet").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model .*'monet'"):
        Genesis.from_pretrained(tmp_path, device="cpu")
    assert isinstance(Monet.from_pretrained(tmp_path, device="cpu"), Monet)


def test_classes_without_a_name_are_refused(small_model: Build, tmp_path: Path) -> None:
    """A name that is inherited would load as the parent's class."""

    class Mine(Genesis):
        pass

    for kind in (BaseModel, Mine):
        with pytest.raises(ValueError, match=rf"^{kind.__name__} "):
            kind.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^Mine "):
        Mine(small_model("genesis").config).save_pretrained(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_ones_own_has_its_own_name(small_model: Build, tmp_path: Path) -> None:
    class Mine(GenesisS):
        model_name = "mine"

    Mine(small_model("genesis_s").config).save_pretrained(tmp_path)
    assert type(Mine.from_pretrained(tmp_path, device="cpu")) is Mine
    with pytest.raises(ValueError, match=r"model .*'mine'"):
        genesis_rl.load(tmp_path)
    with pytest.raises(ValueError, match=r"model .*'mine'"):
        GenesisS.from_pretrained(tmp_path)


@pytest.mark.parametrize("save", ["method", "function"])
def test_other_files_of_the_folder_stay(small_model: Build, save: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "config.json").write_text("old")
    model = small_model("genesis_s")
    for _ in range(2):
        if save == "method":
            model.save_pretrained(tmp_path)
        else:
            save_pretrained(model, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert (tmp_path / "README.md").read_text() == "a card"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_a_run_gives_its_best(small_model: Build, tmp_path: Path) -> None:
    best, last = small_model("genesis"), small_model("genesis")
    with torch.no_grad():
        next(last.parameters()).add_(1)
    best.save_pretrained(tmp_path / "best")
    last.save_pretrained(tmp_path / "last")
    assert fingerprint(Genesis.from_pretrained(tmp_path, device="cpu")) == fingerprint(best)


def test_how_frames_are_brought_to_size_stays_with_the_model(
    small_model: Build, tmp_path: Path
) -> None:
    small_model("genesis").save_pretrained(tmp_path, preprocessing=Preprocessing("crop"))
    model = Genesis.from_pretrained(tmp_path, device="cpu")
    assert model.preprocessing == Preprocessing("crop")
    for save in (model.save_pretrained, lambda folder: save_pretrained(model, folder)):
        save(tmp_path / "again")
        assert load_pretrained(tmp_path / "again").preprocessing == Preprocessing("crop")
    model.save_pretrained(tmp_path / "other", preprocessing=Preprocessing("letterbox"))
    assert load_pretrained(tmp_path / "other").preprocessing == Preprocessing("letterbox")


# ---- the Hub -------------------------------------------------------------------------------------


def test_loading_asks_the_hub(
    small_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_model("genesis_v2").save_pretrained(tmp_path)
    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    kind = MODELS["genesis_v2"][1]
    assert type(kind.from_pretrained("me/model", device="cpu", revision="v2")) is kind
    assert type(genesis_rl.load("me/model", "cpu", token="secret")) is kind
    assert [(name, sorted(options)) for name, options in asked] == [
        ("me/model", ["allow_patterns", "revision"]),
        ("me/model", ["allow_patterns", "token"]),
    ]


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is pushed: repository, options, the files' content."""
    pushed: list[Any] = []

    def push(folder: Path, repo_id: str, **options: Any) -> str:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        pushed.append((repo_id, options, files))
        return "https://hub/commit"

    monkeypatch.setattr("genesis_rl.checkpoints.shareable.push_folder", push)
    return pushed


def test_a_model_is_pushed(small_model: Build, pushed: list[Any], tmp_path: Path) -> None:
    model = small_model("genesis")
    address = model.push_to_hub("me/model", extra={"step": 5}, private=True)
    assert address == "https://hub/commit"
    ((repo_id, options, files),) = pushed
    assert (repo_id, options) == ("me/model", {"private": True})
    assert sorted(files) == ["config.json", "model.safetensors"]
    assert json.loads(files["config.json"])["step"] == 5
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert fingerprint(genesis_rl.load(tmp_path, "cpu")) == fingerprint(model)


def test_saving_pushes_on_request(small_model: Build, pushed: list[Any], tmp_path: Path) -> None:
    model = small_model("genesis")
    with pytest.raises(ValueError, match=r"^repo_id "):
        model.save_pretrained(tmp_path / "m", push_to_hub=True)
    assert pushed == [] and not (tmp_path / "m").exists()
    saved = model.save_pretrained(
        tmp_path / "m", push_to_hub=True, repo_id="me/model", branch="next"
    )
    assert saved == "https://hub/commit"
    assert pushed[0][:2] == ("me/model", {"branch": "next"})
    assert pushed[0][2]["config.json"] == (tmp_path / "m" / "config.json").read_bytes()
