"""Pictures, videos and curves of what a model sees.

Pictures are uint8 arrays (rows, columns, 3), RGB. Files are written under a temporary name and
renamed when complete.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import imageio.v2
import imageio.v3
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.files import new_file
from genesis_rl.slots import Decoded

Picture = npt.NDArray[np.uint8]  # (rows, columns, 3), RGB
Floats = npt.NDArray[np.float32]
Curve = tuple[Sequence[float], Sequence[float]]  # x, y

_SEPARATOR = 128  # grey: stands out beside both the black and the white of masks
_CAPTION_HEIGHT = 14  # pixels


def slot_colours(num_slots: int) -> npt.NDArray[np.uint8]:
    """Colours that tell slots apart, shape (K, 3), RGB in [0, 255]; the first K of one sequence.

    Neighbours lie the golden angle apart on the circle of hues, so every prefix is spread evenly.
    """
    slot = np.arange(num_slots)
    hue = 30 + slot * 180 * 0.381966  # OpenCV's circle has 180 steps
    value = np.array([255, 200, 150])[slot // 8 % 3]  # another round of hues gets darker
    hsv = np.stack([hue % 180, np.full(num_slots, 200), value], axis=-1).astype(np.uint8)
    return _uint8(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]) if num_slots else hsv


def to_pictures(images: Tensor | npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Turn float images (..., 3, H, W) in [0, 1] into uint8 pictures (..., H, W, 3), rounding."""
    channels_last = np.moveaxis(_floats(images), -3, -1)
    return np.round(channels_last.clip(0, 1) * 255).astype(np.uint8)


def colour_masks(pi: Tensor | npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Paint each slot's mask in its colour; where slots share a pixel the colours mix.

    Args:
        pi: masks that sum to 1 over the slots, shape (..., K, H, W), in [0, 1].

    Returns:
        Pictures, shape (..., H, W, 3).
    """
    masks = np.moveaxis(_floats(pi), -3, -1)  # (..., H, W, K)
    return np.round(masks @ slot_colours(masks.shape[-1]).astype(np.float32)).astype(np.uint8)


def mosaic(
    cells: npt.NDArray[np.uint8],
    *,
    captions: Sequence[str] = (),
    scale: int = 1,
    separator: int = 1,
) -> Picture:
    """Lay pictures out in rows and columns.

    Args:
        cells: the pictures, shape (rows, columns, H, W, 3).
        captions: a heading for each column, or none at all.
        scale: whole factor by which every pixel is enlarged.
        separator: width in pixels of the grey lines between pictures.

    Returns:
        One picture, rows * H * scale high and columns * W * scale wide plus lines and captions.

    Raises:
        ValueError: if cells has another shape or the captions are not one for each column.
    """
    if cells.ndim != 5 or cells.shape[-1] != 3:
        raise ValueError(f"cells must have shape (rows, columns, H, W, 3), got {cells.shape}")
    rows, columns, height, width = cells.shape[:4]
    if captions and len(captions) != columns:
        raise ValueError(f"captions must be {columns}, one for each column, got {len(captions)}")
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    height, width = height * scale, width * scale
    top = _CAPTION_HEIGHT if captions else 0
    # Each cell brings the line above and on its left; the outermost are cut away.
    picture = np.full((rows, columns, height + separator, width + separator, 3), _SEPARATOR)
    picture[:, :, separator:, separator:] = cells
    picture = picture.swapaxes(1, 2).reshape(rows * (height + separator), -1, 3)
    picture = picture[separator:, separator:]
    if top:
        heading = np.full((top, picture.shape[1], 3), 255, np.uint8)
        for column, text in enumerate(captions):
            _write(heading, text, left=column * (width + separator), width=width)
        picture = np.concatenate([heading, picture])
    return _uint8(picture)


def decomposition_grid(
    images: Tensor, decoded: Decoded, *, max_rows: int = 8, scale: int = 1, captions: bool = True
) -> Picture:
    """Show how a model takes images apart, one image a row (paper, figures 4 and 10 to 12).

    The columns are the input, the reconstruction, the masks in the slots' colours, and for each
    slot its mask pi_k and its share pi_k * mu_x_k of the reconstruction.

    Args:
        images: the inputs, shape (B, 3, H, W), in [0, 1].
        decoded: what the model makes of them, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
        max_rows: show no more than the first so many images.
        scale: whole factor by which every pixel is enlarged.
        captions: whether to write above each column what it shows.

    Returns:
        A picture of 3 + 2 * K columns.

    Raises:
        ValueError: if the images do not have the shape of the reconstruction.
    """
    images, mu_x, log_pi = images[:max_rows], decoded.mu_x[:max_rows], decoded.log_pi[:max_rows]
    if images.shape != (mu_x.shape[0], *mu_x.shape[2:]):
        raise ValueError(
            f"images must have the shape of the reconstruction, got {tuple(images.shape)} "
            f"and mu_x {tuple(mu_x.shape)}"
        )
    pi = log_pi.float().exp()
    shares = pi * mu_x
    # (B, 2K, 3, H, W): mask 1, slot 1, mask 2, slot 2, ...
    per_slot = to_pictures(torch.stack([pi.expand_as(shares), shares], dim=2).flatten(1, 2))
    whole = [to_pictures(images), to_pictures(shares.sum(1)), colour_masks(pi.squeeze(2))]
    headings = ["input", "recon", "slots"]
    for k in range(1, mu_x.shape[1] + 1):
        headings += [f"mask {k}", f"slot {k}"]
    return mosaic(
        np.concatenate([np.stack(whole, axis=1), per_slot], axis=1),
        captions=headings if captions else (),
        scale=scale,
    )


def sample_grid(
    decoded: Decoded, *, max_rows: int = 8, scale: int = 1, captions: bool = True
) -> Picture:
    """Show scenes component by component, one scene a row (paper, figures 3, 6, 8 and 9).

    The columns are the scene, the masks in the slots' colours, and each slot's pi_k * mu_x_k.

    Args:
        decoded: the scenes, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
        max_rows: show no more than the first so many scenes.
        scale: whole factor by which every pixel is enlarged.
        captions: whether to write above each column what it shows.

    Returns:
        A picture of 2 + K columns.
    """
    pi = decoded.log_pi[:max_rows].float().exp()
    shares = pi * decoded.mu_x[:max_rows]
    whole = np.stack([to_pictures(shares.sum(1)), colour_masks(pi.squeeze(2))], axis=1)
    headings = ["scene", "slots", *(f"slot {k}" for k in range(1, shares.shape[1] + 1))]
    return mosaic(
        np.concatenate([whole, to_pictures(shares)], axis=1),
        captions=headings if captions else (),
        scale=scale,
    )


def overlay_masks(
    frame: Picture, pi: Tensor | npt.ArrayLike, *, strength: float = 0.5, min_size: int = 128
) -> Picture:
    """Put a frame, the frame tinted by slot, and what each slot sees side by side, for videos.

    Args:
        frame: what the environment shows, shape (H, W, 3), uint8.
        pi: the slots' masks on the whole frame, shape (K, h, w) or (K, 1, h, w), in [0, 1]; they
            are resized to the frame.
        strength: share of the slots' colours in the tinted frame, in [0, 1].
        min_size: a frame less high is enlarged by a whole factor to at least this, in pixels.

    Returns:
        A picture of 2 + K columns.

    Raises:
        ValueError: if the frame or the masks have another shape or type.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"frame must be uint8 (H, W, 3), got {frame.dtype} {frame.shape}")
    masks = _floats(pi)
    masks = masks[:, 0] if masks.ndim == 4 and masks.shape[1] == 1 else masks
    if masks.ndim != 3:
        raise ValueError(f"pi must have shape (K, h, w) or (K, 1, h, w), got {masks.shape}")
    height, width = frame.shape[:2]
    masks = np.stack([cv2.resize(mask, (width, height)) for mask in masks])
    tinted = np.round((1 - strength) * frame + strength * colour_masks(masks))
    seen = np.round(masks[..., None] * frame)
    cells = np.stack([frame, tinted, *seen]).astype(np.uint8)
    return mosaic(cells[None], scale=-(-min_size // height), separator=2)


def curves(
    panels: Mapping[str, Mapping[str, Curve]], *, xlabel: str = "step", height: float = 3.0
) -> bytes:
    """Draw curves side by side.

    Args:
        panels: for each panel's title its lines: label to (x, y). Non-finite values leave gaps.
        xlabel: what x is, in all panels.
        height: height of the figure in inches, at 100 dots per inch.

    Returns:
        The figure as a PNG file's bytes.

    Raises:
        ValueError: if there is no panel.
    """
    from matplotlib.figure import Figure  # slow to import, and only reports need it

    if not panels:
        raise ValueError("panels must hold at least one panel, got none")
    figure = Figure(figsize=(4 * height / 3 * len(panels), height), dpi=100, layout="constrained")
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for label, (x, y) in lines.items():
            axes.plot(x, y, label=label)
        axes.set(title=title, xlabel=xlabel)
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def png_bytes(picture: Picture) -> bytes:
    """Encode a picture (H, W, 3) as a PNG file's bytes."""
    return bytes(imageio.v3.imwrite("<bytes>", picture, extension=".png"))


def save_png(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture (H, W, 3) as PNG."""
    with new_file(path) as temporary:
        temporary.write_bytes(png_bytes(picture))


def save_gif(path: str | os.PathLike[str], frames: Iterable[Picture], *, fps: float = 10) -> None:
    """Write pictures of one size (H, W, 3) as an endless animated GIF.

    Raises:
        ValueError: if there are no frames or their sizes differ.
    """
    pictures = list(_same_size(frames))
    with new_file(path) as temporary:
        imageio.v3.imwrite(temporary, np.stack(pictures), duration=1000 / fps, loop=0)


def save_mp4(path: str | os.PathLike[str], frames: Iterable[Picture], *, fps: float = 10) -> None:
    """Write pictures of one size (H, W, 3) as a video that browsers play (H.264, yuv420p).

    That format wants even sizes: an odd one repeats its last row or column.

    Raises:
        ValueError: if there are no frames or their sizes differ.
    """
    options: dict[str, Any] = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 2}
    with new_file(path) as temporary:
        writer: Any = imageio.v2.get_writer(temporary, fps=fps, quality=8, **options)
        with writer:
            for picture in _same_size(frames):
                odd_rows, odd_columns = picture.shape[0] % 2, picture.shape[1] % 2
                writer.append_data(
                    np.pad(picture, ((0, odd_rows), (0, odd_columns), (0, 0)), "edge")
                )


def _floats(values: Tensor | npt.ArrayLike) -> Floats:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def _uint8(picture: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    return np.asarray(picture).astype(np.uint8)


def _write(heading: Picture, text: str, *, left: int, width: int) -> None:
    """Write black text into the heading's columns from left on, as large as the width allows."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (wide, _), _ = cv2.getTextSize(text, font, 1.0, 1)
    size = min(0.4, (width - 2) / max(wide, 1))
    cv2.putText(
        heading, text, (left + 1, _CAPTION_HEIGHT - 4), font, size, (0, 0, 0), 1, cv2.LINE_AA
    )


def _same_size(frames: Iterable[Picture]) -> Iterator[Picture]:
    shape = None
    for picture in frames:
        shape = shape or picture.shape
        if picture.shape != shape or picture.ndim != 3 or shape[2] != 3:
            raise ValueError(f"frames must all be {shape} = (H, W, 3), got {picture.shape}")
        yield picture
    if shape is None:
        raise ValueError("frames must hold at least one picture, got none")
