"""JSON keys of earlier versions and their present names."""

from collections.abc import Mapping
from typing import Any

OLD_KEYS = {
    # agent.json and run.json, under "config"
    "num_envs": "n_envs",
    "total_steps": "total_timesteps",
    "obs_key": "image_key",
    "eval_greedy": "eval_deterministic",
    "frame_layout": "image_layout",
    # settings and metrics of training in imagination
    "num_dreams": "n_imagined_envs",
    "trust": "uncertainty_quantile",
    "iterate": "rounds",
    "dream_steps": "imagined_steps",
    "dream_return": "imagined_return",
    # train.json of a pretraining
    "fresh": "reinit_modules",
    "beta_until": "beta_anneal_fraction",
    "trains": "trained_modules",
    "sigma_x_fraction": "sigma_x_anneal_fraction",
    "foreground_until": "foreground_anneal_fraction",
    "recompute": "activation_checkpointing",
    # config.json of a scene model, a world model and a scene probe
    "posterior_sigma_floor": "posterior_sigma_min",
    "glimpse_size": "window_size",
    "form": "slot_spec",
    "question": "target",
}


def rename_old_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON data with the present names of its keys.

    Args:
        data: object of a file of this or an earlier version; nested objects are not renamed.
    """
    return {OLD_KEYS.get(key, key): value for key, value in data.items()}
