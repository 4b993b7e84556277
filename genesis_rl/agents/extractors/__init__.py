"""Features extractors of Stable-Baselines3 for sets of slots.

Inputs are slots (B, K, D), or slots stacked over time: (B, K, T * D) of VecFrameStack or
(B, T, K, D) of Gymnasium's FrameStackObservation. Stacked features of a slot are its last T states,
oldest first, which requires a constant order of the slots: the wrappers' default.

EncoderExtractor takes frames instead and contains the encoder. DictExtractor takes Dict
observations of slots or frames and other entries.
"""

from genesis_rl.agents.extractors.encoder import EncoderExtractor
from genesis_rl.agents.extractors.slots import (
    DeepSetsExtractor,
    DictExtractor,
    FlatSlotsExtractor,
    RelationExtractor,
    SlotExtractor,
    SlotSetExtractor,
)
from genesis_rl.models.set_layers import SlotScale

EXTRACTORS: dict[str, type[SlotExtractor]] = {
    "transformer": SlotSetExtractor,
    "relation": RelationExtractor,
    "deep_sets": DeepSetsExtractor,
    "mlp": FlatSlotsExtractor,
}
"""Extractors by their names in settings.

"transformer", "relation" and "deep_sets" have the arguments features_dim, width and layers
("transformer" also heads) and are invariant to the order of the slots; "mlp" has no arguments and
depends on the order.
"""

__all__ = [
    "EXTRACTORS",
    "DeepSetsExtractor",
    "DictExtractor",
    "EncoderExtractor",
    "FlatSlotsExtractor",
    "RelationExtractor",
    "SlotExtractor",
    "SlotScale",
    "SlotSetExtractor",
]
