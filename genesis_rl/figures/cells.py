"""What the figures share: sizes, headings, the parts that a scene is drawn from."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualize import Picture, Side, flow, join, margin, mosaic, text_picture

WIDE = 8  # most images beside each other
_CELL = 96  # pixels that a cell is about wide
_GAP = 4  # pixels between cells
_BATCH = 64  # scenes decoded at once


def sheet(
    cells: npt.NDArray[np.uint8],
    *,
    captions: Sequence[str] = (),
    rows: Sequence[str] = (),
    row_side: Side = "left",
    enlarge: int = 1,
) -> Picture:
    """Lay pictures (rows, columns, H, W, 3) out framed, at the size of cells times a factor."""
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
    """Lay out a block for each image: a column of its own, and beside it one for each slot.

    Args:
        left: the columns, shape (B, R, H, W, 3).
        right: what stands beside them, shape (B, R, K, H, W, 3).
        headings: of the column, and of the slots, which are numbered.
        left_rows: what the column's R pictures are.
        right_rows: what the R rows of the slots are.
    """
    whole, each = headings
    titles = numbered(each, right.shape[2])
    return margin(
        flow(
            [
                join(
                    [
                        sheet(column[:, None], captions=[whole], rows=left_rows),
                        sheet(slots, captions=titles, rows=right_rows, row_side="right"),
                    ],
                    end=True,
                )
                for column, slots in zip(left, right, strict=True)
            ]
        )
    )


def numbered(word: str, count: int) -> list[str]:
    """Headings "word 1", "word 2", ..."""
    return [f"{word} {number}" for number in range(1, count + 1)]


def parts_of(count: int) -> list[slice]:
    """Cut images into rows of at most eight, as equal as they can be."""
    rows = -(-count // WIDE)
    length = -(-count // rows)
    return [slice(start, start + length) for start in range(0, count, length)]


def shares_of(decoded: Decoded) -> tuple[Tensor, Tensor]:
    """Masks pi (B, K, 1, H, W) and the slots' parts of the image pi * mu_x (B, K, 3, H, W)."""
    pi = decoded.log_pi.float().exp()
    return pi, pi * decoded.mu_x


def label(picture: Picture, text: str) -> Picture:
    """Put a line of text above a picture."""
    return join([text_picture(text, max_width=picture.shape[1]), picture], axis=0, gap=4)


def decode_images(model: SceneModel, slots: Slots) -> Tensor:
    """The images (B, 3, H, W) that many slots decode to, a few at a time."""
    parts = zip(
        *(value.split(_BATCH) for value in (slots.z_m, slots.z_c, slots.log_pi)), strict=True
    )
    return torch.cat([model.decode(Slots(*part)).image for part in parts])
