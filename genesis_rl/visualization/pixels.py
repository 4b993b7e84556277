"""Conversion of images and masks to pictures, with slot colours and checkerboards."""

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

Picture = npt.NDArray[np.uint8]  # (rows, columns, 3), RGB
Floats = npt.NDArray[np.float32]

_LIGHT, _DARK = 0.96, 0.84  # greys of a checkerboard's squares
_SQUARES = 16  # squares per side


def slot_colours(num_slots: int) -> npt.NDArray[np.uint8]:
    """Return distinct colours of slots, shape (K, 3), RGB in [0, 255].

    Consecutive hues differ by the golden angle, so every prefix is evenly distributed.
    """
    slot = np.arange(num_slots)
    hue = 30 + slot * 180 * 0.381966  # OpenCV's hues are in [0, 180)
    value = np.array([255, 200, 150])[slot // 8 % 3]  # darker after every eight hues
    hsv = np.stack([hue % 180, np.full(num_slots, 200), value], axis=-1).astype(np.uint8)
    return as_uint8(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]) if num_slots else hsv


def to_pictures(images: Tensor | npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Convert float images (..., 3, H, W) in [0, 1] to uint8 pictures (..., H, W, 3), rounded."""
    channels_last = np.moveaxis(as_floats(images), -3, -1)
    return np.round(channels_last.clip(0, 1) * 255).astype(np.uint8)


def colour_masks(pi: Tensor | npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Draw each slot's mask in its colour, blended where slots share a pixel.

    Args:
        pi: masks that sum to 1 over the slots, shape (..., K, H, W), in [0, 1].

    Returns:
        Pictures, shape (..., H, W, 3).
    """
    masks = np.moveaxis(as_floats(pi), -3, -1)  # (..., H, W, K)
    return np.round(masks @ slot_colours(masks.shape[-1]).astype(np.float32)).astype(np.uint8)


def checkerboard(height: int, width: int) -> Floats:
    """Return a checkerboard for transparent areas, shape (3, H, W), greys in [0, 1]."""
    side = max(1, min(height, width) // _SQUARES)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    grey = np.where((rows[:, None] + columns) % 2, _DARK, _LIGHT).astype(np.float32)
    return np.broadcast_to(grey, (3, height, width))


def over_checkerboard(
    shares: Tensor | npt.ArrayLike, pi: Tensor | npt.ArrayLike
) -> npt.NDArray[np.uint8]:
    """Draw masked images over a checkerboard, which distinguishes transparent from black.

    Args:
        shares: colours times masks, pi * mu_x, shape (..., 3, H, W), in [0, 1].
        pi: the masks, shape (..., 1, H, W), in [0, 1].

    Returns:
        Pictures shares + (1 - pi) * checkerboard, shape (..., H, W, 3).
    """
    colours = as_floats(shares)
    return to_pictures(colours + (1 - as_floats(pi)) * checkerboard(*colours.shape[-2:]))


def as_floats(values: Tensor | npt.ArrayLike) -> Floats:
    """Convert tensors of any dtype and device, or arrays, to float32 arrays."""
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def as_uint8(picture: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Convert integers in [0, 255] to uint8."""
    return np.asarray(picture).astype(np.uint8)
