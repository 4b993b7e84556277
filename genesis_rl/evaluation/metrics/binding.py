"""Scores of object binding, the assignment of objects to slots: one for each kind of failure.

Label maps, their errors, images without foreground and averages: see
`genesis_rl.evaluation.metrics.segmentation`. Images are uint8 in [0, 255] or float in [0, 1], shape
(B, 3, H, W); ValueError is also raised for another shape.

The *slot of an object* is the slot with most of its pixels, the *background slot* the slot with
most of the true background; the first slot wins a tie.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.evaluation.metrics.segmentation import (
    CHUNK,
    Array,
    as_tensor,
    check_labels,
    compact,
    image_scores,
    join_batches,
    overlaps,
)
from genesis_rl.slots import ElboTerms

# Largest differences of equal colours, in [0, 1], and of equal hues, as unit RGB vectors.
_TOLERANCE, _HUE_TOLERANCE = 0.05, 0.2


def binding_scores(
    true: Array, pred: Array, images: Array, *, tolerance: float = _TOLERANCE
) -> dict[str, Tensor]:
    """Compute the binding scores of every image of a batch.

    Two objects have the same colour if the medians over their true pixels differ by at most the
    tolerance in every channel. Blended borders do not change the median of a flat object.

    Args:
        true: true labels.
        pred: predicted labels.
        images: the images.
        tolerance: largest difference of equal colours, in [0, 1].

    Returns:
        Each of shape (B,), float64:

        - ``objects_lost``: share of the objects assigned to the background's slot; NaN without
          objects or background;
        - ``same_colour_shared``: share of the pairs of objects of the same colour that share a
          slot; NaN without such a pair;
        - ``other_colour_shared``: the same for pairs of different colours. If it is much lower, the
          slots bind by colour.
    """
    return join_batches(_binding(scenes, tolerance) for scenes in _chunks(true, pred, images))


def twins_shared(
    true: Array, pred: Array, images: Array, *, hue_tolerance: float = _HUE_TOLERANCE
) -> Tensor:
    """Compute the share of pairs of touching objects of one hue that share a slot.

    Objects touch if pixels of both are neighbours in a row or a column. The hue is the median
    colour scaled to length one, so that differently lit objects of one colour have one hue.

    Args:
        true: true labels.
        pred: predicted labels.
        images: the images.
        hue_tolerance: largest distance of equal hues, in [0, sqrt(2)].

    Returns:
        Shape (B,), float64; NaN without such a pair.
    """
    return torch.cat([_twins(scenes, hue_tolerance) for scenes in _chunks(true, pred, images)])


def active_slots(pred: Array, *, min_share: float = 0.01) -> Tensor:
    """Count the slots with at least a share of the image's pixels.

    Args:
        pred: predicted labels, as of `segment`.
        min_share: smallest share of the pixels, in (0, 1]. Artefacts at outlines are below 1 %.

    Returns:
        Shape (B,), float64, 0 to K.
    """
    _, pred = check_labels(pred, pred)
    areas = [overlaps(torch.zeros_like(part), part)[:, 0] for part in pred.split(CHUNK)]
    least = min_share * pred[0].numel()
    return torch.cat([(area >= least).sum(dim=1).double() for area in areas])


def active_latents(terms: ElboTerms, *, min_kl: float = 1.0) -> Tensor:
    """Count the slots with informative latents, i.e. a KL of at least ``min_kl`` nats.

    A slot may be active in its latents only (a duplicate of another slot) or in its mask only (its
    posterior has collapsed to the prior).

    Args:
        terms: terms of the bound; both KLs of a slot are added.
        min_kl: smallest KL in nats. The standard deviation of a one-sample estimate is about the
            square root of the number of latents; averages over samples are more accurate.

    Returns:
        Shape (B,), float64, 0 to K.
    """
    return (terms.kl_m + terms.kl_c >= min_kl).sum(dim=1).double()


def scene_scores(true: Array, pred: Array, images: Array) -> dict[str, Tensor]:
    """Compute all segmentation and binding scores of every image of a batch.

    Returns:
        The scores of `image_scores`, `binding_scores` and `twins_shared`, each of shape (B,).
    """
    scores = join_batches(
        _binding(scenes, _TOLERANCE) | {"twins_shared": _twins(scenes, _HUE_TOLERANCE)}
        for scenes in _chunks(true, pred, images)
    )
    return image_scores(true, pred) | scores


class _Scenes(NamedTuple):
    """True labels (B, H, W), overlaps (B, true, pred) and median colours (B, true, 3) of images."""

    labels: Tensor
    table: Tensor
    colours: Tensor


def _chunks(true: Array, pred: Array, images: Array) -> Iterator[_Scenes]:
    """Validate the inputs and yield the scenes of each chunk of images."""
    true, pred = check_labels(true, pred)
    images = as_tensor(images, "images", device=true.device)
    if images.shape != (len(true), 3, *true.shape[1:]):
        raise ValueError(
            f"images must have shape {(len(true), 3, *true.shape[1:])} for these labels, got "
            f"{tuple(images.shape)}."
        )
    for part in zip(true.split(CHUNK), pred.split(CHUNK), images.split(CHUNK), strict=True):
        labels, predicted, colours = part
        yield _Scenes(labels, overlaps(labels, predicted), _median_colours(labels, colours))


def _binding(scenes: _Scenes, tolerance: float) -> dict[str, Tensor]:
    table = scenes.table
    areas, slots = table.sum(dim=2), table.argmax(dim=2)
    exists = areas[:, 1:] > 0  # (B, objects)
    lost = exists & (slots[:, 1:] == slots[:, :1])
    lost_share = (lost.sum(dim=1) / exists.sum(dim=1)).double()  # 0 / 0 = NaN, as documented

    colours = scenes.colours[:, 1:]
    distance = (colours.unsqueeze(1) - colours.unsqueeze(2)).abs().amax(dim=3)
    same_colour = distance <= round(tolerance * 255)
    pairs = (exists.unsqueeze(1) & exists.unsqueeze(2)).triu(diagonal=1)
    shared = slots[:, 1:].unsqueeze(1) == slots[:, 1:].unsqueeze(2)
    return {
        "objects_lost": lost_share.where(areas[:, 0] > 0, math.nan),
        "same_colour_shared": _share(shared, pairs & same_colour),
        "other_colour_shared": _share(shared, pairs & ~same_colour),
    }


def _twins(scenes: _Scenes, tolerance: float) -> Tensor:
    slots = scenes.table.argmax(dim=2)
    hues = F.normalize(scenes.colours.double(), dim=2)
    one_hue = torch.cdist(hues, hues) <= tolerance
    touch = torch.zeros_like(one_hue)
    labels = compact(scenes.labels.long().clamp(min=0))
    image = torch.arange(len(labels), device=labels.device)[:, None, None]
    for first, second in (
        (labels[:, 1:], labels[:, :-1]),
        (labels[:, :, 1:], labels[:, :, :-1]),
    ):
        touch[image, torch.minimum(first, second), torch.maximum(first, second)] = True
    touch[:, 0] = False
    touch.diagonal(dim1=1, dim2=2)[:] = False
    return _share(slots.unsqueeze(1) == slots.unsqueeze(2), touch & one_hue)


def _share(shared: Tensor, pairs: Tensor) -> Tensor:
    """Return the share (B,) of shared pairs, masks (B, objects, objects); NaN without pairs."""
    return (shared & pairs).sum(dim=(1, 2)).double() / pairs.sum(dim=(1, 2))


def _median_colours(true: Tensor, images: Tensor) -> Tensor:
    """Compute the lower median of each true segment, (B, segments, 3) in 0..255, by histograms."""
    if images.is_floating_point():
        images = (images.clamp(0, 1) * 255).round()
    labels = compact(true.long().clamp(min=0)).int()  # int32 is three times as fast
    segments = int(labels.max()) + 1
    number = torch.arange(len(true), dtype=torch.int32, device=true.device).view(-1, 1, 1)
    channel = torch.arange(3, dtype=torch.int32, device=true.device).view(1, 3, 1, 1)
    cells = ((number * segments + labels).unsqueeze(1) * 3 + channel) * 256 + images.int()
    valid = (true >= 0).unsqueeze(1).expand_as(cells)
    if not valid.all():
        cells = cells[valid]
    counts = torch.bincount(cells.flatten(), minlength=len(true) * segments * 3 * 256)
    cumulative = counts.view(len(true), segments, 3, 256).cumsum(dim=3)
    return (2 * cumulative < cumulative[..., -1:]).sum(dim=3)
