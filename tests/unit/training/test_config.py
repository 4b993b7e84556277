"""Validation of pretraining configs, also against data; presets."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genesis_rl.data.pack import Pack
from genesis_rl.models import BdVaeConfig, build_model
from genesis_rl.training import PretrainConfig
from genesis_rl.training.presets import PRESETS

N = 9  # images of a pack


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({name: 0}, rf"^{name} ")
            for name in (
                "steps",
                "batch_size",
                "log_every",
                "eval_every",
                "eval_images",
                "save_every",
            )
        ),
        ({"beta_end": 0.0}, r"^beta_end "),
        ({"beta_anneal_fraction": 0.0}, r"^beta_anneal_fraction "),
        ({"learning_rate": 0.0}, r"^learning_rate "),
        ({"learning_rate": math.nan}, r"^learning_rate "),
        ({"foreground_anneal_fraction": -0.5}, r"^foreground_anneal_fraction "),
        ({"max_minutes": 0.0}, r"^max_minutes "),
        ({"clip_norm": -1.0}, r"^clip_norm "),
        ({"threads": 0}, r"^threads "),
        ({"foreground_weight": 0.5}, r"^foreground_weight "),
        ({"foreground_weight": math.nan}, r"^foreground_weight "),
        ({"warmup_steps": -1}, r"^warmup_steps "),
        ({"seed": -1}, r"^seed "),
        ({"seed": 2**63}, r"^seed "),
        ({"schedule": "linear"}, r"^schedule "),
        ({"objective": "vae"}, r"^objective "),
        ({"precision": "fp16"}, r"^precision "),
        ({"data_options": "[1]"}, r"^data_options "),
        ({"data_options": "{"}, r"^data_options "),
        ({"reinit_modules": ("encoder",)}, r"^reinit_modules "),
        ({"activation_checkpointing": True, "compile": True}, r"^activation_checkpointing "),
        (
            {"activation_checkpointing": True, "model": BdVaeConfig()},
            r"^activation_checkpointing .*BdVae",
        ),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**change)


def test_data_are_checked_against_the_model(
    config: PretrainConfig, write_pack: Callable[..., Pack], tmp_path: Path
) -> None:
    assert len(config.open_data("train")) == N
    with pytest.raises(ValueError, match=r"^batch_size "):
        dataclasses.replace(config, batch_size=10).open_data("train")
    assert len(dataclasses.replace(config, batch_size=10).open_data("validation")) == N
    other = write_pack(tmp_path / "other", side=64)
    with pytest.raises(ValueError, match=r"^data "):
        dataclasses.replace(config, data=str(other.folder)).open_data("train")
    with pytest.raises(TypeError, match=r"^options "):
        dataclasses.replace(config, data_options='{"seed": 1}').open_data("train")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_their_models(name: str) -> None:
    about, config, before = PRESETS[name]
    assert about
    model = build_model(config.model)
    for stage in before:  # whose weights it starts from
        shapes = {k: v.shape for k, v in build_model(stage.model).state_dict().items()}
        own = {k: v.shape for k, v in model.state_dict().items()}
        differ = {
            k.split(".")[0] for k in own.keys() | shapes.keys() if own.get(k) != shapes.get(k)
        }
        assert differ <= set(config.reinit_modules)
    assert model.config == config.model
    options = json.loads(config.data_options)
    assert options.get("image_size", 64) == config.model.image_size
    assert not config.resume and config.out.parts[0] == "runs"
