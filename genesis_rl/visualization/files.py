"""Files of pictures, animations and curves.

Animations raise ValueError for no frames, or frames of different sizes.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genesis_rl.utils.extras import require
from genesis_rl.utils.files import new_file
from genesis_rl.visualization.grids import Picture

Curve = tuple[Sequence[float], Sequence[float]]  # x, y


def curves(
    panels: Mapping[str, Mapping[str, Curve]], *, xlabel: str = "step", height: float = 3.0
) -> bytes:
    """Plot curves in adjacent panels.

    Args:
        panels: lines by panel title: label to (x, y). Non-finite values are gaps.
        xlabel: label of the x axis in all panels.
        height: height of the figure in inches, at 100 dots per inch.

    Returns:
        The figure as a PNG file's bytes.

    Raises:
        ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("panels must contain at least one panel, got none.")
    # Imported here because it is slow to import.
    figure = require("matplotlib.figure").Figure(
        figsize=(4 * height / 3 * len(panels), height), dpi=100, layout="constrained"
    )
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
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture (H, W, 3) as PNG."""
    with new_file(path) as temporary:
        temporary.write_bytes(png_bytes(picture))


def save_gif(path: str | os.PathLike[str], frames: Iterable[Picture], *, fps: float = 10) -> None:
    """Write pictures of one size (H, W, 3) as an endless animated GIF."""
    first, *others = [Image.fromarray(picture) for picture in _same_size(frames)]
    with new_file(path) as temporary:
        first.save(
            temporary, "GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0
        )


def save_mp4(path: str | os.PathLike[str], frames: Iterable[Picture], *, fps: float = 10) -> None:
    """Write pictures of one size (H, W, 3) as an MP4 video for browsers (H.264, yuv420p).

    The format requires even sizes: the last row or column of an odd one is repeated.
    """
    options: dict[str, Any] = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 2}
    with new_file(path) as temporary:
        writer = require("imageio.v2").get_writer(temporary, fps=fps, quality=8, **options)
        with writer:
            for picture in _same_size(frames):
                odd_rows, odd_columns = picture.shape[0] % 2, picture.shape[1] % 2
                writer.append_data(
                    np.pad(picture, ((0, odd_rows), (0, odd_columns), (0, 0)), "edge")
                )


def save_animation(
    path: str | os.PathLike[str], frames: Iterable[Picture], *, fps: float = 10
) -> None:
    """Write pictures of one size as a GIF if the path ends in .gif, otherwise as MP4."""
    save = save_gif if Path(path).suffix == ".gif" else save_mp4
    save(path, frames, fps=fps)


def _same_size(frames: Iterable[Picture]) -> Iterator[Picture]:
    shape = None
    for picture in frames:
        shape = shape or picture.shape
        if picture.shape != shape or picture.ndim != 3 or shape[2] != 3:
            raise ValueError(f"frames must all be {shape} = (H, W, 3), got {picture.shape}.")
        yield picture
    if shape is None:
        raise ValueError("frames must contain at least one picture, got none.")
