"""Features extractors of Stable-Baselines3 for observations that are sets of slots.

All of them take slots (B, K, D), and slots stacked over time: (B, K, T * D), as VecFrameStack makes
them, or (B, T, K, D), as Gymnasium's FrameStackObservation does. Each slot is then described by its
last T states, oldest first, so the slots should keep their places: ``align=True`` of the wrappers.

EncoderExtractor takes frames instead and holds the encoder itself.
"""

from genesis_rl.agents.extractors.encoder import EncoderExtractor
from genesis_rl.agents.extractors.sets import (
    DeepSetsExtractor,
    FlatSlotsExtractor,
    RelationExtractor,
)
from genesis_rl.agents.extractors.slots import SlotExtractor
from genesis_rl.agents.extractors.transformer import SlotSetExtractor
from genesis_rl.set_layers import SlotScale

EXTRACTORS: dict[str, type[SlotExtractor]] = {
    "transformer": SlotSetExtractor,
    "relation": RelationExtractor,
    "deep_sets": DeepSetsExtractor,
    "mlp": FlatSlotsExtractor,
}
"""Every way to pool slots, by its name in settings.

"transformer", "relation" and "deep_sets" take features_dim, width and layers ("transformer" also
heads) and do not see the order of the slots; "mlp" takes nothing and does.
"""

__all__ = [
    "EXTRACTORS",
    "DeepSetsExtractor",
    "EncoderExtractor",
    "FlatSlotsExtractor",
    "RelationExtractor",
    "SlotExtractor",
    "SlotScale",
    "SlotSetExtractor",
]
