"""Pretraining's settings: what is refused, what the data must fit, the presets."""

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
        ({"precision": "fp16"}, "precision is 'fp16'; wanted 'auto' or 'bf16' or 'fp32'"),
        ({"data_options": "[1]"}, r"data_options is '\[1\]'; wanted a JSON object"),
        ({"data_options": "{"}, "data_options is '{', which is not JSON"),
        ({"fresh": ("encoder",)}, r"fresh is \('encoder',\), but init is None"),
        ({"recompute": True, "compile": True}, "recompute and compile are both set"),
        ({"recompute": True, "model": BdVaeConfig()}, "recompute is set, but model is a BdVae;"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**change)


def test_data_are_checked_against_the_model(
    config: PretrainConfig, write_pack: Callable[..., Pack], tmp_path: Path
) -> None:
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
    about, config, before = PRESETS[name]
    assert about
    assert all(stage.model == config.model and stage.data == config.data for stage in before)
    model = build_model(config.model)
    assert model.config == config.model
    options = json.loads(config.data_options)
    assert options.get("image_size", 64) == config.model.image_size
    assert not config.resume and config.out.parts[0] == "runs"
