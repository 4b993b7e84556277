"""Figures of a trained model: the paper's, traversals and edits of slots.

Of images: their decompositions (paper, figures 4 and 10 to 13), reconstructions and interpolations.
Of the prior: scenes and their components (figures 3 and 6 to 9). Of slots: traversals of latents;
removed, swapped and resampled slots.

Images have shape (B, 3, H, W), in [0, 1]. Decoded scenes have mu_x (B, K, 3, H, W) and log_pi
(B, K, 1, H, W). Models are in eval mode, and random number generators on their device.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.perception.editing import drop_slot, interpolate, replace_slot, select, set_latent
from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualization import (
    Picture,
    Side,
    colour_masks,
    flow,
    join,
    margin,
    mosaic,
    over_checkerboard,
    text_picture,
    to_pictures,
)

MAX_COLUMNS = 8  # largest number of images in a row
_CELL = 96  # approximate width of a cell in pixels
_GAP = 4  # pixels between cells
_BATCH = 64  # scenes per decoded batch
_STEPS = 12  # frames between consecutive images
_IMAGE_HOLD = 6  # repetitions of an image's frame
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_FADE = 6  # frames of a component's fade-in
_FINAL_HOLD = 12  # repetitions of the final frame
_RANGE_SCENES = 128
_ROWS = 8  # latents in a traversal, over all slots; at least one per slot
_SWEEP = torch.linspace(-2, 2, 9)  # in standard deviations of the prior


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


def decomposition_steps(images: Tensor, decoded: Decoded) -> Picture:
    """Draw the steps of images' decompositions (paper, figures 4 and 10 to 13).

    One block per image. Left: the input, the reconstruction, the masks in the slots' colours and
    the reconstruction's error. Right, one column per step: the mask pi_k, the component mu_x_k, the
    masked component pi_k * mu_x_k, and the scope s_k = 1 - sum_{j < k} pi_j.
    """
    pi, shares = masked_components(decoded)
    scope = (1 - pi.cumsum(1) + pi).clamp(0, 1)  # pi added back: the sum over j < k
    image = shares.sum(1)
    overview = np.stack(
        [
            to_pictures(images),
            to_pictures(image),
            colour_masks(pi.squeeze(2)),
            to_pictures(_error(images, image)),
        ],
        axis=1,
    )
    steps = np.stack(
        [
            to_pictures(pi.expand_as(shares)),
            to_pictures(decoded.mu_x),
            over_checkerboard(shares, pi),
            to_pictures(scope.expand_as(shares)),
        ],
        axis=1,
    )
    return blocks(
        overview,
        steps,
        headings=("image", "step"),
        left_rows=("input", "reconstruction", "slots", "error"),
        right_rows=("mask", "component", "masked\ncomponent", "scope"),
    )


def reconstruction_rows(images: Tensor, decoded: Decoded) -> Picture:
    """Draw images, their reconstructions, the errors and the masks in the slots' colours."""
    pi, shares = masked_components(decoded)
    image = shares.sum(1)
    rows = np.stack(
        [
            to_pictures(images),
            to_pictures(image),
            to_pictures(_error(images, image)),
            colour_masks(pi.squeeze(2)),
        ]
    )
    captions = ["input", "reconstruction", "error", "slots"]
    bands = [sheet(rows[:, part], rows=captions) for part in row_slices(len(images))]
    return margin(join(bands, axis=0, gap=20))


@torch.inference_mode()
def interpolation(model: SceneModel, slots: Slots) -> list[Picture]:
    """Animate linear interpolations of latents from each scene to the next, cyclically.

    Returns:
        The frames: the image and its masks in the slots' colours.
    """
    count = len(slots.z_m)
    after = select(slots, [*range(1, count), 0])
    weights = torch.linspace(0, 1, _STEPS + 1)[:-1]
    frames: list[Picture] = []
    for scene in range(count):
        start, end = (select(each, [scene] * _STEPS) for each in (slots, after))
        decoded = model.decode(interpolate(start, end, weights.to(slots.log_pi)))
        masks = colour_masks(decoded.log_pi.squeeze(2).exp())
        cells = np.stack([to_pictures(decoded.image), masks], axis=1)
        steps = [
            margin(sheet(cell[None], captions=["scene", "slots"], enlarge=2)) for cell in cells
        ]
        frames += steps[:1] * _IMAGE_HOLD + steps[1:]
    return frames


def _error(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Return three times the absolute difference."""
    return 3 * (images - reconstruction).abs()


def scene_grid(images: Tensor) -> Picture:
    """Draw scenes in rows of eight (paper, figures 6, 7 and 9)."""
    pictures = to_pictures(images)
    rows = [sheet(pictures[part][None]) for part in row_slices(len(pictures))]
    return margin(join(rows, axis=0, gap=4))


def component_steps(decoded: Decoded) -> Picture:
    """Draw the generation steps of scenes, one scene per row (paper, figures 3 and 8).

    The columns are the final scene, its masks in the slots' colours, and the masked component of
    every step, pi_k * mu_x_k, over a checkerboard.
    """
    pi, shares = masked_components(decoded)
    overview = np.stack([to_pictures(shares.sum(1)), colour_masks(pi.squeeze(2))], axis=1)
    scene = sheet(overview, captions=["scene", "slots"])
    steps = sheet(over_checkerboard(shares, pi), captions=number_headings("step", shares.shape[1]))
    return margin(join([scene, steps], end=True))


@torch.inference_mode()
def temperature_sweep(
    model: SceneModel,
    count: int,
    *,
    generator: torch.Generator,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Picture:
    """Draw samples of the prior with the same noise at several temperatures, one per row.

    Args:
        model: the model, in eval mode.
        count: number of scenes, one per column.
        generator: random number generator on the model's device; every row starts from its state.
        temperatures: factors of every sigma of the prior; 0 is the prior's mean.
    """
    state = generator.get_state()
    rows = []
    for temperature in temperatures:
        generator.set_state(state)
        slots = model.sample(count, generator=generator, temperature=temperature)
        rows.append(to_pictures(model.decode(slots).image))
    return margin(
        sheet(
            np.stack(rows),
            rows=[f"temperature {temperature:g}" for temperature in temperatures],
        )
    )


def generation(decoded: Decoded) -> list[Picture]:
    """Animate the generation of scenes component by component (paper, figures 3 and 8).

    Returns:
        The frames: each step fades in pi_k * mu_x_k.
    """
    pi, shares = masked_components(decoded)
    slots = pi.shape[1]
    frames = [_frame(shares, pi, torch.zeros(slots), f"step 0 of {slots}")]
    for step in range(slots):
        for fade in range(1, _FADE + 1):
            amount = (torch.arange(slots) < step).float()
            amount[step] = fade / _FADE
            frames.append(_frame(shares, pi, amount, f"step {step + 1} of {slots}"))
    return frames + frames[-1:] * _FINAL_HOLD


def _frame(shares: Tensor, pi: Tensor, amount: Tensor, heading: str) -> Picture:
    """Draw a frame with the opacity of each slot, (K,)."""
    weights = amount.to(pi).view(1, -1, 1, 1, 1)
    scenes = over_checkerboard((weights * shares).sum(1), (weights * pi).sum(1))
    cells = [sheet(scene[None, None]) for scene in scenes]
    return margin(label(flow(cells, max_width=640, gap=8), heading))


class PriorRange(NamedTuple):
    """Mean and standard deviation of every latent under the prior, each (K, D_m + D_c)."""

    mean: Tensor
    std: Tensor


@torch.inference_mode()
def prior_range(
    model: SceneModel, *, generator: torch.Generator, num_scenes: int = _RANGE_SCENES
) -> PriorRange:
    """Estimate the prior's mean and standard deviation of every latent from samples.

    ``num_scenes`` is the number of samples, at least 2.
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
    d_m, d_c = model.latent_sizes
    names = [f"z_m[{i}]" for i in range(d_m)] + [f"z_c[{i}]" for i in range(d_c)]
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
    deviations = [f"{value:+g} sd" if value else "mean" for value in _SWEEP.tolist()]
    sweep = sheet(np.stack(rows), captions=deviations)
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
