"""Layout of the figures: sizes, headings and masked components."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualization import Picture, Side, flow, join, margin, mosaic, text_picture

MAX_COLUMNS = 8  # largest number of images in a row
_CELL = 96  # approximate width of a cell in pixels
_GAP = 4  # pixels between cells
_BATCH = 64  # scenes per decoded batch


def sheet(
    cells: npt.NDArray[np.uint8],
    *,
    captions: Sequence[str] = (),
    rows: Sequence[str] = (),
    row_side: Side = "left",
    enlarge: int = 1,
) -> Picture:
    """Arrange pictures (rows, columns, H, W, 3) as framed cells, scaled by ``enlarge``."""
    scale = max(1, round(enlarge * _CELL / cells.shape[3]))
    return mosaic(
        cells, captions=captions, row_captions=rows, row_side=row_side, scale=scale, gap=_GAP
    )


def blocks(
    left: npt.NDArray[np.uint8],
    right: npt.NDArray[np.uint8],
    *,
    headings: tuple[str, str],
    left_rows: Sequence[str],
    right_rows: Sequence[str],
) -> Picture:
    """Arrange a block of columns per image: one for the image and one for each slot.

    Args:
        left: columns of the images, shape (B, R, H, W, 3).
        right: columns of the slots, shape (B, R, K, H, W, 3).
        headings: heading of the image's column, and of the slots' columns, which are numbered.
        left_rows: R row captions of the image's column.
        right_rows: R row captions of the slots' columns.
    """
    image_heading, slot_heading = headings
    captions = number_headings(slot_heading, right.shape[2])
    return margin(
        flow(
            [
                join(
                    [
                        sheet(column[:, None], captions=[image_heading], rows=left_rows),
                        sheet(slots, captions=captions, rows=right_rows, row_side="right"),
                    ],
                    end=True,
                )
                for column, slots in zip(left, right, strict=True)
            ]
        )
    )


def number_headings(word: str, count: int) -> list[str]:
    """Return the headings "<word> 1" to "<word> <count>"."""
    return [f"{word} {number}" for number in range(1, count + 1)]


def row_slices(count: int) -> list[slice]:
    """Return slices of images for rows of nearly equal length, at most `MAX_COLUMNS`."""
    rows = -(-count // MAX_COLUMNS)
    length = -(-count // rows)
    return [slice(start, start + length) for start in range(0, count, length)]


def masked_components(decoded: Decoded) -> tuple[Tensor, Tensor]:
    """Return masks pi (B, K, 1, H, W) and masked components pi * mu_x (B, K, 3, H, W)."""
    pi = decoded.log_pi.float().exp()
    return pi, pi * decoded.mu_x


def label(picture: Picture, text: str) -> Picture:
    """Add a line of text above a picture."""
    return join([text_picture(text, max_width=picture.shape[1]), picture], axis=0, gap=4)


def decode_images(model: SceneModel, slots: Slots) -> Tensor:
    """Decode slots to images (B, 3, H, W) in small batches."""
    parts = zip(
        *(value.split(_BATCH) for value in (slots.z_m, slots.z_c, slots.log_pi)), strict=True
    )
    return torch.cat([model.decode(Slots(*part)).image for part in parts])
