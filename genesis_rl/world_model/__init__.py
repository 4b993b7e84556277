"""World models: prediction of the next slots, reward and termination from slots and an action.

They are trained on the slots of a frozen encoder and depend on neither pixels nor environments.
"""

from genesis_rl.world_model.actions import ActionSpec
from genesis_rl.world_model.model import Prediction, SlotSpec, WorldModel, WorldModelConfig

__all__ = ["ActionSpec", "Prediction", "SlotSpec", "WorldModel", "WorldModelConfig"]
