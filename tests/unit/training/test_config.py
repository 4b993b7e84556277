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
from genesis_rl.presets import PRESETS
from genesis_rl.training import PretrainConfig

N = 9  # images of a pack


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1")
            for name in (
                "steps",
                "batch_size",
                "log_every",
                "eval_every",
                "eval_images",
                "save_every",
            )
        ),
        ({"beta_end": 0.0}, "^beta_end must be"),
        ({"beta_anneal_fraction": 0.0}, "^beta_anneal_fraction must be"),
        ({"learning_rate": 0.0}, "^learning_rate must be"),
        ({"learning_rate": math.nan}, "^learning_rate must be"),
        ({"foreground_anneal_fraction": -0.5}, "^foreground_anneal_fraction must be"),
        ({"max_minutes": 0.0}, "^max_minutes must be"),
        ({"clip_norm": -1.0}, "^clip_norm must be"),
        ({"threads": 0}, "^threads must be"),
        ({"foreground_weight": 0.5}, "^foreground_weight must be"),
        ({"foreground_weight": math.nan}, "^foreground_weight must be"),
        ({"warmup_steps": -1}, "^warmup_steps must be"),
        ({"seed": -1}, "^seed must be"),
        ({"seed": 2**63}, "^seed must be"),
        ({"schedule": "linear"}, "^schedule must be"),
        ({"objective": "vae"}, "^objective must be"),
        ({"precision": "fp16"}, "^precision must be"),
        ({"data_options": "[1]"}, "^data_options must be"),
        ({"data_options": "{"}, "^data_options must be"),
        ({"reinit_modules": ("encoder",)}, "^reinit_modules must be"),
        ({"activation_checkpointing": True, "compile": True}, "^activation_checkpointing must be"),
        (
            {"activation_checkpointing": True, "model": BdVaeConfig()},
            "^activation_checkpointing must be.*BdVae",
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
    with pytest.raises(ValueError, match=f"^batch_size must be at most the {N} images"):
        dataclasses.replace(config, batch_size=10).open_data("train")
    assert len(dataclasses.replace(config, batch_size=10).open_data("validation")) == N
    other = write_pack(tmp_path / "other", side=64)
    with pytest.raises(ValueError, match=r"^data must have images of 32 x 32 px"):
        dataclasses.replace(config, data=str(other.folder)).open_data("train")
    with pytest.raises(TypeError, match=r"^options must be"):
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
