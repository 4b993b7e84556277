"""Saved models: what is loaded, and what each kind of damage is called."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genesis_rl import load
from genesis_rl.checkpoints import hub, loading
from genesis_rl.checkpoints.loading import (
    fingerprint,
    load_pretrained,
    load_weights,
    save_pretrained,
)
from genesis_rl.models import Genesis, GenesisConfig, GenesisS, GenesisSConfig
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.utils.files import new_folder

SMALL: dict[str, Any] = {
    "image_size": 32,
    "num_slots": 3,
    "mask_latent_size": 7,
    "encoder_channels": (2, 3, 4, 5, 6),
    "decoder_channels": (6, 5, 4, 3, 2),
    "feature_size": 8,
    "posterior_lstm_size": 9,
    "prior_lstm_size": 10,
    "component_decoder_channels": 4,
}
ENTRY = "extra.weight"


def build(**changes: Any) -> GenesisS:
    return GenesisS(GenesisSConfig(**SMALL | changes)).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pretrained(build(), tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


# ---- what is loaded ------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop", "none"])
def test_everything_comes_back(tmp_path: Path, resize: Any) -> None:
    config = GenesisConfig(**SMALL, component_latent_size=2, component_encoder_channels=(2, 3))
    model = Genesis(config).train()
    extra = {"step": 7, "validation": {"msc": 0.5}}
    save_pretrained(model, tmp_path / "m", preprocessing=Preprocessing(resize), extra=extra)
    assert model.training
    loaded = load_pretrained(tmp_path / "m", device="cpu")
    assert isinstance(loaded.model, Genesis) and not loaded.model.training
    assert loaded.model.config == config  # tuples are tuples again
    assert loaded.preprocessing == Preprocessing(resize)
    assert {name: loaded.metadata[name] for name in extra} == extra
    assert fingerprint(loaded.model) == fingerprint(model)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "config.json",
        "m",
        "model.safetensors",
    ]


def test_extra_data_cannot_displace_the_model(tmp_path: Path) -> None:
    save_pretrained(build(), tmp_path / "m", extra={"model": "other", "format": 99})
    assert isinstance(load(tmp_path / "m", device="cpu"), GenesisS)


def test_only_registered_models_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model "):
        save_pretrained(torch.nn.Linear(1, 1), tmp_path / "m")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_old_model(folder: Path) -> None:
    before = fingerprint(load(folder, device="cpu"))
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_pretrained(build(), folder, extra={"bad": object()})
    assert fingerprint(load(folder, device="cpu")) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_best_comes_before_last(tmp_path: Path) -> None:
    for number, name in enumerate(("last", "best"), start=3):
        save_pretrained(build(num_slots=number), tmp_path / name)
        assert load(tmp_path, device="cpu").config.num_slots == number
    save_pretrained(build(num_slots=5), tmp_path / "last")
    assert load(str(tmp_path), device="cpu").config.num_slots == 4


def test_a_save_that_was_killed_can_be_loaded_and_is_not_touched(tmp_path: Path) -> None:
    save_pretrained(build(), tmp_path / "last")
    private = tmp_path / ".best.genesis_rl"  # as a kill between two renames leaves it
    save_pretrained(build(num_slots=4), private / "old")
    (private / "owner.json").write_text('{"made_by": "genesis_rl"}')
    assert load(tmp_path, device="cpu").config.num_slots == 4
    assert load(tmp_path / "best", device="cpu").config.num_slots == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [private.name, "last"]


def test_loading_leaves_a_neighbour_alone(tmp_path: Path) -> None:
    save_pretrained(build(), tmp_path / "encoder.old")
    with pytest.raises(ValueError, match="encoder"):
        load(tmp_path / "encoder", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.old"]


def test_fingerprints_see_weights_config_and_class() -> None:
    model = build()
    first = fingerprint(model)
    assert len(first) == 64 and fingerprint(model) == first
    other = build(sigma_x=0.6)
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) != first
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert fingerprint(model) != first
    with pytest.raises(TypeError, match=r"^model "):
        fingerprint(3)  # type: ignore[arg-type]


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_weights_cut_short(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors .*damaged"):
        load_pretrained(folder, device="cpu")


def test_pickles_are_not_loaded(folder: Path) -> None:
    torch.save(build().state_dict(), folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors .*damaged"):
        load_pretrained(folder, device="cpu")


def test_weights_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors .*missing"):
        load_pretrained(folder, device="cpu")


def test_entries_that_do_not_fit(folder: Path) -> None:
    change_weights(folder, lambda state: state.update({ENTRY: torch.zeros(2)}))
    with pytest.raises(ValueError, match=rf"unknown .*{ENTRY}"):
        load_pretrained(folder, device="cpu")
    name = next(iter(build().state_dict()))
    change_weights(folder, lambda state: (state.pop(ENTRY), state.pop(name)))
    with pytest.raises(ValueError, match=rf"lacks .*{name}"):
        load_pretrained(folder, device="cpu")


def test_shapes_that_do_not_fit(folder: Path) -> None:
    change_config(folder, lambda config: config["config"].update(feature_size=11))
    with pytest.raises(ValueError, match=r"shape \(22, .*\(16, "):
        load_pretrained(folder, device="cpu")


def test_a_refused_file_leaves_the_model_alone(folder: Path) -> None:
    model = build()
    before = fingerprint(model)
    change_weights(folder, lambda state: state.update({ENTRY: torch.zeros(2)}))
    with pytest.raises(ValueError, match="unknown"):
        load_weights(model, folder)
    assert fingerprint(model) == before


@pytest.mark.parametrize("text", ["", '{"format": 1', "\x00\xff"])
def test_configs_that_are_not_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json .*JSON"):
        load_pretrained(folder, device="cpu")


@pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": "bert"}', '{"config": 3}'])
def test_configs_of_something_else(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json "):
        load_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"format .*2"),
        ({"format": None}, r"format .*None"),
        ({"model": "capsules"}, "model "),
        ({"model": ["genesis"]}, "model "),
        ({"config": {"depth": 3}}, "depth"),
        ({"config": {"num_slots": 1}}, "num_slots "),
        ({"config": {"image_size": "32"}}, "image_size "),
        ({"preprocessing": {"resize": "squash"}}, "squash"),
        ({"preprocessing": {"colour": 3}}, "colour"),
        ({"preprocessing": "stretch"}, "Preprocessing"),
    ],
)
def test_configs_that_do_not_fit(folder: Path, change: dict[str, Any], message: str) -> None:
    change_config(folder, lambda config: config.update(change))
    with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
        load_pretrained(folder, device="cpu")


# ---- places and devices --------------------------------------------------------------------------


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^encoder "):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^encoder "):
        load(tmp_path / "file")


def test_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load(".", device="cpu").config.num_slots == 3
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ValueError, match=r"^encoder "):
        load("")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "owner/", "owner/na me"])
def test_neither_a_folder_nor_a_hub_id(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^encoder "):
        load(name)


@pytest.mark.smoke
def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match=r"^encoder .*'owner/name'.*no route") as caught:
        load("owner/name")
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.smoke
def test_a_model_from_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, sorted(allow_patterns)))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert load("owner/name.v2-x", device="cpu").config.num_slots == 3
    assert asked == [("owner/name.v2-x", ["config.json", "model.safetensors"])]


def test_a_hub_repository_of_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ValueError, match=r"config\.json "):
        load("owner/name")


def test_new_folder_is_what_saving_uses(folder: Path) -> None:
    """Also for those who write more beside the model."""
    with new_folder(folder) as temporary:
        loading.save_pretrained(build(num_slots=4), temporary)
        (temporary / "training.pt").write_bytes(b"state")
    assert load(folder, device="cpu").config.num_slots == 4
    assert (folder / "training.pt").read_bytes() == b"state"
