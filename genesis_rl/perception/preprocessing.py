"""Conversion and resizing of frames of any common layout to model inputs.

A layout names the axes of one frame in order: H, W, C (1 grey, 3 RGB or 4 RGBA channels) and S, a
frame stack, of which only the last and newest frame is used. An additional leading axis is the
batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Layout = Literal[
    "auto", "HWC", "CHW", "CWH", "WHC", "HW", "WH", "SHW", "SWH", "HWS", "SHWC", "SCHW"
]
Resize = Literal["stretch", "letterbox", "crop", "none"]
White = Literal[1, 255]
Frames = npt.NDArray[np.uint8 | np.float32]
#: Region of interest of a frame in pixels: (top, left, height, width).
Crop = tuple[int, int, int, int]

LAYOUTS: tuple[str, ...] = get_args(Layout)
_CHANNELS = (1, 3, 4)
# Tolerance for rounding of float32 images that were scaled from 255.
_SLACK = 1e-5


@dataclass(frozen=True)
class Preprocessing:
    """Resizing of frames to the model's image size; saved with the weights in config.json.

    Attributes:
        resize: "stretch" scales height and width independently, "letterbox" keeps the aspect ratio
            and fills the borders with black, "crop" resizes the central square, "none" requires
            frames of the model's size. Downscaling averages areas, upscaling is bilinear.
        crop: region of interest that was cut out of the recorded frames, (top, left, height, width)
            in pixels. The wrappers cut it out of the environment's frames, too; frames passed to
            an encoder must have been cropped. None: the whole frame.
        frame_size: height and width of the recorded frames before cropping; None: unknown, or not
            cropped.
    """

    resize: Resize = "stretch"
    crop: Crop | None = None
    frame_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {get_args(Resize)}, got {self.resize!r}.")
        size = None
        if self.crop is not None and self.frame_size is not None:
            height, width = self.frame_size
            size = height, width
        object.__setattr__(self, "frame_size", size)
        object.__setattr__(self, "crop", as_crop(self.crop, size))

    def to_json(self) -> dict[str, Any]:
        """Return the options that are set, in JSON types."""
        regions = {"crop": self.crop, "frame_size": self.frame_size}
        return {"resize": self.resize, **{n: list(v) for n, v in regions.items() if v is not None}}

    def region(self, crop: Sequence[int] | None, size: tuple[int, int]) -> Crop | None:
        """Return the region to cut out of an environment's frames.

        Args:
            crop: the region asked for; None: that of the recorded frames.
            size: height and width of the environment's frames.

        Raises:
            TypeError, ValueError: for an invalid region, or frames of another size than the
                recorded ones without ``crop``.
        """
        recorded = self.frame_size
        if crop is None and recorded is not None and recorded != size:
            raise ValueError(
                f"frames must have {recorded[0]} x {recorded[1]} pixels, as those recorded for "
                f"the encoder, of which it sees the region {self.crop}, got {size[0]} x {size[1]}."
                " Give crop for frames of another size; (0, 0, height, width) if they are cropped "
                "already."
            )
        return as_crop(self.crop if crop is None else crop, size)

    def check(self, height: int, width: int, image_size: int) -> None:
        """Raise ValueError if frames of this height and width cannot be resized."""
        if self.resize == "none" and (height, width) != (image_size, image_size):
            raise ValueError(
                f"frames must be {image_size} x {image_size} pixels, the model's size, with "
                f'resize="none", got {height} x {width}. Resize the frames, or use '
                'resize="stretch", "letterbox" or "crop".'
            )


def as_preprocessing(value: Preprocessing | Mapping[str, Any] | str) -> Preprocessing:
    """Return a Preprocessing from one, from its fields or from the name of its resize.

    Raises:
        TypeError: for a value of another type, or an unknown field.
        ValueError: for an unknown resize.
    """
    if isinstance(value, Preprocessing):
        return value
    if isinstance(value, str):
        return Preprocessing(cast("Resize", value))
    if isinstance(value, Mapping) and value.keys() <= {"resize", "crop", "frame_size"}:
        return Preprocessing(**value)
    raise TypeError(
        f"preprocessing must be a Preprocessing or one of {get_args(Resize)}, got {value!r}."
    )


def as_crop(value: Sequence[int] | None, size: tuple[int, int] | None = None) -> Crop | None:
    """Validate a region of interest.

    Args:
        value: (top, left, height, width) in pixels; None: the whole frame.
        size: height and width of the frame in pixels; None: unknown.

    Returns:
        The region as a tuple; None for None.

    Raises:
        TypeError: if it is no sequence of integers.
        ValueError: if it has other than four numbers, is empty, or exceeds the frame.
    """
    if value is None:
        return None
    given: Any = value  # also of another type than annotated
    parts: list[Any] = list(given) if isinstance(given, list | tuple) else [None]
    if not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in parts):
        raise TypeError(f"crop must be integers (top, left, height, width), got {value!r}.")
    numbers = [int(n) for n in parts]
    if len(numbers) != 4 or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
        raise ValueError(
            "crop must be (top, left, height, width) in pixels, with top and left of at least 0 "
            f"and height and width of at least 1, got {value}."
        )
    top, left, height, width = numbers
    if size is not None and (top + height > size[0] or left + width > size[1]):
        raise ValueError(
            f"crop must be a region within the frame of {size[0]} x {size[1]} pixels (height x "
            f"width), got rows {top} to {top + height} and columns {left} to {left + width}."
        )
    return top, left, height, width


def crop_frames(frames: npt.NDArray[Any], layout: str, crop: Crop | None) -> npt.NDArray[Any]:
    """Return a view of the region ``crop`` of a frame or of a batch of frames.

    Args:
        frames: axes ``layout``, optionally after a batch axis.
        layout: axes of one frame, such as "HWC".
        crop: region within the frame; None: the whole frame.
    """
    if crop is None:
        return frames
    top, left, height, width = crop
    slices = {"H": slice(top, top + height), "W": slice(left, left + width)}
    index: Any = (..., *(slices.get(axis, slice(None)) for axis in layout))
    region: npt.NDArray[Any] = frames[index]
    return region


def infer_layout(shape: tuple[int, ...]) -> Layout:
    """Infer the layout of one frame from its shape.

    CHW is assumed for 1 or 3 leading channels. CWH, a batch of grey frames and a frame stack may
    have the same shape; give their layout explicitly.

    Raises:
        ValueError: if the shape matches no layout, or is ambiguous.
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
                'layout must be "CHW" (RGBA), "SHW" (4 stacked grey frames) or "SWH" (the same, '
                f'width before height) for frames of shape {shape}, got "auto".'
            )
        if first and last:
            raise ValueError(
                f'layout must be "HWC" or "CHW" for frames of shape {shape}, got "auto".'
            )
    raise ValueError(
        'frames must have shape (H, W), (H, W, C) or (C, H, W), C in 1, 3, 4, with layout="auto", '
        f"got {shape}. Give the layout, one of {', '.join(LAYOUTS[1:])}."
    )


def _resolve(array: npt.NDArray[Any], layout: Layout) -> tuple[npt.NDArray[Any], str]:
    """Return the frames with a batch axis, and the layout of the other axes."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {LAYOUTS}, got {layout!r}.")
    if layout == "auto":
        single = array.ndim <= 3
        axes = infer_layout(array.shape if single else array.shape[1:])
        return (array[None] if single else array), axes
    if array.ndim == len(layout):
        return array[None], layout
    if array.ndim == len(layout) + 1:
        return array, layout
    raise ValueError(
        f"frames must have {len(layout)} axes for layout {layout!r}, or {len(layout) + 1} with a "
        f"leading batch axis, got shape {array.shape}."
    )


def _scaled(array: npt.NDArray[Any], white: White | None) -> Frames:
    """Validate values; return uint8 unchanged and scale floats to [0, 1]."""
    if array.dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("frames must be finite, in [0, 1] or 0..255, got NaN or infinite values.")
    if array.dtype.kind in "iu":
        white = 255
    elif white is None:
        white = 1 if high <= 1 + _SLACK else 255
    if low < -_SLACK or high > white * (1 + _SLACK):
        raise ValueError(
            f"frames must be in [0, {white}] (integers 0..255, floats [0, 1] or [0, 255]), "
            f"got values from {low} to {high}."
        )
    if array.dtype.kind in "iu":
        return array.astype(np.uint8)
    unit: Frames = np.clip(array.astype(np.float32) / np.float32(white), 0, 1)
    return unit


def _rgb(array: Frames) -> Frames:
    """Convert (B, H, W, C) to (B, H, W, 3): repeat grey, composite RGBA over black."""
    channels = array.shape[-1]
    if channels == 3:
        return array
    if channels == 1:
        return cast("Frames", np.repeat(array, 3, axis=-1))
    if channels != 4:
        raise ValueError(
            f"frames must have 1 (grey), 3 (RGB) or 4 (RGBA) channels, got {channels}."
        )
    if array.dtype == np.uint8:
        wide = array[..., :3].astype(np.uint16) * array[..., 3:].astype(np.uint16)
        return ((wide + 127) // 255).astype(np.uint8)
    return cast("Frames", array[..., :3] * array[..., 3:])


def pil_pixels(image: Image.Image, *, white: White | None = None) -> Frames:
    """Convert a PIL image of any mode to RGB.

    Palettes, CMYK, HSV, YCbCr, LAB, black and white, grey and alpha are converted by PIL; alpha is
    composited over black. 16-bit grey is divided by 65,535.

    Args:
        image: the image.
        white: value of white in mode F (floats); None for 1.

    Returns:
        (H, W, 3): uint8, or float32 in [0, 1] for 16-bit grey and floats.

    Raises:
        ValueError: if the value of white is unknown (32-bit integers, TIFFs of 12 bits or with
            white as 0), or floats are outside [0, white].
    """
    mode = image.mode
    if mode == "F":
        return _rgb(_scaled(np.asarray(image)[..., None], white or 1))
    # Files of these formats have at most 16 bits, whatever mode PIL opens them in.
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        bits, photometric = tags.get(258, (16,)), tags.get(262, 1)
        if bits != (16,) or photometric != 1:
            raise ValueError(
                f"image of mode {mode} must have 16 bits with black as 0, got a TIFF with "
                f"BitsPerSample {bits} and PhotometricInterpretation {photometric}. Convert it to "
                "8 or 16 bits first."
            )
        values = np.array(image)
        if "transparency" in image.info:  # the grey value that is fully transparent
            values[values == image.info["transparency"]] = 0
        return _rgb((values / np.float32(65535)).astype(np.float32)[..., None])
    if mode.startswith("I"):
        low, high = image.getextrema()
        raise ValueError(
            "image must have 8 bits, 16 bits or floats in [0, 1], got 32-bit integers (mode "
            f"{mode}) from {low} to {high}, whose white is unknown. Scale it to 8 bits first."
        )
    return _rgb(np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB")))


def _from_pil(frames: Any, layout: Layout, white: White | None) -> Frames:
    """Convert a PIL image, or a list of them of one size, to (B, H, W, 3)."""
    if layout not in ("auto", "HWC", "HW"):
        raise ValueError(f'layout must be "auto" or "HWC" for PIL images, got {layout!r}.')
    images = frames if isinstance(frames, (list, tuple)) else [frames]
    if not all(isinstance(image, Image.Image) for image in images):
        raise TypeError("frames must be a list of PIL images only, got other types in it.")
    parts = [pil_pixels(image, white=white) for image in images]
    if len({part.shape for part in parts}) > 1 or 0 in parts[0].shape:
        sizes = [image.size for image in images]
        raise ValueError(f"frames must have one size of at least 1 x 1, got {sizes}.")
    if any(part.dtype != np.uint8 for part in parts):  # 8 and 16 bits, for example
        parts = [part / np.float32(255) if part.dtype == np.uint8 else part for part in parts]
    return np.stack(parts)


def _as_array(frames: Any) -> npt.NDArray[Any]:
    """Convert a tensor, an array or nested lists to one array, without mixing value ranges."""
    if isinstance(frames, Tensor):
        return frames.detach().cpu().numpy()
    try:
        if not isinstance(frames, (list, tuple)) or not _holds(frames, (Tensor, np.ndarray)):
            return np.asarray(frames)
        parts = [_as_array(frame) for frame in frames]
        kinds = {"i" if part.dtype.kind == "u" else part.dtype.kind for part in parts}
        if len(kinds) > 1 or any(isinstance(frame, Image.Image) for frame in frames):
            names = sorted({type(frame).__name__ for frame in frames})
            types = sorted({str(part.dtype) for part in parts})
            raise TypeError(
                "frames must be all arrays of integers or all of floats, got a list of "
                f"{', '.join(names)} with {', '.join(types)}."
            )
        return np.stack(parts)
    except ValueError as error:
        raise ValueError(f"frames must have one shape, got several ({error}).") from None


def _holds(frames: Any, kinds: type | tuple[type, ...]) -> bool:
    """Return whether frames, or the first element of nested lists of them, have a type."""
    while isinstance(frames, (list, tuple)) and frames:
        frames = frames[0]
    return isinstance(frames, kinds)


def as_nhwc(frames: Any, *, layout: Layout = "auto", white: White | None = None) -> Frames:
    """Convert frames of a common layout to RGB (B, H, W, 3) at their own size.

    Args:
        frames: array, tensor, PIL image or list of them: one frame or a batch. Alpha is composited
            over black. PIL images may have any mode that `pil_pixels` converts.
        layout: the axes of one frame; "auto" infers them from the shape (see `infer_layout`).
        white: value of white in float frames, 1 or 255; None: 1 if no value of the call exceeds 1.
            Give it if frames in [0, 255] may be almost black.

    Returns:
        uint8 in 0..255 for integer frames, float32 in [0, 1] for float frames. May share memory
        with ``frames``.

    Raises:
        TypeError: if frames are not numbers, or a list mixes integers and floats.
        ValueError: for an invalid shape, value range or ``white``.
    """
    if white not in (None, 1, 255):
        raise ValueError(f"white must be 1, 255 or None, got {white!r}.")
    if _holds(frames, Image.Image):
        return _from_pil(frames, layout, white)
    array = _as_array(frames)
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"frames must be uint8, integers in 0..255 or floats, got dtype {array.dtype}."
        )
    array, axes = _resolve(array, layout)
    if 0 in array.shape:
        raise ValueError(f"frames must have at least one frame and pixel, got shape {array.shape}.")
    if "S" in axes:
        array = np.take(array, -1, axis=1 + axes.index("S"))
        axes = axes.replace("S", "")
    if "C" not in axes:
        array, axes = array[..., None], axes + "C"
    array = array.transpose(0, *(1 + axes.index(axis) for axis in "HWC"))
    return _rgb(_scaled(array, white))


def _resize_one(image: Frames, size: int, mode: Resize, method: int | None = None) -> Frames:
    """Resize one image (H, W, 3), or labels (H, W), to height and width ``size``."""
    height, width = image.shape[:2]
    if mode == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        height = width = side
    new_height = new_width = size
    if mode == "letterbox":
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
    """Resize images (B, H, W, 3) to (B, image_size, image_size, 3) by ``preprocessing``."""
    height, width = images.shape[1:3]
    preprocessing.check(height, width, image_size)
    if (height, width) == (image_size, image_size):
        return images
    return cast(
        "Frames",
        np.stack([_resize_one(image, image_size, preprocessing.resize) for image in images]),
    )


def as_labels(ids: npt.NDArray[Any], *, num_rows: int = 0) -> npt.NDArray[np.uint8]:
    """Convert instance ids of any integer type to uint8 labels without merging objects.

    Ids up to 255 are unchanged. Larger ones are renumbered in ascending order by the lowest labels
    that are not in the image and have no row in a table of objects.

    Args:
        ids: (H, W), 0 = background.
        num_rows: labels below this number have a row in a table of objects.

    Returns:
        (H, W).

    Raises:
        TypeError: if the ids are not integers.
        ValueError: if an id is negative, or there are more ids than free labels.
    """
    if ids.dtype.kind not in "iub":
        raise TypeError(f"instance ids must be integers, got {ids.dtype}.")
    if ids.min(initial=0) < 0:
        raise ValueError(f"instance ids must be 0 or above, got {ids.min()}.")
    if ids.max(initial=0) <= 255:
        return ids.astype(np.uint8)
    present = np.unique(ids)
    large = present[present > 255]
    free = np.setdiff1d(np.arange(max(1, num_rows), 256), present)
    if len(large) > len(free):
        raise ValueError(
            f"instance ids must fit into the labels 0 to 255, got {len(present)} different ids, "
            f"{len(large)} of them above 255 and {len(free)} labels free for them."
        )
    position = np.searchsorted(large, ids).clip(max=len(large) - 1)
    return np.where(ids > 255, free[position], ids).astype(np.uint8)


def resize_labels(
    labels: npt.NDArray[np.uint8], image_size: int, preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    """Resize instance labels (H, W) to (image_size, image_size), consistently with `resize`.

    Interpolation is nearest neighbour; letterbox fills with 0.
    """
    height, width = labels.shape
    preprocessing.check(height, width, image_size)
    if labels.shape == (image_size, image_size):
        return labels
    mode = preprocessing.resize
    small = _resize_one(labels, image_size, mode, cv2.INTER_NEAREST_EXACT)
    return cast("npt.NDArray[np.uint8]", small)


def as_nhwc_uint8(
    frames: Any,
    *,
    layout: Layout = "auto",
    white: White | None = None,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> npt.NDArray[np.uint8]:
    """Convert frames to RGB uint8 (B, H, W, 3), or (B, S, S, 3) for ``image_size`` S.

    Arguments and errors as for `as_nhwc`; floats are rounded to 0..255. May share memory with
    ``frames``.
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
    """Convert frames to model inputs: float32 in [0, 1], shape (B, 3, S, S).

    The memory format is channels last, the fastest for convolutions; uint8 frames are converted to
    floats on the device. Arguments and errors as for `as_nhwc`.
    """
    images = as_nhwc(frames, layout=layout, white=white)
    images = resize(images, image_size, preprocessing or Preprocessing())
    images = np.ascontiguousarray(images)
    if not images.flags.writeable:  # from_numpy would warn
        images = images.copy()
    x = torch.from_numpy(images)
    if torch.device(device).type == "cuda":
        # The copy from pinned memory, which PyTorch caches, is asynchronous.
        x = x.pin_memory()
    x = x.to(device, non_blocking=True).permute(0, 3, 1, 2)  # (B, 3, S, S)
    return x.float().div_(255) if x.dtype == torch.uint8 else x
