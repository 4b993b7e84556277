"""Resuming an agent's training: the checkpoint in a run directory, and the training state.

The last agent of a run (``last/``) is its checkpoint. In addition to the agent's files it contains
training.pt, tensors and plain data that are read without unpickling objects.
"""

import warnings
from collections import deque
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO

from genesis_rl import log
from genesis_rl.agents.bundle import (
    SETTINGS,
    check_spaces,
    find_agent,
    load_policy,
    read_settings,
)
from genesis_rl.training import folder
from genesis_rl.training.folder import STATE, read_state

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


def training_state(model: PPO, seconds: float) -> dict[str, Any]:
    """Return the training state in addition to the agent, as tensors and plain data.

    Args:
        model: PPO.
        seconds: elapsed time of the training.
    """
    return {
        "seconds": seconds,
        "optimiser": model.policy.optimizer.state_dict(),
        "updates": model._n_updates,
        "episodes": [[float(e[name]) for name in _EPISODE] for e in model.ep_info_buffer or ()],
        "successes": [float(success) for success in model.ep_success_buffer or ()],
    }


def restore(model: PPO, checkpoint: Path, encoder_fingerprint: str | None) -> float:
    """Restore policy, optimiser, step count and statistics of the last episodes.

    Args:
        model: new PPO of the run's settings.
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
        model.policy.optimizer.load_state_dict(state["optimiser"])
        model._n_updates = state["updates"]
        episodes = [dict(zip(_EPISODE, episode, strict=True)) for episode in state["episodes"]]
        model.ep_info_buffer = deque(episodes, model._stats_window_size)
        model.ep_success_buffer = deque(state["successes"], model._stats_window_size)
        return float(state["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
