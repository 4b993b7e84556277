"""World models: given the slots of a scene and an action, the next slots, reward and end.

They stand on the slots of a frozen scene model and know nothing of pixels or environments.
"""

from genesis_rl.world_model.actions import ActionSpec
from genesis_rl.world_model.model import Prediction, SlotForm, WorldModel, WorldModelConfig

__all__ = ["ActionSpec", "Prediction", "SlotForm", "WorldModel", "WorldModelConfig"]
