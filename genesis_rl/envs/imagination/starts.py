"""Recorded initial scenes of imagined rollouts."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.imagination.options import ImaginationOptions
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.sequences import encode


def recorded_starts(options: ImaginationOptions, encoder: SlotEncoder, world: WorldModel) -> Tensor:
    """Return the initial scenes of a recording.

    The slots of the recording are cached, as for the training of world models.

    Args:
        options: ``data``, ``data_split`` and ``data_frames``.
        encoder: the encoder.
        world: the world model, which defines the features of slots.

    Returns:
        (M, K, D) float32 on the CPU.

    Raises:
        ValueError: if the recording has no steps, its action space is not the world model's, or
            its frames do not match the encoder.
    """
    recording = Transitions.open(Path(str(options.data)), options.data_split)
    spec = ActionSpec.from_json(recording.action_space)
    if spec != world.action_spec:
        raise ValueError(
            f"data must have the world model's action space, {world.action_spec.to_json()}, got "
            f"{recording.pack.folder} with {spec.to_json()}."
        )
    is_last = np.zeros(len(recording.first), np.bool_)
    is_last[recording.episodes[:, 1]] = True
    selected = (recording.first if options.data_frames == "first" else ~is_last) & ~is_last
    if not selected.any():
        raise ValueError(f"data must contain steps, got none in {recording.pack.folder}.")
    features = encode(recording, encoder, align=world.slot_spec.aligned)[selected]
    return torch.from_numpy(features[..., : world.slot_spec.num_features].copy())
