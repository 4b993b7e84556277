"""Figures of decomposed and reconstructed images (paper, figures 4 and 10 to 13)."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.perception.editing import interpolate, select
from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualization import (
    Picture,
    colour_masks,
    join,
    margin,
    over_checkerboard,
    to_pictures,
)
from genesis_rl.visualization.figures.cells import blocks, masked_components, row_slices, sheet

_STEPS = 12  # frames between consecutive images
_HOLD = 6  # repetitions of an image's frame


def decomposition_steps(images: Tensor, decoded: Decoded) -> Picture:
    """Draw the steps of images' decompositions (paper, figures 4 and 10 to 13).

    One block per image. Left: the input, the reconstruction, the masks in the slots' colours and
    the reconstruction's error. Right, one column per step: the mask pi_k, the component mu_x_k, the
    masked component pi_k * mu_x_k, and the scope s_k = 1 - sum_{j < k} pi_j.

    Args:
        images: the inputs, shape (B, 3, H, W), in [0, 1].
        decoded: the reconstructions, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
    """
    pi, shares = masked_components(decoded)
    scope = (1 - pi.cumsum(1) + pi).clamp(0, 1)  # pi added back: the sum over j < k
    image = shares.sum(1)
    overview = np.stack(
        [
            to_pictures(images),
            to_pictures(image),
            colour_masks(pi.squeeze(2)),
            to_pictures(_error(images, image)),
        ],
        axis=1,
    )
    steps = np.stack(
        [
            to_pictures(pi.expand_as(shares)),
            to_pictures(decoded.mu_x),
            over_checkerboard(shares, pi),
            to_pictures(scope.expand_as(shares)),
        ],
        axis=1,
    )
    return blocks(
        overview,
        steps,
        headings=("image", "step"),
        left_rows=("input", "reconstruction", "slots", "error"),
        right_rows=("mask", "component", "masked\ncomponent", "scope"),
    )


def reconstruction_rows(images: Tensor, decoded: Decoded) -> Picture:
    """Draw images, their reconstructions, the errors and the masks in the slots' colours.

    Args:
        images: the inputs, shape (B, 3, H, W), in [0, 1].
        decoded: the reconstructions, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
    """
    pi, shares = masked_components(decoded)
    image = shares.sum(1)
    rows = np.stack(
        [
            to_pictures(images),
            to_pictures(image),
            to_pictures(_error(images, image)),
            colour_masks(pi.squeeze(2)),
        ]
    )
    captions = ["input", "reconstruction", "error", "slots"]
    bands = [sheet(rows[:, part], rows=captions) for part in row_slices(len(images))]
    return margin(join(bands, axis=0, gap=20))


@torch.inference_mode()
def interpolation(model: SceneModel, slots: Slots) -> list[Picture]:
    """Animate linear interpolations of latents from each scene to the next, cyclically.

    Args:
        model: the model, in eval mode.
        slots: the scenes.

    Returns:
        The frames: the image and its masks in the slots' colours.
    """
    count = len(slots.z_m)
    after = select(slots, [*range(1, count), 0])
    weights = torch.linspace(0, 1, _STEPS + 1)[:-1]
    frames: list[Picture] = []
    for scene in range(count):
        start, end = (select(each, [scene] * _STEPS) for each in (slots, after))
        decoded = model.decode(interpolate(start, end, weights.to(slots.log_pi)))
        masks = colour_masks(decoded.log_pi.squeeze(2).exp())
        cells = np.stack([to_pictures(decoded.image), masks], axis=1)
        steps = [margin(_frame(cell)) for cell in cells]
        frames += steps[:1] * _HOLD + steps[1:]
    return frames


def _frame(cells: npt.NDArray[np.uint8]) -> Picture:
    return sheet(cells[None], captions=["scene", "slots"], enlarge=2)


def _error(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Return three times the absolute difference."""
    return 3 * (images - reconstruction).abs()
