"""Imagined beside real rollouts, decoded to frames."""

import numpy as np
import numpy.typing as npt
import torch

from genesis_rl import visualize
from genesis_rl.visualize.pixels import Picture
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.rollouts import open_loop
from genesis_rl.world_model.study import Study

_COLUMNS = 11
_SIDE = 64

Frames = npt.NDArray[np.uint8]


def decode(study: Study, features: torch.Tensor) -> Frames:
    """Decode slots (..., K, D) to frames (..., S, S, 3)."""
    image = study.encoder.decode(features.flatten(0, -3)).image
    pictures: Frames = visualize.to_pictures(image)
    return pictures.reshape(*features.shape[:-2], *pictures.shape[1:])


def rollout_frames(
    model: WorldModel, study: Study, split: str, count: int, steps: int
) -> tuple[Frames, Frames]:
    """Decode what was and what the model makes of the same starts and actions.

    Args:
        model: in eval mode.
        study: the data and the encoder.
        split: of the data.
        count: rollouts at most, spread over the split.
        steps: of each at most: as many as the longest episode has.

    Returns:
        Real slots and imagined ones, decoded, each (count, steps + 1, S, S, 3); both begin with
        the same frame.
    """
    data = study.sequences[split]
    steps = min(steps, int((data.last[data.starts] - data.starts).max()))
    starts = data.whole(steps)
    picks = torch.linspace(0, len(starts) - 1, count).long().unique()
    windows = data.windows(starts[picks.to(starts.device)], steps)
    first = windows.features[:, :1]
    imagined = open_loop(model, first[:, 0], windows.actions).features
    return decode(study, windows.features), decode(study, torch.cat([first, imagined], 1))


def rollout_picture(model: WorldModel, study: Study, split: str) -> Picture:
    """Three rollouts, what was above what was imagined, from left to right."""
    real, imagined = rollout_frames(model, study, split, 3, _COLUMNS - 1)
    rows = np.stack([real, imagined], 1)  # (count, 2, T + 1, S, S, 3)
    return visualize.mosaic(
        rows.reshape(-1, *rows.shape[2:]),
        captions=[f"t = {t}" for t in range(rows.shape[2])],
        row_captions=["real", "imagined"] * len(rows),
        scale=max(1, _SIDE // rows.shape[-2]),
    )


def rollout_video(model: WorldModel, study: Study, split: str, steps: int) -> list[Picture]:
    """Frames of an animation: four rollouts side by side, what was above what was imagined."""
    real, imagined = rollout_frames(model, study, split, 4, steps)
    scale = max(1, 2 * _SIDE // real.shape[-2])
    return [
        visualize.mosaic(
            np.stack([real[:, t], imagined[:, t]]),
            row_captions=["real", "imagined"],
            scale=scale,
            separator=2,
        )
        for t in range(real.shape[1])
    ]
