"""Saving, loading and resuming agents as self-contained folders of settings, policy and encoder.

A folder contains agent.json (settings, versions, the encoder's fingerprint, metrics),
policy.safetensors (the policy's weights) and, for observations inferred by an encoder, encoder/ (a
copy of the pretrained model). Nothing is pickled: environments, encoder and policy are rebuilt from
the settings.

The last agent of a run (``last/``) is its checkpoint. It also contains training.pt: the optimiser's
state, a replay buffer and plain data.
"""

import json
import os
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy.typing as npt
import stable_baselines3
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

import genesis_rl
from genesis_rl.agents.algorithms import build_model
from genesis_rl.agents.config import AgentConfig
from genesis_rl.agents.observations import make_encoder
from genesis_rl.agents.stack import make_vec_env
from genesis_rl.checkpoints.loading import (
    Pretrained,
    fingerprint,
    load_pretrained,
    read_tensors,
    save_pretrained,
)
from genesis_rl.checkpoints.weights import find_folder, rename_old_keys
from genesis_rl.envs.make import check_imports
from genesis_rl.envs.wrappers.slot_obs import InfoKey
from genesis_rl.training import folder as training_folder
from genesis_rl.training.folder import STATE, read_state
from genesis_rl.utils import log
from genesis_rl.utils.files import new_folder, read_folder, read_json, write_json
from genesis_rl.utils.process import hardware

FORMAT = 1
SETTINGS, POLICY, ENCODER = "agent.json", "policy.safetensors", "encoder"
#: Settings of a run of agents/train_in_imagination.py, and their name in earlier versions.
IMAGINATION, _OLD_IMAGINATION = "imagination.json", "dream.json"
_EPISODE = ("r", "l", "t")
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

    def read(home: Path) -> Agent:
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

    return read_folder(_find(folder), read, discard=lambda agent: agent.venv.close())


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
    return find_folder(Path(folder).expanduser(), SETTINGS)


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


def imagination_settings(out: Path) -> Path | None:
    """Return the settings of a run of agents/train_in_imagination.py; None for other folders."""
    paths = [out / name for name in (IMAGINATION, _OLD_IMAGINATION) if (out / name).exists()]
    return paths[0] if paths else None


def find_checkpoint(out: Path, *, resume: bool) -> Path | None:
    """Return the agent from which a run is resumed.

    Args:
        out: the run directory.
        resume: whether to resume an existing run.

    Returns:
        ``last/``; ``best/`` if only that exists; None without either, to start at step 0.

    Raises:
        ValueError: if the folder is an agent or another program's run, or contains a run and
            ``resume`` is off.
    """
    if (out / SETTINGS).is_file():
        raise ValueError(f"out must be a run directory, got the agent {out}; choose another.")
    agents = [find_agent(out / name) for name in ("last", "best")]
    existing = [home for home in agents if home is not None]
    others = ("last", "best", training_folder.SETTINGS)
    if not existing and any((out / name).exists() for name in others):
        raise ValueError(
            f"out must be a new folder or a run of agents/train.py, got {out}, which contains the "
            "run of another program; choose another."
        )
    if (existing or (out / log.FILE).exists()) and not resume:
        raise ValueError(
            f"out must be a new folder, got {out}, which contains a run; add --resume to continue "
            "it, or choose another."
        )
    return existing[0] if existing else None


def training_state(model: BaseAlgorithm, seconds: float) -> dict[str, Any]:
    """Return the training state in addition to the agent, as tensors and plain data.

    Args:
        model: the algorithm.
        seconds: elapsed time of the training.

    Returns:
        The state, with the transitions of a replay buffer.
    """
    modules, variables = model._get_torch_save_params()
    optimisers = [name for name in modules if name.endswith("optimizer")]
    state: dict[str, Any] = {
        "seconds": seconds,
        "optimisers": {name: recursive_getattr(model, name).state_dict() for name in optimisers},
        "variables": {name: getattr(model, name).detach() for name in variables},
        "updates": model._n_updates,
        "episodes": [[float(e[name]) for name in _EPISODE] for e in model.ep_info_buffer or ()],
        "successes": [float(success) for success in model.ep_success_buffer or ()],
    }
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        filled = len(buffer.actions) if buffer.full else buffer.pos
        arrays = {name: torch.from_numpy(array[:filled]) for name, array in _arrays(buffer).items()}
        state["replay"] = {"pos": buffer.pos, "full": buffer.full, "arrays": arrays}
        if isinstance(buffer, HerReplayBuffer):
            state["replay"]["episode_start"] = torch.from_numpy(buffer._current_ep_start)
    return state


def _arrays(buffer: ReplayBuffer) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a replay buffer, which share its memory."""
    names = ["observations", "next_observations", "actions", "rewards", "dones", "timeouts"]
    if isinstance(buffer, HerReplayBuffer):
        names += ["ep_start", "ep_length"]
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        value = getattr(buffer, name)
        parts = value.items() if isinstance(value, dict) else [("", value)]
        arrays |= {f"{name}/{part}": array for part, array in parts}
    return arrays


def _restore_replay(buffer: ReplayBuffer, state: dict[str, Any]) -> None:
    """Restore the transitions; unfinished episodes, which are not continued, are truncated."""
    for name, array in _arrays(buffer).items():
        saved = state["arrays"][name].cpu().numpy()
        array[: len(saved)] = saved
    buffer.pos, buffer.full = state["pos"], state["full"]
    if isinstance(buffer, HerReplayBuffer):
        buffer._current_ep_start = state["episode_start"].cpu().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the truncation
            buffer.truncate_last_trajectory()


def restore(model: BaseAlgorithm, checkpoint: Path, encoder_fingerprint: str | None) -> float:
    """Restore policy, optimisers, replay buffer, step count and statistics of the last episodes.

    Args:
        model: new model of the run's settings.
        checkpoint: of `find_checkpoint`.
        encoder_fingerprint: fingerprint of the encoder; None without one.

    Returns:
        The elapsed time of the training in seconds.

    Raises:
        ValueError: if a file is damaged, or the encoder or the environment has changed.
    """
    metadata = read_settings(checkpoint / SETTINGS)
    trained = metadata.get("encoder_fingerprint")
    if encoder_fingerprint != trained:
        raise ValueError(
            f"encoder must be the one of the run in {checkpoint}, fingerprint "
            f"{str(trained)[:12]}, got {str(encoder_fingerprint)[:12]}; resume with the same "
            "encoder, or choose another out."
        )
    check_spaces(model, metadata.get("spaces"), metadata["config"]["env"])
    load_policy(model, checkpoint)
    model.num_timesteps = metadata["steps"]
    path = checkpoint / STATE
    if not path.is_file():
        warnings.warn(
            f"{checkpoint} has no {STATE}, which earlier versions did not write: the optimiser is "
            "initialised anew.",
            stacklevel=2,
        )
        return 0.0
    state = read_state(path, model.device)
    try:
        # Earlier versions have the optimiser of PPO only.
        optimisers = state.get("optimisers") or {"policy.optimizer": state["optimiser"]}
        for name, optimiser in optimisers.items():
            recursive_getattr(model, name).load_state_dict(optimiser)
        for name, variable in state.get("variables", {}).items():
            getattr(model, name).data.copy_(variable)
        if "replay" in state:
            _restore_replay(model.replay_buffer, state["replay"])  # type: ignore[attr-defined]
        model._n_updates = state["updates"]
        episodes = [dict(zip(_EPISODE, episode, strict=True)) for episode in state["episodes"]]
        model.ep_info_buffer = deque(episodes, model._stats_window_size)
        model.ep_success_buffer = deque(state["successes"], model._stats_window_size)
        return float(state["seconds"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
