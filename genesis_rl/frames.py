"""Frames of any common layout to images of the size and form that a model takes.

A layout names the axes of one frame in order: H, W, C (1 grey, 3 RGB or 4 RGBA channels) and S, a
stack of frames of which the newest, the last, is taken. One more axis in front is the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Layout = Literal[
    "auto", "HWC", "CHW", "CWH", "WHC", "HW", "WH", "SHW", "SWH", "HWS", "SHWC", "SCHW"
]
Resize = Literal["stretch", "letterbox", "crop", "none"]
White = Literal[1, 255]
Frames = npt.NDArray[np.uint8 | np.float32]

LAYOUTS: tuple[str, ...] = get_args(Layout)
_CHANNELS = (1, 3, 4)
# Room for the rounding of float32 images that were scaled from 255.
_SLACK = 1e-5


@dataclass(frozen=True)
class Preprocessing:
    """How frames come to the model's image size; kept with the weights in config.json.

    Attributes:
        resize: "stretch" scales height and width apart, "letterbox" scales the frame whole and
            fills the borders with black, "crop" takes the central square first, "none" wants
            frames of the model's size. Shrinking averages areas, enlarging is bilinear.
    """

    resize: Resize = "stretch"

    def __post_init__(self) -> None:
        """Check the option."""
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize is {self.resize!r}; wanted one of {get_args(Resize)}.")

    def check(self, height: int, width: int, image_size: int) -> None:
        """Raise ValueError if frames of this height and width cannot come to ``image_size``."""
        if self.resize == "none" and (height, width) != (image_size, image_size):
            raise ValueError(
                f"frames are {height} x {width} pixels, but the model takes {image_size} x "
                f'{image_size} and resize is "none"; wanted frames of that size, or '
                'resize="stretch", "letterbox" or "crop".'
            )


def as_preprocessing(value: Preprocessing | Mapping[str, Any] | str) -> Preprocessing:
    """Return a Preprocessing, built where needed from its fields or from the name of its resize.

    Raises:
        TypeError: for a value of another type, or a field that Preprocessing does not have.
        ValueError: for an unknown resize.
    """
    if isinstance(value, Preprocessing):
        return value
    if isinstance(value, str):
        return Preprocessing(cast("Resize", value))
    if isinstance(value, Mapping) and value.keys() <= {"resize"}:
        return Preprocessing(**value)
    raise TypeError(
        f"preprocessing must be a Preprocessing or one of {get_args(Resize)}, got {value!r}."
    )


def infer_layout(shape: tuple[int, ...]) -> Layout:
    """Tell the layout of one frame from its shape, or say that it cannot be told.

    CHW and CWH look alike, and so do a batch of grey frames and a frame stack: CHW is assumed for
    1 or 3 leading channels, the others have to be named.

    Raises:
        ValueError: if the shape is no frame's or could mean two layouts.
    """
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3:
        last, first = shape[-1] in _CHANNELS, shape[0] in _CHANNELS
        if last and not first:
            return "HWC"
        if first and not last and shape[0] != 4:
            return "CHW"
        if first and not last:
            raise ValueError(
                f"a frame of shape {shape} may be RGBA or a stack of 4 grey frames; wanted "
                'layout="CHW" or layout="SHW" to be named.'
            )
        if first and last:
            raise ValueError(
                f"a frame of shape {shape} may be HWC or CHW; wanted the layout to be named."
            )
    raise ValueError(
        f"frames of shape {shape} are no images of a layout that can be told; wanted (H, W), "
        "(H, W, C) or (C, H, W) with C in 1, 3, 4, or one of the layouts "
        f"{', '.join(LAYOUTS[1:])} to be named."
    )


def _resolve(array: npt.NDArray[Any], layout: Layout) -> tuple[npt.NDArray[Any], str]:
    """Give the frames a batch axis and name the axes that follow it."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; wanted one of {LAYOUTS}.")
    if layout == "auto":
        single = array.ndim <= 3
        axes = infer_layout(array.shape if single else array.shape[1:])
        return (array[None] if single else array), axes
    if array.ndim == len(layout):
        return array[None], layout
    if array.ndim == len(layout) + 1:
        return array, layout
    raise ValueError(
        f"frames have shape {array.shape}; wanted {len(layout)} axes for layout {layout!r}, or "
        f"{len(layout) + 1} with a batch axis in front."
    )


def _scaled(array: npt.NDArray[Any], white: White | None) -> Frames:
    """Check values; uint8 stays as it is, floats come to [0, 1]."""
    if array.dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            "frames contain NaN or infinite values; wanted numbers in [0, 1] or 0..255."
        )
    if array.dtype.kind in "iu":
        white = 255
    elif white is None:
        white = 1 if high <= 1 + _SLACK else 255
    if low < -_SLACK or high > white * (1 + _SLACK):
        raise ValueError(
            f"frames have values from {low} to {high}; wanted [0, {white}] "
            "(integers 0..255, floats [0, 1] or [0, 255])."
        )
    if array.dtype.kind in "iu":
        return array.astype(np.uint8)
    unit: Frames = np.clip(array.astype(np.float32) / np.float32(white), 0, 1)
    return unit


def _rgb(array: Frames) -> Frames:
    """Grey to three equal channels, RGBA over black to RGB; (B, H, W, C) to (B, H, W, 3)."""
    channels = array.shape[-1]
    if channels == 3:
        return array
    if channels == 1:
        return cast("Frames", np.repeat(array, 3, axis=-1))
    if channels != 4:
        raise ValueError(f"frames have {channels} channels; wanted 1 (grey), 3 (RGB) or 4 (RGBA).")
    if array.dtype == np.uint8:
        wide = array[..., :3].astype(np.uint16) * array[..., 3:].astype(np.uint16)
        return ((wide + 127) // 255).astype(np.uint8)
    return cast("Frames", array[..., :3] * array[..., 3:])


def as_nhwc(frames: Any, *, layout: Layout = "auto", white: White | None = None) -> Frames:
    """Bring frames of a common layout to (B, H, W, 3), RGB, at their own size.

    Args:
        frames: array, tensor, image or list of them, of one frame or a batch. Alpha is
            multiplied in, as over a black background.
        layout: the axes of one frame, "auto" to tell them from the shape (see infer_layout).
        white: what white is in float frames, 1 or 255; None takes 1 if no value of the call
            exceeds it. Name it where frames in [0, 255] may be almost black.

    Returns:
        uint8 in 0..255 if frames hold integers, float32 in [0, 1] if they hold floats. May share
        memory with ``frames``.

    Raises:
        TypeError: if frames are no numbers.
        ValueError: if shape or values are no image's.
    """
    if isinstance(frames, Tensor):
        frames = frames.detach().cpu().numpy()
    try:
        array = np.asarray(frames)
    except ValueError as error:
        raise ValueError(f"frames differ in shape; wanted one shape for all ({error}).") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"frames have dtype {array.dtype}; wanted uint8, integers in 0..255 or floats."
        )
    array, axes = _resolve(array, layout)
    if 0 in array.shape:
        raise ValueError(f"frames have shape {array.shape}; wanted at least one frame and pixel.")
    if "S" in axes:
        array = np.take(array, -1, axis=1 + axes.index("S"))
        axes = axes.replace("S", "")
    if "C" not in axes:
        array, axes = array[..., None], axes + "C"
    array = array.transpose(0, *(1 + axes.index(axis) for axis in "HWC"))
    return _rgb(_scaled(array, white))


def _resize_one(image: Frames, size: int, how: Resize, method: int | None = None) -> Frames:
    """Resize one image (H, W, 3), or labels (H, W), to height and width ``size``."""
    height, width = image.shape[:2]
    if how == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        height = width = side
    new_height = new_width = size
    if how == "letterbox":
        longest = max(height, width)
        new_height = max(1, round(size * height / longest))
        new_width = max(1, round(size * width / longest))
    if method is None:
        shrinks = new_height <= height and new_width <= width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(image), (new_width, new_height), interpolation=method)
    if (new_height, new_width) == (size, size):
        return cast("Frames", small)
    canvas = np.zeros((size, size, *image.shape[2:]), image.dtype)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = small
    return cast("Frames", canvas)


def resize(images: Frames, image_size: int, preprocessing: Preprocessing) -> Frames:
    """Bring images (B, H, W, 3) to (B, image_size, image_size, 3) as ``preprocessing`` says."""
    height, width = images.shape[1:3]
    preprocessing.check(height, width, image_size)
    if (height, width) == (image_size, image_size):
        return images
    return cast(
        "Frames", np.stack([_resize_one(one, image_size, preprocessing.resize) for one in images])
    )


def resize_labels(
    labels: npt.NDArray[np.uint8], image_size: int, preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    """Bring instance labels (H, W) to (image_size, image_size) as `resize` brings their image.

    Every pixel takes the label of the nearest one; letterbox fills with 0.
    """
    height, width = labels.shape
    preprocessing.check(height, width, image_size)
    if labels.shape == (image_size, image_size):
        return labels
    how = preprocessing.resize
    small = _resize_one(labels, image_size, how, cv2.INTER_NEAREST_EXACT)
    return cast("npt.NDArray[np.uint8]", small)


def as_nhwc_uint8(
    frames: Any,
    *,
    layout: Layout = "auto",
    white: White | None = None,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> npt.NDArray[np.uint8]:
    """Bring frames to RGB bytes, shape (B, H, W, 3), or (B, S, S, 3) where ``image_size`` is S.

    Arguments and errors as for as_nhwc; floats are rounded to the nearest of 0..255. May share
    memory with ``frames``.
    """
    images = as_nhwc(frames, layout=layout, white=white)
    if image_size is not None:
        images = resize(images, image_size, preprocessing or Preprocessing())
    if images.dtype == np.uint8:
        return cast("npt.NDArray[np.uint8]", images)
    return np.rint(images * 255).astype(np.uint8)


def to_images(
    frames: Any,
    *,
    image_size: int,
    layout: Layout = "auto",
    white: White | None = None,
    preprocessing: Preprocessing | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Bring frames to what a model takes: float32 in [0, 1], shape (B, 3, S, S).

    The tensor lies channels last in memory, which convolutions like best; bytes are sent to the
    device as bytes. Arguments and errors as for as_nhwc.
    """
    images = as_nhwc(frames, layout=layout, white=white)
    images = resize(images, image_size, preprocessing or Preprocessing())
    images = np.ascontiguousarray(images)
    if not images.flags.writeable:  # from_numpy would warn
        images = images.copy()
    x = torch.from_numpy(images)
    if torch.device(device).type == "cuda":
        # From pinned memory, which PyTorch keeps, the copy needs no waiting for.
        x = x.pin_memory()
    x = x.to(device, non_blocking=True).permute(0, 3, 1, 2)  # (B, 3, S, S)
    return x.float().div_(255) if x.dtype == torch.uint8 else x
