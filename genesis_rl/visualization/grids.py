"""Grids of decompositions and samples, and video frames with masks."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.slots import Decoded
from genesis_rl.visualization.layout import Picture, as_floats, colour_masks, mosaic, to_pictures


def decomposition_grid(
    images: Tensor, decoded: Decoded, *, max_rows: int = 8, scale: int = 1, captions: bool = True
) -> Picture:
    """Draw decompositions of images, one image per row (paper, figures 4 and 10 to 12).

    The columns are the input, the reconstruction, the masks in the slots' colours, and for each
    slot its mask pi_k and its masked component pi_k * mu_x_k.

    Args:
        images: the inputs, shape (B, 3, H, W), in [0, 1].
        decoded: the reconstructions, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
        max_rows: largest number of images, the first ones.
        scale: integer factor of the pixels' size.
        captions: whether to add column headings.

    Returns:
        A picture of 3 + 2 * K columns.

    Raises:
        ValueError: if the images do not have the shape of the reconstruction.
    """
    images, mu_x, log_pi = images[:max_rows], decoded.mu_x[:max_rows], decoded.log_pi[:max_rows]
    if images.shape != (mu_x.shape[0], *mu_x.shape[2:]):
        raise ValueError(
            f"images must have the shape of the reconstruction, got {tuple(images.shape)} "
            f"and mu_x {tuple(mu_x.shape)}."
        )
    pi = log_pi.float().exp()
    shares = pi * mu_x
    # (B, 2K, 3, H, W): mask 1, slot 1, mask 2, slot 2, ...
    per_slot = to_pictures(torch.stack([pi.expand_as(shares), shares], dim=2).flatten(1, 2))
    overview = [to_pictures(images), to_pictures(shares.sum(1)), colour_masks(pi.squeeze(2))]
    headings = ["input", "recon", "slots"]
    for k in range(1, mu_x.shape[1] + 1):
        headings += [f"mask {k}", f"slot {k}"]
    return mosaic(
        np.concatenate([np.stack(overview, axis=1), per_slot], axis=1),
        captions=headings if captions else (),
        scale=scale,
    )


def sample_grid(
    decoded: Decoded, *, max_rows: int = 8, scale: int = 1, captions: bool = True
) -> Picture:
    """Draw scenes and their components, one scene per row (paper, figures 3, 6, 8 and 9).

    The columns are the scene, the masks in the slots' colours, and each slot's pi_k * mu_x_k.

    Args:
        decoded: the scenes, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
        max_rows: largest number of scenes, the first ones.
        scale: integer factor of the pixels' size.
        captions: whether to add column headings.

    Returns:
        A picture of 2 + K columns.
    """
    pi = decoded.log_pi[:max_rows].float().exp()
    shares = pi * decoded.mu_x[:max_rows]
    overview = np.stack([to_pictures(shares.sum(1)), colour_masks(pi.squeeze(2))], axis=1)
    headings = ["scene", "slots", *(f"slot {k}" for k in range(1, shares.shape[1] + 1))]
    return mosaic(
        np.concatenate([overview, to_pictures(shares)], axis=1),
        captions=headings if captions else (),
        scale=scale,
    )


def overlay_masks(
    frame: Picture, pi: Tensor | npt.ArrayLike, *, strength: float = 0.5, min_size: int = 128
) -> Picture:
    """Draw a frame, the frame tinted by slot, and each slot's masked frame in a row, for videos.

    Args:
        frame: the environment's frame, shape (H, W, 3), uint8.
        pi: the slots' masks on the whole frame, shape (K, h, w) or (K, 1, h, w), in [0, 1]; resized
            to the frame.
        strength: weight of the slots' colours in the tinted frame, in [0, 1].
        min_size: smallest height in pixels; smaller frames are enlarged by an integer factor.

    Returns:
        A picture of 2 + K columns.

    Raises:
        ValueError: if the frame or the masks have a wrong shape or dtype.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame must be uint8 (H, W, 3), got {frame.dtype} {frame.shape}.")
    masks = as_floats(pi)
    masks = masks[:, 0] if masks.ndim == 4 and masks.shape[1] == 1 else masks
    if masks.ndim != 3:
        raise ValueError(f"pi must have shape (K, h, w) or (K, 1, h, w), got {masks.shape}.")
    height, width = frame.shape[:2]
    masks = np.stack([cv2.resize(mask, (width, height)) for mask in masks])
    tinted = np.round((1 - strength) * frame + strength * colour_masks(masks))
    masked = np.round(masks[..., None] * frame)
    cells = np.stack([frame, tinted, *masked]).astype(np.uint8)
    return mosaic(cells[None], scale=-(-min_size // height), separator=2)
