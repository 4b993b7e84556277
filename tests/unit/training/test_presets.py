"""Presets combined with every model, including those that they do not define."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.models import MODELS, IodineConfig, MonetConfig
from genesis_rl.training.presets import PRESETS, preset_config

SMALL = [name for name in PRESETS if name.endswith("-small")]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_supports_every_model(preset: str) -> None:
    default = preset_config(preset)
    assert default is PRESETS[preset].config
    run_directories = set()
    for name, (config_class, _) in MODELS.items():
        config = preset_config(preset, name)
        assert type(config.model) is config_class
        assert config.model.image_size == default.model.image_size
        assert config.data_options == default.data_options
        run_directories.add(config.out)
    assert len(run_directories) == len(MODELS)


@pytest.mark.parametrize("preset", SMALL)
def test_a_small_preset_with_another_model_is_the_small_preset_of_that_model(preset: str) -> None:
    by_class = {type(config.model): config for config in (PRESETS[p].config for p in SMALL)}
    assert len(by_class) == len(MODELS)
    for name, (config_class, _) in MODELS.items():
        assert preset_config(preset, name) is by_class[config_class]


@pytest.mark.parametrize("name", MODELS)
def test_the_preset_of_the_paper_uses_the_model_defaults(name: str) -> None:
    paper = preset_config("multi-dsprites")
    config = preset_config("multi-dsprites", name)
    assert config.model == MODELS[name][0]()
    changes: dict[str, Any] = {"model": paper.model, "out": paper.out}
    if name == "iodine":
        assert (config.objective, config.clip_norm, config.learning_rate) == ("elbo", 5.0, 1.5e-4)
        changes |= {"objective": "geco", "clip_norm": None, "learning_rate": 1e-4}
    assert replace(config, **changes) == paper


def test_slots_and_likelihood_come_from_the_preset() -> None:
    model = preset_config("sprites-large", "monet").model
    small = PRESETS["monet-small"].config.model
    assert isinstance(model, MonetConfig) and isinstance(small, MonetConfig)
    likelihood: dict[str, Any] = {"sigma_x": 0.3, "mixture": "pixel"}
    assert model == replace(small, num_slots=6, posterior_sigma_min=0.2, **likelihood)
    # IODINE keeps its sigma_x, because the preset's is the default of its own model class.
    iodine, small = preset_config("smoke", "iodine").model, PRESETS["iodine-small"].config.model
    assert isinstance(iodine, IodineConfig) and isinstance(small, IodineConfig)
    assert iodine == replace(small, num_slots=3)
    assert preset_config("smoke", "iodine").learning_rate == 3e-4


def test_model_names_and_run_directories() -> None:
    assert preset_config("smoke", "genesis-v2") == preset_config("smoke", "genesis_v2")
    assert preset_config("smoke", "genesis-v2").out == Path("runs/smoke-genesis-v2")
    assert preset_config("smoke", "genesis") is PRESETS["smoke"].config
    with pytest.raises(ValueError, match=r"^model .*'savi'"):
        preset_config("smoke", "savi")
    with pytest.raises(ValueError, match=r"^preset .*'big'"):
        preset_config("big", "monet")
