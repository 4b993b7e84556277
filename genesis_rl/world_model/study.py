"""The data and the encoder of a world model's training, and what they make of each other."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from genesis_rl.checkpoint import pick_device
from genesis_rl.data.transitions import Transitions
from genesis_rl.perception import SlotEncoder
from genesis_rl.world_model.actions import ActionSpec
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.model import SlotForm
from genesis_rl.world_model.sequences import Sequences, encode

_GEOMETRY = 3


@dataclass(frozen=True, eq=False)
class Study:
    """Recorded episodes as the slots of an encoder.

    Attributes:
        encoder: the frozen scene model.
        spec: the actions.
        form: the slots.
        transitions: recordings by split.
        sequences: the same as slots, on ``device``.
        device: where the world model runs.
    """

    encoder: SlotEncoder
    spec: ActionSpec
    form: SlotForm
    transitions: dict[str, Transitions]
    sequences: dict[str, Sequences]
    device: torch.device

    @classmethod
    def open(cls, config: WorldTrainConfig) -> Self:
        """Load the encoder and the recording's splits, and encode them.

        Without a test split, the validation split is the test.

        Raises:
            ValueError: if the recording holds no steps, a split is missing or of other actions, or
                the frames do not fit the encoder.
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
        form = SlotForm(
            encoder.fingerprint,
            encoder.num_slots,
            encoder.latent_sizes,
            config.mask_geometry,
            config.align,
        )
        sequences = {}
        for split, recorded in transitions.items():
            if not len(recorded):
                raise ValueError(f"{recorded.pack.folder} has no steps; wanted some.")
            features = encode(recorded, encoder, align=config.align, cache=config.cache)
            features = np.ascontiguousarray(features[..., : form.num_features])
            sequences[split] = Sequences.of(recorded, features, spec, device)
        return cls(encoder, spec, form, transitions, sequences, device)
