"""Run directory of a world model's training."""

import dataclasses
import json
from typing import Any

from genesis_rl.training.folder import TrainingFolder
from genesis_rl.world_model.config import WorldTrainConfig


class WorldFolder(TrainingFolder):
    """Run directory of a world model's training, identified also by the encoder."""

    identity = (
        *("model", "data", "encoder_fingerprint", "mask_geometry", "align"),
        *("seed", "batch_size"),
    )

    def __init__(self, config: WorldTrainConfig, encoder_fingerprint: str) -> None:
        """Open the directory; see `TrainingFolder` for errors."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
        settings = {**plain, "encoder_fingerprint": encoder_fingerprint}
        super().__init__(config.out, settings, resume=config.resume)
