"""Pictures of images and masks: colours, grids with headings, decompositions, joined pictures."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genesis_rl.slots import Decoded

Picture = npt.NDArray[np.uint8]  # (rows, columns, 3), RGB
Floats = npt.NDArray[np.float32]

_LIGHT, _DARK = 0.96, 0.84  # greys of a checkerboard's squares
_SQUARES = 16  # squares per side
Side = Literal["left", "right"]
_LINE = 128  # grey, visible next to black and white masks
_PAPER = 255
_TEXT_SIZES = range(13, 5, -1)  # pixels; the first that fits is used
_MOST_COLUMNS = 9  # of a video's frame
_PAD = 4  # pixels between a heading and its row or column


def slot_colours(num_slots: int) -> npt.NDArray[np.uint8]:
    """Return distinct colours of slots, shape (K, 3), RGB in [0, 255].

    Consecutive hues differ by the golden angle, so every prefix is evenly distributed.
    """
    slot = np.arange(num_slots)
    hue = 30 + slot * 180 * 0.381966  # OpenCV's hues are in [0, 180)
    value = np.array([255, 200, 150])[slot // 8 % 3]  # darker after every eight hues
    hsv = np.stack([hue % 180, np.full(num_slots, 200), value], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0].astype(np.uint8) if num_slots else hsv


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


def mosaic(
    cells: npt.NDArray[np.uint8],
    *,
    captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    row_side: Side = "left",
    scale: int = 1,
    separator: int = 1,
    gap: int = 0,
) -> Picture:
    """Arrange pictures in rows and columns.

    Args:
        cells: the pictures, shape (rows, columns, H, W, 3).
        captions: one heading per column, or empty.
        row_captions: one heading per row, or empty; may contain line breaks.
        row_side: side of the rows' headings.
        scale: integer factor of the pixels' size.
        separator: width in pixels of the grey lines between pictures.
        gap: white pixels between pictures; above 0, every picture has a grey frame.

    Returns:
        One picture, rows * H * scale high and columns * W * scale wide plus lines and captions.

    Raises:
        ValueError: if cells has a wrong shape or the number of captions is wrong.
    """
    if cells.ndim != 5 or cells.shape[-1] != 3:
        raise ValueError(f"cells must have shape (rows, columns, H, W, 3), got {cells.shape}.")
    rows, columns, height, width = cells.shape[:4]
    if captions and len(captions) != columns:
        raise ValueError(f"captions must be {columns}, one for each column, got {len(captions)}.")
    if row_captions and len(row_captions) != rows:
        raise ValueError(f"row_captions must be {rows}, one for each row, got {len(row_captions)}.")
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    space, shade = separator, _LINE
    if gap:
        frame = (separator, separator)
        pads = ((0, 0), (0, 0), frame, frame, (0, 0))
        cells = np.pad(cells, pads, constant_values=_LINE)
        space, shade = gap, _PAPER
    height, width = cells.shape[2:4]
    # Each cell includes the space above and on its left; the outermost are cropped.
    picture = np.full((rows, columns, height + space, width + space, 3), shade, np.uint8)
    picture[:, :, space:, space:] = cells
    page: Picture = picture.swapaxes(1, 2).reshape(rows * (height + space), -1, 3)[space:, space:]
    left = 0
    if row_captions:
        bare = page.shape[1]
        page = _beside(page, row_captions, row_side, height, height + space)
        left = page.shape[1] - bare if row_side == "left" else 0
    if captions:
        lefts = [left + column * (width + space) for column in range(columns)]
        page = _above(page, captions, lefts, width)
    return page


def join(
    pictures: Sequence[Picture], *, axis: Literal[0, 1] = 1, gap: int = 12, end: bool = False
) -> Picture:
    """Concatenate pictures vertically (axis 0) or horizontally (axis 1), on white.

    Args:
        pictures: at least one, of any sizes.
        axis: 0 for vertical, 1 for horizontal.
        gap: white pixels between pictures.
        end: align pictures of different sizes at the bottom (or right), not at the top (or left).
    """
    other = 1 - axis
    size = max(picture.shape[other] for picture in pictures)
    parts: list[Picture] = []
    for picture in pictures:
        missing = size - picture.shape[other]
        pads = [(0, 0)] * 3
        pads[other] = (missing, 0) if end else (0, missing)
        pads[axis] = (gap if parts else 0, 0)
        parts.append(np.pad(picture, pads, constant_values=_PAPER))
    return np.concatenate(parts, axis=axis)


def flow(blocks: Sequence[Picture], *, max_width: int = 1680, gap: int = 28) -> Picture:
    """Arrange blocks in lines of limited width, from left to right.

    Args:
        blocks: at least one, of one size.
        max_width: largest width of a line in pixels; a wider block has its own line.
        gap: white pixels between blocks.
    """
    per_line = max(1, (max_width + gap) // (blocks[0].shape[1] + gap))
    # Balance the lengths of lines.
    per_line = -(-len(blocks) // -(-len(blocks) // per_line))
    starts = range(0, len(blocks), per_line)
    lines = [join(blocks[start : start + per_line], gap=gap) for start in starts]
    return join(lines, axis=0, gap=gap)


def margin(picture: Picture, width: int = 16) -> Picture:
    """Add a white margin to a picture."""
    return np.pad(picture, ((width, width), (width, width), (0, 0)), constant_values=_PAPER)


def text_picture(text: str, *, max_width: int | None = None, align: Side = "left") -> Picture:
    """Draw one or more lines of black text on white, in a smaller font if needed.

    Args:
        text: the lines, separated by line breaks.
        max_width: largest width in pixels; text that does not fit at any size is cropped.
        align: alignment of lines of different lengths.

    Returns:
        A picture as wide as its longest line.
    """
    lines = text.split("\n")
    for size in _TEXT_SIZES:
        font = _font(size)
        width = max(1, *(round(font.getlength(line) + 0.5) for line in lines))
        if max_width is None or width <= max_width:
            break
    line_height = sum(font.getmetrics())
    image = Image.new("RGB", (width, line_height * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        left = width - font.getlength(line) if align == "right" else 0
        draw.text((left, number * line_height), line, "black", font)
    return np.asarray(image)[:, :max_width]


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow must be built with FreeType to draw text.")
    return font


def _above(page: Picture, captions: Sequence[str], lefts: Sequence[int], width: int) -> Picture:
    """Add the columns' headings, centred, on top of a page."""
    texts = [text_picture(caption, max_width=width) for caption in captions]
    height = max(text.shape[0] for text in texts)
    heading = np.full((height + _PAD, page.shape[1], 3), _PAPER, np.uint8)
    for text, left in zip(texts, lefts, strict=True):
        start = left + (width - text.shape[1]) // 2
        heading[height - text.shape[0] : height, start : start + text.shape[1]] = text
    return np.concatenate([heading, page])


def _beside(page: Picture, captions: Sequence[str], side: str, height: int, step: int) -> Picture:
    """Add the rows' headings, one every ``step`` pixels, at the side of a page."""
    align: Side = "right" if side == "left" else "left"
    texts = [text_picture(caption, align=align) for caption in captions]
    width = max(text.shape[1] for text in texts) + 2 * _PAD
    heading = np.full((page.shape[0], width, 3), _PAPER, np.uint8)
    for row, text in enumerate(texts):
        text = text[:height]
        top = row * step + (height - text.shape[0]) // 2
        left = width - _PAD - text.shape[1] if side == "left" else _PAD
        heading[top : top + text.shape[0], left : left + text.shape[1]] = text
    return np.concatenate([heading, page] if side == "left" else [page, heading], axis=1)


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
    """Draw a frame, the frame tinted by slot, and each slot's masked frame, for videos.

    Args:
        frame: the environment's frame, shape (H, W, 3), uint8.
        pi: the slots' masks on the whole frame, shape (K, h, w) or (K, 1, h, w), in [0, 1]; resized
            to the frame.
        strength: weight of the slots' colours in the tinted frame, in [0, 1].
        min_size: smallest height in pixels; smaller frames are enlarged by an integer factor.

    Returns:
        A picture of 2 + K cells, in rows of at most nine.

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
    rows = -(-len(cells) // _MOST_COLUMNS)
    cells = np.pad(cells, ((0, -len(cells) % rows), *3 * [(0, 0)]))
    cells = cells.reshape(rows, -1, *frame.shape)
    return mosaic(cells, scale=-(-min_size // height), separator=2)
