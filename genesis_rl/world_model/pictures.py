"""Images and videos of real and imagined rollouts."""

import numpy as np
import numpy.typing as npt
import torch

from genesis_rl import visualization
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.visualization.pixels import Picture
from genesis_rl.world_model.data import WorldModelData
from genesis_rl.world_model.model import WorldModel
from genesis_rl.world_model.rollouts import open_loop

_COLUMNS = 11
_SIDE = 64

Frames = npt.NDArray[np.uint8]


def decode(encoder: SlotEncoder, features: torch.Tensor) -> Frames:
    """Decode slots (..., K, D) to frames (..., S, S, 3)."""
    image = encoder.decode(features.flatten(0, -3)).image
    frames: Frames = visualization.to_pictures(image)
    return frames.reshape(*features.shape[:-2], *frames.shape[1:])


def rollout_frames(
    model: WorldModel, data: WorldModelData, split: str, count: int, steps: int
) -> tuple[Frames, Frames]:
    """Decode recorded episodes, and imagined rollouts from the same start by the same actions.

    Args:
        model: model in eval mode.
        data: the data and the encoder.
        split: split of the data.
        count: maximum number of rollouts, evenly spaced in the split.
        steps: maximum length, limited to that of the longest episode.

    Returns:
        Decoded real and imagined slots, each (count, steps + 1, S, S, 3), with the same first
        frames.
    """
    sequences = data.sequences[split]
    steps = min(steps, int((sequences.last[sequences.starts] - sequences.starts).max()))
    starts = sequences.whole(steps)
    picks = torch.linspace(0, len(starts) - 1, count).long().unique()
    windows = sequences.windows(starts[picks.to(starts.device)], steps)
    first = windows.features[:, :1]
    imagined = torch.cat([first, open_loop(model, first[:, 0], windows.actions).features], 1)
    return decode(data.encoder, windows.features), decode(data.encoder, imagined)


def rollout_picture(model: WorldModel, data: WorldModelData, split: str) -> Picture:
    """Draw three rollouts, with real frames above imagined ones."""
    real, imagined = rollout_frames(model, data, split, 3, _COLUMNS - 1)
    rows = np.stack([real, imagined], 1)  # (count, 2, T + 1, S, S, 3)
    return visualization.mosaic(
        rows.reshape(-1, *rows.shape[2:]),
        captions=[f"t = {t}" for t in range(rows.shape[2])],
        row_captions=["real", "imagined"] * len(rows),
        scale=max(1, _SIDE // rows.shape[-2]),
    )


def rollout_video(model: WorldModel, data: WorldModelData, split: str, steps: int) -> list[Picture]:
    """Draw an animation of four rollouts, with real frames above imagined ones."""
    real, imagined = rollout_frames(model, data, split, 4, steps)
    scale = max(1, 2 * _SIDE // real.shape[-2])
    return [
        visualization.mosaic(
            np.stack([real[:, t], imagined[:, t]]),
            row_captions=["real", "imagined"],
            scale=scale,
            separator=2,
        )
        for t in range(real.shape[1])
    ]
