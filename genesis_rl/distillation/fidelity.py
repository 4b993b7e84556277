"""How close a student's slots are to its teacher's, and how much sooner they are there."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genesis_rl import metrics
from genesis_rl.data import Pack
from genesis_rl.models.distilled import sharp_masks
from genesis_rl.perception import SlotEncoder
from genesis_rl.refinement import refine
from genesis_rl.slots import SceneModel
from genesis_rl.timing import medians
from genesis_rl.training.validate import device_of, labelled_images

#: Batch sizes whose latency is told.
BATCHES = (1, 8, 32)
_REPEATS, _WARMUP = 15, 3


class Sight(NamedTuple):
    """What a model sees in the first images of a pack.

    Attributes:
        features: (n, K, D_m + D_c + 3), latents and mask geometry, float64.
        scores: segmentation scores of each image by name, as far as there are true masks.
    """

    features: Tensor
    scores: dict[str, Tensor]


@torch.inference_mode()
def see(model: SceneModel, pack: Pack, count: int, refine_steps: int = 0) -> Sight:
    """Infer, and refine, the slots of the first images of a pack; the model is in eval mode."""
    parts = []
    scores: dict[str, list[Tensor]] = {}
    for images, masks in labelled_images(pack, count, device_of(model)):
        slots = refine(model, images, model.infer(images), refine_steps)
        parts.append(torch.cat([slots.features, slots.mask_geometry()], dim=2).double())
        if masks is not None:
            segmented = metrics.image_scores(masks, metrics.segment(sharp_masks(model, slots)))
            for name, values in segmented.items():
                scores.setdefault(name, []).append(values)
    return Sight(torch.cat(parts), {name: torch.cat(values) for name, values in scores.items()})


def fidelity(student: Sight, teacher: Sight, latent_sizes: tuple[int, int]) -> dict[str, float]:
    """Compare what two models see in the same images.

    Args:
        student: what the student sees.
        teacher: what its teacher sees.
        latent_sizes: (D_m, D_c).

    Returns:
        ``r2_z_m``, ``r2_z_c``, ``r2_geometry`` (as far as there are such latents): the share of
        the teacher's variance over images, all slots and dimensions together, that the student
        explains, 1 at best (what differs between slots in every image explains nothing); ``r2``,
        that of all latents, each in units of its standard deviation; and with true masks ``ari``,
        ``msc`` and so on of both, the teacher's as ``teacher_...``.
    """
    mine, theirs = student.features, teacher.features
    d_m, d_c = latent_sizes
    result, first = {}, 0
    for name, width in (("z_m", d_m), ("z_c", d_c), ("geometry", 3)):
        if width:
            part = slice(first, first + width)
            result[f"r2_{name}"] = _explained(mine[..., part], theirs[..., part])
        first += width
    mine, theirs = mine[..., : d_m + d_c], theirs[..., : d_m + d_c]
    spread = theirs.flatten(0, 1).std(0).clamp_min(1e-6)
    result["r2"] = _explained(mine / spread, theirs / spread)
    return result | segmentation(student) | segmentation(teacher, "teacher_")


def segmentation(sight: Sight, prefix: str = "") -> dict[str, float]:
    """Averages of the segmentation scores by name, as far as there are true masks."""
    averages = metrics.average(sight.scores)
    return {f"{prefix}{k}": v for k, v in averages.items() if not k.endswith("_images")}


def _explained(mine: Tensor, theirs: Tensor) -> float:
    rest = (mine - theirs).square().sum()
    return float(1 - rest / (theirs - theirs.mean(0)).square().sum().clamp_min(1e-12))


def speed(encoders: dict[str, SlotEncoder]) -> list[dict[str, Any]]:
    """Medians of the time that encoders take for frames, in turns.

    Returns:
        A row each for every batch size of `BATCHES`: ``batch``, and by name ``ms`` for the batch
        (uint8 frames in, slots with mask geometry as an array out).
    """
    rows = []
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        tasks = {}
        for name, encoder in encoders.items():
            size = encoder.image_size
            frames = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
            tasks[name] = partial(encoder.features, frames, mask_geometry=True)
        device = next(iter(encoders.values())).device
        seconds = medians(tasks, _REPEATS, _WARMUP, device)
        rows.append({"batch": batch, "ms": {name: 1e3 * s for name, s in seconds.items()}})
    return rows
