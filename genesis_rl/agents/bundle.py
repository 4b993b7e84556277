"""Agents on disk: a self-contained folder of settings, policy and encoder.

The folder holds agent.json (settings, versions, the encoder's fingerprint, scores),
policy.safetensors (the policy's weights) and, where the agent sees through one, encoder/ (a copy of
the pretrained model). Nothing in it is pickled: the environments, the encoder and the policy are
built anew from the settings. The agent that a training resumes from has training.pt beside these:
the optimiser's state and other plain data (see `genesis_rl.agents.resume`).
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
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

import genesis_rl
from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.encoders import make_encoder
from genesis_rl.agents.stack import build_ppo, make_vec_env
from genesis_rl.checkpoint import (
    Pretrained,
    fingerprint,
    load_pretrained,
    read_tensors,
    save_pretrained,
)
from genesis_rl.envs.make import check_imports
from genesis_rl.envs.slot_obs import InfoKey
from genesis_rl.files import current_folder, new_folder, read_folder, read_json, write_json
from genesis_rl.process import hardware
from genesis_rl.training.folder import STATE

FORMAT = 1
SETTINGS, POLICY, ENCODER = "agent.json", "policy.safetensors", "encoder"
# Settings that decide what the policy's inputs and actions mean. The file of the weights has a copy
# of them: an edited environment may have the same spaces.
_COPIED = (
    *("env", "env_options", "wrappers", "obs", "obs_key", "frame_layout", "render", "frame_size"),
    *("mask_geometry", "finetune", "encoder_refine_steps"),
)


class Agent(NamedTuple):
    """A loaded agent.

    Attributes:
        model: PPO on ``venv``; ``predict`` acts, ``learn`` goes on training with a new optimiser.
        venv: the environments, whose observations are what the agent sees.
        config: the settings it was trained with.
        metadata: the whole content of agent.json.
    """

    model: PPO
    venv: VecEnv
    config: AgentConfig
    metadata: dict[str, Any]


def save_agent(
    folder: str | os.PathLike[str],
    model: PPO,
    config: AgentConfig,
    encoder: Pretrained | None,
    *,
    metrics: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write an agent's folder, all of it or nothing.

    Args:
        folder: destination; an agent that lies there is replaced.
        model: PPO of `build_ppo`.
        config: its settings.
        encoder: the model whose slots it acts on; None where it sees without.
        metrics: JSON data on how good it is.
        state: the training state, tensors and plain data, of an agent that a training resumes from.
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
    num_envs: int = 1,
    vec: Literal["subproc", "dummy"] = "dummy",
    device: str = "cpu",
    encoder_device: str = "auto",
    env_options: Mapping[str, Any] | None = None,
    info_keys: tuple[InfoKey, ...] = (),
    trust_remote_code: bool = False,
) -> Agent:
    """Rebuild environments, encoder and policy from an agent's folder.

    Nothing that agent.json names is imported, called or read unless it is registered with
    Gymnasium or with this package, or ``trust_remote_code`` is set: see docs/guides/security.md.

    Args:
        folder: of `save_agent`, or of a run of agents/train.py, whose best agent is taken.
        num_envs: environments side by side.
        vec: "subproc" for one process each, "dummy" for all in this one.
        device: where the policy runs.
        encoder_device: where the encoder runs.
        env_options: options of the environment that differ from those of the training.
        info_keys: "frame" and "masks" to put in the environments' infos.
        trust_remote_code: allow agent.json to name modules, wrappers and paths of its environment.

    Returns:
        The agent; close ``venv`` after use.

    Raises:
        ValueError: if a file is missing, damaged, edited or of another agent, if the environment
            cannot be made, or if it needs ``trust_remote_code``; names what would be imported.
    """
    load = partial(
        _load,
        num_envs=num_envs,
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
    num_envs: int,
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
    config = replace(saved, num_envs=num_envs, vec=vec, encoder_device=encoder_device)
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
            f"{home / ENCODER} is not the encoder that the agent was trained with: its fingerprint "
            f"is {encoder.fingerprint[:12]}, agent.json has "
            f"{str(metadata.get('encoder_fingerprint'))[:12]}. Put the agent's folder back as it "
            "was saved, or train an agent on the new encoder."
        )
    venv = make_vec_env(config, encoder, info_keys=info_keys)
    try:
        with warnings.catch_warnings():
            # Fewer environments than in training may not fill PPO's minibatches.
            warnings.simplefilter("ignore", UserWarning)
            start = None
            if saved.finetune:  # its weights are among the policy's
                start = load_pretrained(home / ENCODER, device="cpu").model
            model = build_ppo(config, venv, device, model=start)
        check_spaces(model, metadata.get("spaces"), saved.env)
        load_policy(model, home)
        _check_unedited(metadata, home)
    except BaseException:
        venv.close()
        raise
    return Agent(model, venv, saved, metadata)


def _spaces(model: PPO) -> dict[str, str]:
    return {"observations": str(model.observation_space), "actions": str(model.action_space)}


def check_spaces(model: PPO, trained: Any, env: str) -> None:
    """Refuse environments other than the agent's; agents of before this was kept pass."""
    if not isinstance(trained, dict | None):
        raise ValueError(f"{SETTINGS} must have an object under spaces, got {trained!r}.")
    for name, space in _spaces(model).items():
        if trained is not None and space != trained.get(name):
            raise ValueError(
                f"the {name} of env {env!r} are now {space}, but the agent was trained with "
                f"{trained.get(name)}; wanted the versions and settings it was trained with."
            )


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of agent.json that must not be edited, as far as it has them."""
    entries = {"spaces": settings.get("spaces"), **settings["config"]}
    return {name: entries[name] for name in ("spaces", *_COPIED) if entries.get(name) is not None}


def _check_unedited(metadata: Mapping[str, Any], home: Path) -> None:
    """Refuse edited settings; agents of before they were copied pass."""
    with safe_open(home / POLICY, "pt") as file:
        saved: dict[str, Any] = json.loads((file.metadata() or {}).get("settings", "{}"))
    for name, value in _copied(metadata).items():
        if value != saved.get(name, value):
            raise ValueError(
                f"{name} must be {saved[name]!r} in {home / SETTINGS}, as the agent was saved, got "
                f"{value!r}; restore the file. To change options of the environment, pass "
                "env_options to load_agent."
            )


def _versions() -> dict[str, str]:
    packages = (genesis_rl, gymnasium, stable_baselines3, torch)
    return {package.__name__: str(package.__version__) for package in packages}


def recover_agent(folder: str | os.PathLike[str]) -> Path | None:
    """The agent in a folder, or in the folder of a run (the best one); None if there is none."""
    path = Path(folder).expanduser()
    for home in (path, path / "best", path / "last"):
        if (current_folder(home) / SETTINGS).is_file():
            return home
    return None


def _find(folder: str | os.PathLike[str]) -> Path:
    home = recover_agent(folder)
    if home is None:
        what = "holds no agent" if Path(folder).expanduser().exists() else "does not exist"
        raise ValueError(
            f"{folder} {what}; wanted a folder with {SETTINGS}, {POLICY} and {ENCODER}/."
        )
    return home


def read_settings(path: Path) -> dict[str, Any]:
    """Read agent.json.

    Raises:
        ValueError: if it is missing, damaged or of another format.
    """
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise ValueError(f"{path} is not of an agent of format {FORMAT}.")
    if "config" not in settings:
        raise ValueError(f"{path} lacks the entry config.")
    return settings


def load_policy(model: PPO, home: Path) -> None:
    """Put the policy of an agent's folder into PPO of the same settings.

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


def _weights(model: PPO) -> dict[str, Tensor]:
    """Parameters and buffers of the policy, each once: actor and critic share the extractor."""
    policy = model.policy
    named = [*policy.named_parameters(), *policy.named_buffers()]
    return {name: value.detach() for name, value in named}
