"""Resuming the training of an agent: the checkpoint in a run directory, and the training state.

The last agent of a run (``last/``) is its checkpoint: beside the agent's files it has training.pt,
tensors and plain data that are read without unpickling objects.
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
    load_policy,
    read_settings,
    recover_agent,
)
from genesis_rl.training import folder
from genesis_rl.training.folder import STATE, read_state

#: Settings of a run of agents/dream.py, in its folder.
DREAM = "dream.json"
_EPISODE = ("r", "l", "t")


def find_checkpoint(out: Path, *, resume: bool) -> Path | None:
    """Return the agent that a run is resumed from.

    Args:
        out: the run directory.
        resume: whether a run in it may be resumed.

    Returns:
        ``last/``; ``best/`` where only that is left; None if there is neither, so that a run
        starts at step 0.

    Raises:
        ValueError: if the folder is an agent or another program's run, or contains a run and
            ``resume`` is off.
    """
    if (out / SETTINGS).is_file():
        raise ValueError(f"out must be a run directory, got the agent {out}; choose another.")
    agents = [recover_agent(out / name) for name in ("last", "best")]
    found = [home for home in agents if home is not None]
    others = ("last", "best", folder.SETTINGS)
    if not found and any((out / name).exists() for name in others):
        raise ValueError(
            f"out must be a new folder or a run of agents/train.py, got {out}, which contains the "
            "run of another program; choose another."
        )
    if (found or (out / log.FILE).exists()) and not resume:
        raise ValueError(
            f"out {out} already holds a run; add --resume to go on with it, or choose another."
        )
    return found[0] if found else None


def training_state(model: PPO, seconds: float) -> dict[str, Any]:
    """Return what a resumed training needs beside the agent: tensors and plain data.

    Args:
        model: PPO, after some steps.
        seconds: time that the training took so far.
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
        encoder_fingerprint: of the encoder that the agent observes through; None without one.

    Returns:
        The time that the training took so far, in seconds.

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
            f"{checkpoint} has no {STATE}, which earlier versions did not write: the optimiser "
            "starts anew.",
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
