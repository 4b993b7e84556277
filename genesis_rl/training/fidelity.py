"""Comparison of a student with its teacher: fidelity of the slots and latency."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genesis_rl.data import Pack
from genesis_rl.evaluation import metrics
from genesis_rl.models.refinement import refine
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import SceneModel
from genesis_rl.training.validate import device_of, labelled_images
from genesis_rl.utils.tables import figure
from genesis_rl.utils.timing import medians

#: Batch sizes of the latency measurements.
BATCHES = (1, 8, 32)
_REPEATS, _WARMUP = 15, 3


class EncodedImages(NamedTuple):
    """A model's slots of the first images of a pack.

    Attributes:
        features: (n, K, D_m + D_c + 3), latents and mask geometry, float64.
        scores: segmentation scores of each image by name; empty without true masks.
    """

    features: Tensor
    scores: dict[str, Tensor]


@torch.inference_mode()
def encode(model: SceneModel, pack: Pack, count: int, refine_steps: int = 0) -> EncodedImages:
    """Infer and refine the slots of a pack's first images; the model must be in eval mode."""
    parts = []
    scores: dict[str, list[Tensor]] = {}
    for images, masks in labelled_images(pack, count, device_of(model)):
        slots = refine(model, images, model.infer(images), refine_steps)
        parts.append(torch.cat([slots.features, slots.mask_geometry()], dim=2).double())
        if masks is not None:
            segmented = metrics.image_scores(
                masks, metrics.segment(model.segmentation_masks(slots))
            )
            for name, values in segmented.items():
                scores.setdefault(name, []).append(values)
    joined = {name: torch.cat(values) for name, values in scores.items()}
    return EncodedImages(torch.cat(parts), joined)


def fidelity(
    student: EncodedImages, teacher: EncodedImages, latent_sizes: tuple[int, int]
) -> dict[str, float]:
    """Compare the slots of two models on the same images.

    Args:
        student: the student's slots.
        teacher: the teacher's slots.
        latent_sizes: (D_m, D_c).

    Returns:
        ``r2_z_m``, ``r2_z_c`` (for existing latents), ``r2_geometry``: the explained share of the
        teacher's variance over images, over all slots and dimensions, at most 1. Differences
        between slots that are constant over images are excluded. ``r2``: the same of all latents,
        each standardised. With true masks ``ari``, ``msc`` etc. of both, the teacher's as
        ``teacher_...``.
    """
    predicted, target = student.features, teacher.features
    d_m, d_c = latent_sizes
    result, first = {}, 0
    for name, width in (("z_m", d_m), ("z_c", d_c), ("geometry", 3)):
        if width:
            part = slice(first, first + width)
            result[f"r2_{name}"] = _explained(predicted[..., part], target[..., part])
        first += width
    predicted, target = predicted[..., : d_m + d_c], target[..., : d_m + d_c]
    spread = target.flatten(0, 1).std(0).clamp_min(1e-6)
    result["r2"] = _explained(predicted / spread, target / spread)
    return result | segmentation(student) | segmentation(teacher, "teacher_")


def segmentation(encoded: EncodedImages, prefix: str = "") -> dict[str, float]:
    """Return the averages of the segmentation scores by name; empty without true masks."""
    averages = metrics.average(encoded.scores)
    return {f"{prefix}{k}": v for k, v in averages.items() if not k.endswith("_images")}


def _explained(predicted: Tensor, target: Tensor) -> float:
    error = (predicted - target).square().sum()
    return float(1 - error / (target - target.mean(0)).square().sum().clamp_min(1e-12))


def speed(encoders: dict[str, SlotEncoder]) -> list[dict[str, Any]]:
    """Measure the median latency of encoders, alternating between them.

    Returns:
        One row for every batch size of `BATCHES`: ``batch``, and ``ms`` per batch by name (from
        uint8 frames to an array of slots with mask geometry).
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


def tables(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Format fidelity, segmentation and speed as tables for the results page."""
    scores = report["fidelity"]
    explained = {name: value for name, value in scores.items() if name.startswith("r2")}
    result = [
        {
            "caption": "Explained share of the teacher's variance on held-out images: of the "
            "latents, of the masks' centroids and areas, and of all latents, each standardised.",
            "head": [name.removeprefix("r2_") for name in explained],
            "rows": [[figure(value, 4) for value in explained.values()]],
        }
    ]
    if "msc" in scores:
        names = ("ari", "ari_fg", "msc")
        prefixes = {"teacher": "teacher_", "student": ""}
        if "encoder_msc" in scores:
            refined = f"teacher, refined by {report['settings']['refine_steps']} steps"
            prefixes = {"teacher": "encoder_", refined: "teacher_", "student": ""}
        result.append(
            {
                "caption": "Segmentation of the same images by decoded masks.",
                "head": ["", *names],
                "rows": [
                    [label, *(figure(scores[prefix + name], 3) for name in names)]
                    for label, prefix in prefixes.items()
                ],
            }
        )
    mflop = {role: f"{count / 1e6:,.1f}" for role, count in report["flops"].items()}
    result.append(
        {
            "caption": f"Milliseconds from frames to slots, {report['hardware']}; teacher "
            f"{mflop['teacher']} MFLOP per frame, student {mflop['student']}.",
            "head": ["frames", "teacher", "student", "speedup"],
            "rows": [
                [
                    str(row["batch"]),
                    *(f"{row['ms'][role]:.2f}" for role in ("teacher", "student")),
                    f"{row['ms']['teacher'] / row['ms']['student']:.1f}",
                ]
                for row in report["speed"]
            ],
        }
    )
    return result
