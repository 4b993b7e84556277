"""A world model's run on disk: whose it is, its checkpoints."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genesis_rl.checkpoint import load_weights
from genesis_rl.files import new_file, new_folder, recover_folder
from genesis_rl.process import hardware, versions
from genesis_rl.world_model.config import WorldTrainConfig
from genesis_rl.world_model.model import WorldModel

SETTINGS, STATE = "train.json", "training.pt"
# What makes a run another one: neither a schedule nor a folder's name.
_IDENTITY = ("model", "data", "encoder_fingerprint", "mask_geometry", "align", "seed", "batch_size")


class WorldFolder:
    """``train.json`` (the settings), ``last/`` (model and training state) and ``best/`` (model).

    Attributes:
        last: where the last checkpoint lies.
        best: where the best model lies.
        started: whether there is a checkpoint to go on from.
    """

    def __init__(self, config: WorldTrainConfig, encoder_fingerprint: str) -> None:
        """Look at the folder; neither overwrite a run nor resume one as another.

        Raises:
            ValueError: if it holds a run and ``resume`` is off, or another run and it is on.
        """
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
        self.settings = {**plain, "encoder_fingerprint": encoder_fingerprint}
        self._path = config.out / SETTINGS
        self.last = recover_folder(config.out / "last")
        self.best = recover_folder(config.out / "best")
        self.started = (self.last / STATE).is_file()
        if self.last.exists() and not config.resume:
            raise ValueError(
                f"out {config.out} already holds a run; add --resume to go on with it, or choose "
                "another."
            )
        if self.started:
            self._check_identity(config.out)

    def _check_identity(self, out: Path) -> None:
        try:
            stored = json.loads(self._path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{self._path} cannot be read as JSON: {error}") from error
        for name in _IDENTITY:
            mine, theirs = self.settings[name], stored.get(name)
            if mine != theirs:
                raise ValueError(
                    f"{name} is {mine}, but the run in {out} has {theirs}; resume with the same, or"
                    " choose another out."
                )

    def write_settings(self) -> None:
        """Write train.json."""
        with new_file(self._path) as temporary:
            temporary.write_text(json.dumps(self.settings, indent=2) + "\n")

    def save_last(
        self, model: WorldModel, card: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Write the last checkpoint: the model and what going on from it takes."""
        with new_folder(self.last) as folder:
            model.save_pretrained(folder, extra=self._metadata(model, card))
            torch.save(dict(state), folder / STATE)

    def save_best(self, model: WorldModel, card: Mapping[str, Any]) -> None:
        """Write the best model."""
        with new_folder(self.best) as folder:
            model.save_pretrained(folder, extra=self._metadata(model, card))

    def _metadata(self, model: WorldModel, card: Mapping[str, Any]) -> dict[str, Any]:
        """What lies beside a model: where it stands, how it was trained, and on what."""
        device = next(model.parameters()).device
        more = {"hardware": hardware(device), "versions": versions()}
        return {**card, "training": self.settings, **more}

    def load_last(self, model: WorldModel, device: torch.device) -> dict[str, Any]:
        """Put the last checkpoint's weights into a model and return the training state.

        Raises:
            ValueError: if a file is damaged.
        """
        load_weights(model, self.last)
        try:
            state: dict[str, Any] = torch.load(
                self.last / STATE, map_location=device, weights_only=True
            )
        except Exception as error:  # torch raises many kinds for a damaged file
            raise ValueError(f"{self.last / STATE} is damaged: {error}") from error
        return state
