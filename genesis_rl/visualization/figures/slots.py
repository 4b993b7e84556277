"""Figures of single slots: traversals, removed, swapped and resampled slots."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.perception.editing import drop_slot, replace_slot, select, set_latent
from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualization import (
    Picture,
    join,
    margin,
    over_checkerboard,
    to_pictures,
)
from genesis_rl.visualization.figures.cells import blocks, decode_images, masked_components, sheet

_RANGE_SCENES = 128
_ROWS = 8  # latents in a traversal, over all slots; at least one per slot
_SWEEP = torch.linspace(-2, 2, 9)  # in standard deviations of the prior


class PriorRange(NamedTuple):
    """Mean and standard deviation of every latent under the prior, each (K, D_m + D_c)."""

    mean: Tensor
    std: Tensor


@torch.inference_mode()
def prior_range(
    model: SceneModel, *, generator: torch.Generator, num_scenes: int = _RANGE_SCENES
) -> PriorRange:
    """Estimate the prior's mean and standard deviation of every latent from samples.

    Args:
        model: the model, in eval mode.
        generator: random number generator on the model's device.
        num_scenes: number of samples, at least 2.
    """
    features = model.sample(num_scenes, generator=generator).features
    return PriorRange(features.mean(0), features.std(0))


@torch.inference_mode()
def strongest_latents(
    model: SceneModel, scene: Slots, low: Tensor, high: Tensor, count: int
) -> Tensor:
    """Find the latents of each slot with the largest effect on the image.

    Args:
        model: the model, in eval mode.
        scene: one scene, of K slots.
        low: values at one end of the latents' range, shape (K, D_m + D_c).
        high: values at the other end.
        count: number of latents per slot, at most all.

    Returns:
        Dimensions of ``Slots.features``, shape (K, count), by decreasing mean absolute difference
        of the images at both ends.
    """
    slots, width = low.shape
    effect = low.new_zeros(slots, width)
    indices = torch.arange(width, device=low.device)
    copies = select(scene, [0] * width)
    for slot in range(slots):
        ends = [
            decode_images(model, set_latent(copies, slot, indices, values[slot]))
            for values in (low, high)
        ]
        effect[slot] = (ends[1] - ends[0]).abs().mean((1, 2, 3))
    return effect.topk(min(count, width), dim=1).indices


@torch.inference_mode()
def traversal(model: SceneModel, scene: Slots, prior: PriorRange) -> Picture:
    """Draw traversals of the latents with the largest effect in each slot.

    One row per latent: the slot in the scene, then the scene with the latent from two standard
    deviations below the prior's mean to two above.

    Args:
        model: the model, in eval mode.
        scene: one scene, of K slots.
        prior: range of the latents; see `prior_range`.
    """
    low, high = (prior.mean + end * prior.std for end in (_SWEEP[0], _SWEEP[-1]))
    per_slot = -(-_ROWS // len(low))
    chosen = strongest_latents(model, scene, low, high, per_slot).tolist()
    pi, shares = masked_components(model.decode(scene))
    parts = over_checkerboard(shares, pi)[0]
    names = _latent_names(model)
    rows, bases, captions = [], [], []
    for slot, dimensions in enumerate(chosen):
        for dimension in dimensions:
            values = prior.mean[slot, dimension] + _SWEEP.to(low) * prior.std[slot, dimension]
            swept = set_latent(select(scene, [0] * len(values)), slot, dimension, values)
            rows.append(to_pictures(decode_images(model, swept)))
            bases.append(parts[slot])
            captions.append(f"slot {slot + 1}\n{names[dimension]}")
    image = to_pictures(shares.sum(1))[0]
    start = sheet(
        np.stack([np.stack([image, base]) for base in bases]),
        captions=["scene", "slot"],
        rows=captions,
    )
    sweep = sheet(np.stack(rows), captions=[_deviation(value) for value in _SWEEP.tolist()])
    return margin(join([start, sweep], end=True))


@torch.inference_mode()
def slot_edits(model: SceneModel, images: Tensor, prior_scenes: Slots) -> Picture:
    """Draw images with one slot removed, replaced from another image, or sampled from the prior.

    One block per image, one column per slot k: the slot; the image without it, its pixels assigned
    to the others; the image with slot k of the next image; the image with slot k of a scene from
    the prior. The left column has the source of each row.

    Args:
        model: the model, in eval mode.
        images: at least 2, shape (B, 3, H, W), in [0, 1]; the first follows the last.
        prior_scenes: B scenes.

    Raises:
        ValueError: if there are fewer than 2 images.
    """
    count = len(images)
    if count < 2:
        raise ValueError(f"images must be at least 2 to swap slots, got {count}.")
    slots = model.infer(images)
    after = [*range(1, count), 0]
    decoded = model.decode(slots)
    pi, shares = masked_components(decoded)
    others = select(slots, after)
    ways: tuple[Callable[[int], Decoded], ...] = (
        lambda k: drop_slot(decoded, k),
        lambda k: model.decode(replace_slot(slots, k, others)),
        lambda k: model.decode(replace_slot(slots, k, prior_scenes)),
    )
    edits = [np.stack([_whole(way(k)) for k in range(pi.shape[1])], axis=1) for way in ways]
    sources = (images, decoded.image, images[after], model.decode(prior_scenes).image)
    return blocks(
        to_pictures(torch.stack(sources, dim=1)),
        np.stack([over_checkerboard(shares, pi), *edits], axis=1),
        headings=("from", "slot"),
        left_rows=("input", "reconstruction", "next image", "prior's scene"),
        right_rows=("the slot", "removed", "swapped", "resampled"),
    )


def _whole(decoded: Decoded) -> npt.NDArray[np.uint8]:
    """Draw images, (B, H, W, 3), with a checkerboard where the only slot is removed."""
    pi, shares = masked_components(decoded)
    return over_checkerboard(shares.sum(1), pi.sum(1))


def _latent_names(model: SceneModel) -> list[str]:
    d_m, d_c = model.latent_sizes
    return [f"z_m[{i}]" for i in range(d_m)] + [f"z_c[{i}]" for i in range(d_c)]


def _deviation(value: float) -> str:
    return f"{value:+g} sd" if value else "mean"
