"""A world model's run on disk."""

import dataclasses
import json
from typing import Any

from genesis_rl.training.folder import TrainingFolder
from genesis_rl.world_model.config import WorldTrainConfig


class WorldFolder(TrainingFolder):
    """The folder of a world model's training, which goes by the encoder, too."""

    identity = (
        *("model", "data", "encoder_fingerprint", "mask_geometry", "align"),
        *("seed", "batch_size"),
    )

    def __init__(self, config: WorldTrainConfig, encoder_fingerprint: str) -> None:
        """Look at the folder; see `TrainingFolder` for errors."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
        settings = {**plain, "encoder_fingerprint": encoder_fingerprint}
        super().__init__(config.out, settings, resume=config.resume)
