"""Saving and loading agents as self-contained folders of settings, policy and encoder.

A folder contains agent.json (settings, versions, the encoder's fingerprint, metrics),
policy.safetensors (the policy's weights) and, for observations inferred by an encoder, encoder/ (a
copy of the pretrained model). Nothing is pickled: environments, encoder and policy are rebuilt from
the settings. Checkpoints also contain training.pt: the optimiser's state and other plain data (see
`genesis_rl.agents.resume`).
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import stable_baselines3
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

import genesis_rl
from genesis_rl.agents.algorithms import build_model
from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.encoders import make_encoder
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints.loading import (
    Pretrained,
    fingerprint,
    load_pretrained,
    read_tensors,
    save_pretrained,
)
from genesis_rl.checkpoints.weights import rename_old_keys
from genesis_rl.envs.make import check_imports
from genesis_rl.envs.wrappers.slot_obs import InfoKey
from genesis_rl.training.folder import STATE
from genesis_rl.utils.files import current_folder, new_folder, read_folder, read_json, write_json
from genesis_rl.utils.process import hardware

FORMAT = 1
SETTINGS, POLICY, ENCODER = "agent.json", "policy.safetensors", "encoder"
# Settings that determine the meaning of the policy's inputs and actions. The weights file contains
# a copy of them, because an edited environment may have the same spaces.
_COPIED = (
    *("env", "env_options", "wrappers", "obs", "image_key", "image_layout", "render", "frame_size"),
    *("mask_geometry", "finetune", "encoder_refine_steps", "algo", "keep", "crop"),
)


class Agent(NamedTuple):
    """A loaded agent.

    Attributes:
        model: the algorithm on ``venv``; ``learn`` continues training with a new optimiser.
        venv: the environments, with the agent's observations.
        config: the settings of its training.
        metadata: the content of agent.json.
    """

    model: BaseAlgorithm
    venv: VecEnv
    config: AgentConfig
    metadata: dict[str, Any]


def save_agent(
    folder: str | os.PathLike[str],
    model: BaseAlgorithm,
    config: AgentConfig,
    encoder: Pretrained | None,
    *,
    metrics: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write an agent's folder atomically.

    Args:
        folder: destination; an existing agent is replaced.
        model: algorithm of `build_model`.
        config: its settings.
        encoder: its encoder; None for observations without one.
        metrics: evaluation metrics, as JSON data.
        state: training state of a checkpoint, tensors and plain data.
    """
    settings = {
        "format": FORMAT,
        "versions": _versions(),
        "hardware": hardware(torch.device(model.device)),
        "encoder_fingerprint": encoder and fingerprint(encoder.model),
        "config": config.to_json(),
        "spaces": _spaces(model),
        "steps": model.num_timesteps,
        "metrics": dict(metrics or {}),
    }
    with new_folder(folder) as temporary:
        weights = {name: value.contiguous() for name, value in _weights(model).items()}
        save_file(weights, temporary / POLICY, {"settings": json.dumps(_copied(settings))})
        if encoder is not None:
            (temporary / ENCODER).mkdir()
            save_pretrained(
                encoder.model,
                temporary / ENCODER,
                preprocessing=encoder.preprocessing,
                extra=encoder.metadata,
            )
        if state is not None:
            torch.save(dict(state), temporary / STATE)
        write_json(temporary / SETTINGS, settings)


def load_agent(
    folder: str | os.PathLike[str],
    *,
    n_envs: int = 1,
    vec: Literal["subproc", "dummy"] = "dummy",
    device: str = "cpu",
    encoder_device: str = "auto",
    env_options: Mapping[str, Any] | None = None,
    info_keys: tuple[InfoKey, ...] = (),
    trust_remote_code: bool = False,
) -> Agent:
    """Rebuild environments, encoder and policy from an agent's folder.

    Names in agent.json are imported, called or read only if they are registered with Gymnasium or
    this package, or if ``trust_remote_code`` is set: see docs/guides/security.md.

    Args:
        folder: of `save_agent`, or run directory of agents/train.py, whose best agent is loaded.
        n_envs: parallel environments.
        vec: "subproc" for one process per environment, "dummy" for all in this process.
        device: device of the policy.
        encoder_device: device of the encoder.
        env_options: options of the environment that override those of the training.
        info_keys: entries to add to the environments' infos: "frame" and "masks".
        trust_remote_code: allow agent.json to name modules, wrappers and paths of its environment.

    Returns:
        The agent; close ``venv`` after use.

    Raises:
        ValueError: if a file is missing, damaged, edited or of another agent, if the environment
            cannot be created, or if ``trust_remote_code`` is needed; names the imports.
    """
    load = partial(
        _load,
        n_envs=n_envs,
        vec=vec,
        device=device,
        encoder_device=encoder_device,
        env_options=env_options,
        info_keys=info_keys,
        trust_remote_code=trust_remote_code,
    )
    return read_folder(_find(folder), load, discard=lambda agent: agent.venv.close())


def _load(
    home: Path,
    *,
    n_envs: int,
    vec: Literal["subproc", "dummy"],
    device: str,
    encoder_device: str,
    env_options: Mapping[str, Any] | None,
    info_keys: tuple[InfoKey, ...],
    trust_remote_code: bool,
) -> Agent:
    """Load an agent from its own folder; see `load_agent`."""
    metadata = read_settings(home / SETTINGS)
    saved = AgentConfig.from_json(metadata["config"])
    config = replace(saved, n_envs=n_envs, vec=vec, encoder_device=encoder_device)
    if not trust_remote_code:
        stored = {k: v for k, v in saved.options.items() if k not in (env_options or {})}
        env = check_imports(saved.env, stored, saved.wrappers, source=home / SETTINGS)
        config = replace(config, env=env)
    if env_options:
        config = replace(config, env_options=json.dumps({**saved.options, **env_options}))
    if saved.encoder is not None and not (home / ENCODER).is_dir():
        raise ValueError(f"{home / ENCODER} is missing; copy the agent's whole folder.")
    encoder = None if saved.encoder is None else make_encoder(config, home / ENCODER)
    if encoder is not None and encoder.fingerprint != metadata.get("encoder_fingerprint"):
        raise ValueError(
            f"{home / ENCODER} must be the encoder of the agent's training, with fingerprint "
            f"{str(metadata.get('encoder_fingerprint'))[:12]}, got {encoder.fingerprint[:12]}. "
            "Restore the agent's folder, or train an agent on the new encoder."
        )
    venv = make_vec_env(config, encoder, info_keys=info_keys)
    try:
        with warnings.catch_warnings():
            # With fewer environments than in training, minibatches may be truncated.
            warnings.simplefilter("ignore", UserWarning)
            trained = None
            if saved.finetune:  # the policy's weights include the encoder's
                trained = load_pretrained(home / ENCODER, device="cpu").model
            model = build_model(config, venv, device, encoder=trained)
        check_spaces(model, metadata.get("spaces"), saved.env)
        load_policy(model, home)
        _check_unedited(metadata, home)
    except BaseException:
        venv.close()
        raise
    return Agent(model, venv, saved, metadata)


def _spaces(model: BaseAlgorithm) -> dict[str, str]:
    return {"observations": str(model.observation_space), "actions": str(model.action_space)}


def check_spaces(model: BaseAlgorithm, trained: Any, env: str) -> None:
    """Check that the environment has the agent's spaces, which early versions did not store."""
    if not isinstance(trained, dict | None):
        raise ValueError(f"spaces must be an object in {SETTINGS}, got {trained!r}.")
    for name, space in _spaces(model).items():
        if trained is not None and space != trained.get(name):
            raise ValueError(
                f"env {env!r} must have the {name} of the agent's training, {trained.get(name)}, "
                f"got {space}. Use the versions and settings of the training."
            )


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of agent.json that must not be edited."""
    entries = {"spaces": settings.get("spaces"), **settings["config"]}
    return {name: entries[name] for name in ("spaces", *_COPIED) if entries.get(name) is not None}


def _check_unedited(metadata: Mapping[str, Any], home: Path) -> None:
    """Check that the settings were not edited, by the copy that early versions did not store."""
    with safe_open(home / POLICY, "pt") as file:
        saved = rename_old_keys(json.loads((file.metadata() or {}).get("settings", "{}")))
    for name, value in _copied(metadata).items():
        if value != saved.get(name, value):
            raise ValueError(
                f"{name} must be {saved[name]!r} in {home / SETTINGS}, as at saving, "
                f"got {value!r}. Restore the file; to change options of the environment, pass "
                "env_options to load_agent."
            )


def _versions() -> dict[str, str]:
    packages = (genesis_rl, gymnasium, stable_baselines3, torch)
    return {package.__name__: str(package.__version__) for package in packages}


def find_agent(folder: str | os.PathLike[str]) -> Path | None:
    """Return the folder of an agent, or of the best agent in a run directory; None without one."""
    path = Path(folder).expanduser()
    for home in (path, path / "best", path / "last"):
        if (current_folder(home) / SETTINGS).is_file():
            return home
    return None


def _find(folder: str | os.PathLike[str]) -> Path:
    home = find_agent(folder)
    if home is None:
        if not Path(folder).expanduser().exists():
            raise ValueError(f"folder must exist, got {folder}.")
        raise ValueError(f"folder must contain {SETTINGS}, {POLICY} and {ENCODER}/, got {folder}.")
    return home


def read_settings(path: Path) -> dict[str, Any]:
    """Read agent.json, also of an earlier version.

    Raises:
        ValueError: if it is missing, damaged or of another format.
    """
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise ValueError(f"{path} must be an agent.json of format {FORMAT}.")
    if "config" not in settings:
        raise ValueError(f"{path} must have the entry config.")
    for name in ("config", "metrics"):
        if isinstance(settings.get(name), dict):
            settings[name] = rename_old_keys(settings[name])
    return settings


def load_policy(model: BaseAlgorithm, home: Path) -> None:
    """Load the policy of an agent's folder into a model of the same settings.

    Raises:
        ValueError: if the file is missing, damaged or of another policy.
    """
    weights = _weights(model)
    state = read_tensors(
        home / POLICY,
        weights,
        other=f"{SETTINGS} is of another policy",
        shapes=f"the policy of {SETTINGS}",
    )
    for name, value in weights.items():
        value.copy_(state[name])


def _weights(model: BaseAlgorithm) -> dict[str, Tensor]:
    """Return the policy's parameters and buffers, without duplicates of shared modules."""
    policy = model.policy
    named = [*policy.named_parameters(), *policy.named_buffers()]
    return {name: value.detach() for name, value in named}
