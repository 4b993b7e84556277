"""Validation of models' configs."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from genesis_rl.models import MODELS, build_model
from genesis_rl.models.likelihood import Gaussian

BAD: dict[str, dict[str, Any]] = {
    "genesis_s": {
        "encoder_channels": (4, 4),
        "decoder_channels": (4, 4, 4, 4, 0),
        "mask_latent_size": 0,
        "component_decoder_channels": 0,
        "mask_decoder": "unet",
        "mask_broadcast_channels": 0,
        "component_decoder": "gated",
        "posterior_sigma_bias": math.nan,
        "posterior_passes": 0,
    },
    "genesis": {"component_encoder_channels": (), "prior_mlp_size": 0},
    "monet": {"attention_channels": 0, "component_encoder_channels": (4, 0)},
    "bd_vae": {"latent_size": 0, "encoder_channels": (4,), "decoder_channels": 0},
    "dc_vae": {"feature_size": 0, "decoder_channels": (4, 4)},
    "genesis_v2": {
        "encoder_channels": 12,
        "decoder_channels": 0,
        "embedding_size": 1,
        "prior_lstm_size": 0,
    },
    "iodine": {
        "num_iterations": 0,
        "kernel_size": 4,
        "refinement_channels": (),
        "refinement_lstm_size": 0,
    },
}
BAD_ANYWHERE: dict[str, Any] = {
    "image_size": 48,
    "sigma_x": 0.0,
    "posterior_sigma_min": 0.0,
    "num_slots": 1,
    "mixture": "both",
}


@pytest.mark.parametrize("name", MODELS)
def test_bad_configs(name: str) -> None:
    config_class = MODELS[name][0]
    known = {field.name for field in dataclasses.fields(config_class)}
    for field, value in (BAD_ANYWHERE | BAD[name]).items():
        if field in known:
            with pytest.raises(ValueError, match=field):
                config_class(**{field: value})
        else:  # a VAE has one slot and hence no mixture
            assert field in ("num_slots", "mixture") and name.endswith("vae")


def test_build_model_refuses_other_configs() -> None:
    with pytest.raises(TypeError, match=r"^config "):
        build_model(Gaussian(torch.zeros(1), torch.ones(1)))
