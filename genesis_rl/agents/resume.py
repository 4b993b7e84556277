"""Resuming an agent's training: the checkpoint in a run directory, and the training state.

The last agent of a run (``last/``) is its checkpoint. In addition to the agent's files it contains
training.pt, tensors and plain data that are read without unpickling objects.
"""

import warnings
from collections import deque
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import recursive_getattr

from genesis_rl.agents.bundle import (
    SETTINGS,
    check_spaces,
    find_agent,
    load_policy,
    read_settings,
)
from genesis_rl.training import folder
from genesis_rl.training.folder import STATE, read_state
from genesis_rl.utils import log

#: Settings of a run of agents/train_in_imagination.py, and their name in earlier versions.
IMAGINATION, _OLD_IMAGINATION = "imagination.json", "dream.json"
_EPISODE = ("r", "l", "t")


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
    others = ("last", "best", folder.SETTINGS)
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
