"""Metrics: segmentation, object binding, likelihood bounds and sample quality."""

from genesis_rl.evaluation.metrics.binding import (
    active_latents,
    active_slots,
    binding_scores,
    scene_scores,
    twins_shared,
)
from genesis_rl.evaluation.metrics.bounds import Bounds, bits_per_dim, bounds, log_weights
from genesis_rl.evaluation.metrics.segmentation import (
    SegCover,
    ari,
    average,
    baselines,
    colour_palette,
    fixed_grid,
    image_scores,
    join_batches,
    one_slot,
    segment,
    segmentation_covering,
    segmentation_scores,
)

__all__ = [
    "Bounds",
    "SegCover",
    "active_latents",
    "active_slots",
    "ari",
    "average",
    "baselines",
    "binding_scores",
    "bits_per_dim",
    "bounds",
    "colour_palette",
    "fixed_grid",
    "image_scores",
    "join_batches",
    "log_weights",
    "one_slot",
    "scene_scores",
    "segment",
    "segmentation_covering",
    "segmentation_scores",
    "twins_shared",
]
