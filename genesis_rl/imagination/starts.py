"""Scenes that were seen, for dreams to start from."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genesis_rl.data.transitions import Transitions
from genesis_rl.imagination.options import DreamOptions
from genesis_rl.perception import SlotEncoder
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.sequences import encode


def recorded_starts(options: DreamOptions, encoder: SlotEncoder, world: WorldModel) -> Tensor:
    """Take the scenes of a recording that dreams may start from.

    The recording is encoded once, as for the training of world models, and kept.

    Args:
        options: ``data``, ``data_split`` and ``data_frames``.
        encoder: makes the slots.
        world: what their form follows.

    Returns:
        (M, K, D) float32 on the CPU.

    Raises:
        ValueError: if there is no recording of steps, its actions are not the world model's, or
            its frames do not fit the encoder.
    """
    recording = Transitions.open(Path(str(options.data)), options.data_split)
    spec = ActionSpec.from_json(recording.action_space)
    if spec != world.action_spec:
        raise ValueError(
            f"{recording.pack.folder} has the actions {spec.to_json()}, but the world model takes"
            f" {world.action_spec.to_json()}; wanted a recording of the same actions."
        )
    last = np.zeros(len(recording.first), np.bool_)
    last[recording.episodes[:, 1]] = True
    chosen = (recording.first if options.data_frames == "first" else ~last) & ~last
    if not chosen.any():
        raise ValueError(f"{recording.pack.folder} has no steps; wanted some.")
    features = encode(recording, encoder, align=world.form.aligned)[chosen]
    return torch.from_numpy(features[..., : world.form.num_features].copy())
