"""Data of a world model's training: recorded episodes and their slots."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from genesis_rl.checkpoints.loading import pick_device
from genesis_rl.data.transitions import Transitions
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.world_model.actions import ActionSpec
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.model import SlotSpec
from genesis_rl.world_model.sequences import Sequences, encode

_GEOMETRY = 3


@dataclass(frozen=True, eq=False)
class WorldModelData:
    """Recorded episodes as slots of an encoder.

    Attributes:
        encoder: the frozen encoder.
        action_spec: the action space.
        slot_spec: the slots.
        transitions: recordings by split.
        sequences: their slots by split, on ``device``.
        device: device of the world model.
    """

    encoder: SlotEncoder
    action_spec: ActionSpec
    slot_spec: SlotSpec
    transitions: dict[str, Transitions]
    sequences: dict[str, Sequences]
    device: torch.device

    @classmethod
    def load(cls, config: WorldTrainConfig) -> Self:
        """Load the encoder and the recording's splits, and encode them.

        Without a test split, the validation split is used for the test.

        Raises:
            ValueError: if the recording has no steps, a split is missing or has other actions, or
                the frames do not match the encoder.
        """
        device = pick_device(config.device)
        transitions = {
            split: Transitions.open(config.data, split) for split in ("train", "validation")
        }
        try:
            transitions["test"] = Transitions.open(config.data, "test")
        except ValueError:
            transitions["test"] = transitions["validation"]
        spec = ActionSpec.from_json(transitions["train"].action_space)
        encoder = SlotEncoder(config.encoder, device=device)
        slot_spec = SlotSpec(
            encoder.fingerprint,
            encoder.num_slots,
            encoder.latent_sizes,
            config.mask_geometry,
            config.align,
        )
        sequences = {}
        for split, recorded in transitions.items():
            if not len(recorded):
                raise ValueError(f"data must have steps, got none in {recorded.pack.folder}.")
            features = encode(recorded, encoder, align=config.align, cache=config.cache)
            features = np.ascontiguousarray(features[..., : slot_spec.num_features])
            sequences[split] = Sequences.of(recorded, features, spec, device)
        return cls(encoder, spec, slot_spec, transitions, sequences, device)
