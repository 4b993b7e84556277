"""Training targets of the feature network from a pack's images, masks and factors.

All targets except shapes come from images and instance masks, so any pack with masks is valid.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.data import Pack
from genesis_rl.data.multi_dsprites import SHAPES
from genesis_rl.worlds.sprites import STATE_COLUMNS
from genesis_rl.worlds.sprites.drawing import OUTLINES

GRID = 4  # cells per side
_LABELS = 256  # labels of a uint8 mask
_CHUNK = 1024


class CellTargets(NamedTuple):
    """Areas and colours of objects on a grid of G = `GRID`^2 cells, in row-major order.

    Attributes:
        area: (B, G, S) share of each cell covered by objects of each shape, in [0, 1].
        colour: (B, G, 3) mean colour of the objects in each cell, in [0, 1]; 0 without objects.
        background: (B, 3) mean colour of the background, in [0, 1].
        background_area: (B,) share of the image covered by the background, in [0, 1].
    """

    area: Tensor
    colour: Tensor
    background: Tensor
    background_area: Tensor


def cell_targets(images: Tensor, masks: Tensor, shapes: Tensor, num_shapes: int) -> CellTargets:
    """Compute the targets of scenes.

    Args:
        images: (B, 3, H, W), float in [0, 1].
        masks: (B, H, W) labels, 0 = background.
        shapes: (B, L) shape of label l, from 1; 0 for the background.
        num_shapes: number of shapes S.
    """
    kinds = shapes.long().gather(1, masks.long().flatten(1)).view_as(masks)
    layers = F.one_hot(kinds, num_shapes + 1).permute(0, 3, 1, 2).to(images.dtype)
    area = F.adaptive_avg_pool2d(layers[:, 1:], GRID).flatten(2).transpose(1, 2)
    background, objects = layers[:, :1], 1 - layers[:, :1]
    tint = F.adaptive_avg_pool2d(images * objects, GRID).flatten(2).transpose(1, 2)
    share = background.mean((1, 2, 3))
    return CellTargets(
        area,
        tint / area.sum(-1, keepdim=True).clamp_min(1e-6),
        (images * background).mean((2, 3)) / share.clamp_min(1e-6)[:, None],
        share,
    )


def require_masks(pack: Pack) -> npt.NDArray[np.uint8]:
    """Return the masks of a pack, (N, H, W) uint8.

    Raises:
        ValueError: if it has none.
    """
    if pack.masks is None:
        raise ValueError(f"pack must have masks, got none in {pack.folder}.")
    return pack.masks


def count_objects(pack: Pack) -> npt.NDArray[np.int64]:
    """Count the visible objects of each image: non-zero labels in its mask, shape (N,).

    Raises:
        ValueError: if the pack has no masks.
    """
    masks = require_masks(pack)
    counts = np.empty(len(pack), np.int64)
    for first in range(0, len(pack), _CHUNK):
        labels = torch.from_numpy(masks[first : first + _CHUNK].astype(np.int64)).flatten(1)
        exists = torch.zeros(len(labels), _LABELS, dtype=torch.bool).scatter_(1, labels, True)
        counts[first : first + _CHUNK] = exists[:, 1:].sum(1).numpy()
    return counts


def object_shapes(pack: Pack) -> tuple[tuple[str, ...], npt.NDArray[np.uint8]]:
    """Return the shape of each label of each mask.

    Returns:
        Names of the S shapes, a single "object" for packs other than Multi-dSprites and the sprite
        worlds; and (N, 256) indices of the labels' shapes, from 1, or 0 for the background.

    Raises:
        ValueError: if the factors are broken.
    """
    dataset = pack.meta.get("dataset")
    table = np.ones((len(pack), _LABELS), np.uint8)
    names: tuple[str, ...] = ("object",)
    if dataset == "multi_dsprites":
        names = SHAPES
        shape = pack.factors["shape"]
        table[:, 1 : 1 + shape.shape[1]] += shape
    elif dataset == "sprite_scenes":
        names = tuple(OUTLINES)
        state = pack.factors["state"]
        one_hot = state[..., [STATE_COLUMNS.index(name) for name in names]]
        table[:, 1 : 1 + state.shape[1]] += one_hot.argmax(-1).astype(np.uint8)
    table[:, 0] = 0
    return names, table
