"""Presets for other models than their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.models import MODELS, IodineConfig, MonetConfig
from genesis_rl.presets import PRESETS, preset_config

SMALL = [name for name in PRESETS if name.endswith("-small")]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_every_model(preset: str) -> None:
    own = preset_config(preset)
    assert own is PRESETS[preset].config
    folders = set()
    for name, (config_class, _) in MODELS.items():
        config = preset_config(preset, name)
        assert type(config.model) is config_class
        assert config.model.image_size == own.model.image_size
        assert config.data_options == own.data_options
        folders.add(config.out)
    assert len(folders) == len(MODELS)  # no run in another model's folder


@pytest.mark.parametrize("preset", SMALL)
def test_a_small_preset_becomes_that_of_the_model(preset: str) -> None:
    others = {type(config.model): config for config in (PRESETS[p].config for p in SMALL)}
    assert len(others) == len(MODELS)
    for name, (config_class, _) in MODELS.items():
        assert preset_config(preset, name) is others[config_class]


@pytest.mark.parametrize("name", MODELS)
def test_the_paper_s_preset_takes_a_class_s_defaults(name: str) -> None:
    paper = preset_config("multi-dsprites")
    config = preset_config("multi-dsprites", name)
    assert config.model == MODELS[name][0]()
    rest: dict[str, Any] = {"model": paper.model, "out": paper.out}
    if name == "iodine":
        assert (config.objective, config.clip_norm, config.learning_rate) == ("elbo", 5.0, 1.5e-4)
        rest |= {"objective": "geco", "clip_norm": None, "learning_rate": 1e-4}
    assert replace(config, **rest) == paper


def test_slots_and_likelihood_come_from_the_preset() -> None:
    model = preset_config("demo", "monet").model
    small = PRESETS["monet-small"].config.model
    assert isinstance(model, MonetConfig) and isinstance(small, MonetConfig)
    likelihood: dict[str, Any] = {"sigma_x": 0.3, "mixture": "pixel"}
    assert model == replace(small, num_slots=7, posterior_sigma_min=0.2, **likelihood)
    # What a preset leaves as its class has it is none of its settings: IODINE's sigma_x stays.
    iodine, small = preset_config("smoke", "iodine").model, PRESETS["iodine-small"].config.model
    assert isinstance(iodine, IodineConfig) and isinstance(small, IodineConfig)
    assert iodine == replace(small, num_slots=3)
    assert preset_config("smoke", "iodine").learning_rate == 3e-4


def test_names_and_folders() -> None:
    assert preset_config("smoke", "genesis-v2") == preset_config("smoke", "genesis_v2")
    assert preset_config("smoke", "genesis-v2").out == Path("runs/smoke-genesis-v2")
    assert preset_config("smoke", "genesis") is PRESETS["smoke"].config
    with pytest.raises(ValueError, match=r"model is 'savi'; wanted one of genesis, .*iodine"):
        preset_config("smoke", "savi")
    with pytest.raises(ValueError, match=r"preset is 'big'; wanted one of multi-dsprites, "):
        preset_config("big", "monet")
