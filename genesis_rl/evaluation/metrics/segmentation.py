"""Segmentation scores against true masks, and segmentations without a model as baselines.

Label maps ``true`` and ``pred`` are tensors or NumPy arrays (B, H, W) of any integer type. In true
labels 0 is the background, 1, 2, ... are objects and negative labels mark ignored pixels; predicted
labels are 0 or above. Scores raise TypeError for labels that are not integers, and ValueError for
other or different shapes and negative predicted labels. All scores are per image, in float64,
computed on the tensors' device from one table of overlaps, without loops over images.

Foreground scores of images without foreground are NaN and excluded from averages, which come with
their number of images. (The released GENESIS code uses 1 for the adjusted Rand index and 0 for the
covering of such images.)
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = Tensor | npt.NDArray[Any]

# Types without minimum, maximum and comparison in PyTorch.
_WIDENED = (torch.uint16, torch.uint32, torch.uint64)
#: Images per chunk: bounds the memory, and fits into a CPU's cache (6 times faster).
CHUNK = 64


def as_tensor(values: Array, name: str, *, device: torch.device | None = None) -> Tensor:
    """Return a tensor unchanged, and a NumPy array as a tensor of the same dtype.

    Args:
        values: tensor or array.
        name: name of the argument, for messages.
        device: device for arrays; None for the CPU.

    Raises:
        TypeError: for any other type.
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        got = f"{values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name} must be a tensor or a NumPy array of numbers, got {got}.")
    # PyTorch requires native byte order, contiguous and writable memory.
    native = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native).to(device)


def as_label_tensor(labels: Array, name: str, *, device: torch.device | None = None) -> Tensor:
    """Return integer labels as a tensor of a dtype that PyTorch can compare.

    Raises:
        TypeError: if they are not integers.
        ValueError: if one is 2**63 or above.
    """
    tensor = as_tensor(labels, name, device=device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be integer labels, got {tensor.dtype}.")
    if tensor.dtype not in _WIDENED:
        return tensor
    wide = tensor.long()
    if tensor.dtype == torch.uint64 and bool((wide < 0).any()):
        raise ValueError(f"{name} must be labels below 2**63, got larger ones.")
    return wide


def device_of(*arrays: Array) -> torch.device | None:
    """Return the device of the first tensor, or None without tensors."""
    return next((array.device for array in arrays if isinstance(array, Tensor)), None)


class SegCover(NamedTuple):
    """Segmentation covering of the true segments by the predicted ones (paper, appendix C).

    Attributes:
        mean: mSC, true segments weighted equally, shape (B,), in [0, 1] or NaN.
        scaled: SC, true segments weighted by their pixels, shape (B,), in [0, 1] or NaN.
    """

    mean: Tensor
    scaled: Tensor


def segment(log_pi: Array) -> Tensor:
    """Assign each pixel to the slot with the largest mask.

    Args:
        log_pi: log masks, masks or a monotone function of them, shape (B, K, 1, H, W).

    Returns:
        Labels 0..K-1, int64, shape (B, H, W); the first slot wins a tie.

    Raises:
        ValueError: if the shape is not (B, K, 1, H, W), or a value is NaN.
    """
    log_pi = as_tensor(log_pi, "log_pi")
    if log_pi.ndim != 5 or log_pi.shape[2] != 1:
        raise ValueError(f"log_pi must have shape (B, K, 1, H, W), got {tuple(log_pi.shape)}")
    if bool(log_pi.isnan().any()):
        raise ValueError("log_pi must be finite, got NaN. Check the model's weights.")
    return log_pi.argmax(dim=1).squeeze(1)


def ari(true: Array, pred: Array, *, foreground_only: bool = False) -> Tensor:
    """Compute the adjusted Rand index (Hubert and Arabie, 1985).

    Args:
        true: true labels.
        pred: predicted labels.
        foreground_only: compare only pixels with a true label above 0.

    Returns:
        Shape (B,), float64: 1 for a perfect match up to permutation, about 0 for chance; NaN
        without compared pixels.
    """
    table = overlaps(true, pred)
    return _ari(table[:, 1:] if foreground_only else table)


def segmentation_covering(true: Array, pred: Array, *, foreground_only: bool = True) -> SegCover:
    """Compute the covering of true segments by their best predicted ones (paper, eq. 11 and 12).

    The overlap is relative to whole predicted segments, so objects that share a slot with the
    background score low.

    Args:
        true: true labels.
        pred: predicted labels.
        foreground_only: cover objects only; otherwise the background is one more segment.

    Returns:
        mSC and SC per image; NaN without segments.
    """
    return _covering(overlaps(true, pred), first=1 if foreground_only else 0)


def image_scores(true: Array, pred: Array) -> dict[str, Tensor]:
    """Compute the segmentation scores of every image of a batch.

    Returns:
        ``ari`` of all pixels, ``ari_fg`` of the foreground, ``ari_fg_2plus`` the same for images
        with at least two objects (with one object it only measures whether one slot contains it
        whole), and the foreground's ``sc`` and ``msc``. Each of shape (B,), float64, NaN where
        undefined.
    """
    true, pred = check_labels(true, pred)
    return join_batches(
        _table_scores(overlaps(*pair))
        for pair in zip(true.split(CHUNK), pred.split(CHUNK), strict=True)
    )


def join_batches(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the values of batches, each (B, ...), by name; empty without batches."""
    parts = list(batches)
    return {name: torch.cat([part[name] for part in parts]) for name in (parts or [{}])[0]}


def average(scores: Mapping[str, Array]) -> dict[str, float]:
    """Average each score over the images for which it is defined.

    Args:
        scores: per-image scores as of `image_scores`, each of shape (B,), NaN where undefined.

    Returns:
        For each name its mean (NaN without images) and, under ``name_images``, the number of
        images averaged.
    """
    averages: dict[str, float] = {}
    for name, array in scores.items():
        values = as_tensor(array, f"scores[{name!r}]")
        averages[name] = float(values.nanmean())
        averages[f"{name}_images"] = int(values.isfinite().sum())
    return averages


def segmentation_scores(true: Array, pred: Array) -> dict[str, float]:
    """Return the `average` of `image_scores` over a batch."""
    return average(image_scores(true, pred))


def one_slot(true: Array) -> Tensor:
    """Assign every pixel to one slot: labels 0 in the shape of true, (B, H, W)."""
    return torch.zeros_like(as_tensor(true, "true"))


def fixed_grid(num_slots: int, height: int, width: int) -> Tensor:
    """Divide the frame into equal cells, one per slot, independent of its content.

    The cells are in floor(sqrt(K)) rows of equal height; if K is not divisible, the upper rows have
    one more cell.

    Args:
        num_slots: number of cells K, at least 1.
        height: height of the frame in pixels.
        width: width of the frame in pixels.

    Returns:
        Labels 0..K-1, int64, shape (H, W).

    Raises:
        ValueError: if num_slots is below 1 or the frame has fewer pixels than cells along a side.
    """
    if num_slots < 1:
        raise ValueError(f"num_slots must be at least 1, got {num_slots}.")
    num_rows = math.isqrt(num_slots)
    cells = torch.full((num_rows,), num_slots // num_rows)
    cells[: num_slots % num_rows] += 1
    if height < num_rows or width < int(cells[0]):
        raise ValueError(
            f"num_slots must be at most the cells of a {height} x {width} frame, got {num_slots}."
        )
    row = torch.arange(height) * num_rows // height
    column = torch.arange(width)
    before = cells.cumsum(0) - cells
    return before[row, None] + column * cells[row, None] // width


def colour_palette(images: Array) -> Tensor:
    """Segment images by exact colour: pixels share a label if and only if they share a colour.

    Args:
        images: uint8 in [0, 255] or float in [0, 1] (rounded to 8 bit), shape (B, 3, H, W).

    Returns:
        Consecutive labels from 0 in each image, int64, shape (B, H, W).

    Raises:
        ValueError: if the shape is not (B, 3, H, W).
    """
    images = as_tensor(images, "images")
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}.")
    return torch.cat([_number_colours(part) for part in images.split(CHUNK)])


def baselines(images: Array, num_slots: int) -> dict[str, Tensor]:
    """Segment images without a model, as baselines for scores.

    Args:
        images: uint8 in [0, 255] or float in [0, 1], shape (B, 3, H, W).
        num_slots: number of slots K of the grid.

    Returns:
        Labels, int64, shape (B, H, W), of ``one_slot``, ``fixed_grid`` and ``colour_palette``.

    Raises:
        ValueError: if the shape is not (B, 3, H, W) or the images are too small for the grid.
    """
    images = as_tensor(images, "images")
    palette = colour_palette(images)
    grid = fixed_grid(num_slots, *images.shape[2:]).to(images.device)
    return {
        "one_slot": one_slot(palette),
        "fixed_grid": grid.expand_as(palette),
        "colour_palette": palette,
    }


def _number_colours(images: Tensor) -> Tensor:
    """Number the colours of each image (B, 3, H, W) from 0: labels (B, H, W)."""
    if images.is_floating_point():
        images = (images.clamp(0, 1) * 255).round()
    red, green, blue = images.int().flatten(2).unbind(dim=1)
    colours, order = ((red << 8 | green) << 8 | blue).sort(dim=1)  # (B, H*W)
    number = (colours.diff(dim=1) != 0).cumsum(dim=1)  # without the first colour's 0
    labels = torch.zeros_like(order).scatter(1, order[:, 1:], number)
    return labels.view(len(images), *images.shape[2:])


def check_labels(true: Array, pred: Array) -> tuple[Tensor, Tensor]:
    """Validate two label maps and return them as tensors; raises as `ari`.

    An array is moved to the device of the other argument.
    """
    device = device_of(true, pred)
    true, pred = (
        as_label_tensor(true, "true", device=device),
        as_label_tensor(pred, "pred", device=device),
    )
    if true.ndim != 3 or true.shape != pred.shape or true.numel() == 0:
        raise ValueError(
            "true and pred must be label maps of one shape (B, H, W), "
            f"got {tuple(true.shape)} and {tuple(pred.shape)}."
        )
    if pred.min() < 0:
        raise ValueError(f"pred must be labels >= 0, got {int(pred.min())}.")
    return true, pred


def compact(labels: Tensor) -> Tensor:
    """Renumber labels >= 0 without gaps if some are large, to keep tables small; 0 stays 0."""
    if labels.max() < 256:
        return labels
    with_zero = torch.cat([labels.new_zeros(1), labels.flatten()])
    compact: Tensor = torch.unique(with_zero, return_inverse=True)[1]
    return compact[1:].view_as(labels)


def overlaps(true: Array, pred: Array) -> Tensor:
    """Count the pixels of each pair of labels: (B, true, pred), float64 (exact to 2**53).

    Rows and columns are labels from 0, or their ranks if some are large; 0 stays 0.
    """
    true, pred = check_labels(true, pred)
    counted = true >= 0
    true, pred = compact(true.long().clamp(min=0)), compact(pred.long())
    rows, columns = int(true.max()) + 1, int(pred.max()) + 1
    number = torch.arange(len(true), device=true.device).view(-1, 1, 1)
    cells = (number * rows + true) * columns + pred
    if not counted.all():
        cells = cells[counted]
    table = torch.bincount(cells.flatten(), minlength=len(true) * rows * columns)
    return table.view(len(true), rows, columns).double()


def _table_scores(table: Tensor) -> dict[str, Tensor]:
    cover = _covering(table, first=1)
    ari_fg = _ari(table[:, 1:])
    num_objects = (table[:, 1:].sum(dim=2) > 0).sum(dim=1)
    return {
        "ari": _ari(table),
        "ari_fg": ari_fg,
        "ari_fg_2plus": ari_fg.where(num_objects >= 2, math.nan),
        "sc": cover.scaled,
        "msc": cover.mean,
    }


def _ari(table: Tensor) -> Tensor:
    """Compute the adjusted Rand index from overlaps (B, true, pred) by ordered pixel pairs."""
    total = table.sum(dim=(1, 2))
    together_both = table.square().sum(dim=(1, 2))
    together_true = table.sum(dim=2).square().sum(dim=1)
    together_pred = table.sum(dim=1).square().sum(dim=1)
    only_true = together_true - together_both
    only_pred = together_pred - together_both
    both = together_both - total
    neither = total.square() - together_true - only_pred
    numerator = 2 * (both * neither - only_true * only_pred)
    denominator = (both + only_true) * (only_true + neither) + (both + only_pred) * (
        only_pred + neither
    )
    # Identical partitions score 1, also with one segment per pixel or only one segment (0 / 0).
    index = (numerator / denominator).where((only_true > 0) | (only_pred > 0), 1.0)
    return index.where(total > 0, math.nan)


def _covering(table: Tensor, *, first: int) -> SegCover:
    """Compute the covering of the true labels from first on, from overlaps (B, true, pred)."""
    size_true = table.sum(dim=2, keepdim=True)
    union = size_true + table.sum(dim=1, keepdim=True) - table
    iou = (table / union.clamp(min=1))[:, first:].amax(dim=2)
    size = size_true[:, first:].squeeze(2)
    # 0 / 0 = NaN for empty images, as documented.
    return SegCover(
        mean=iou.sum(dim=1) / (size > 0).sum(dim=1),
        scaled=(iou * size).sum(dim=1) / size.sum(dim=1),
    )
