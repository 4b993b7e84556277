"""Scores of models: segmentation against the truth, bounds on the likelihood, samples."""

from genesis_rl.metrics.segmentation import (
    SegCover,
    ari,
    average,
    baselines,
    colour_palette,
    fixed_grid,
    image_scores,
    one_slot,
    segment,
    segmentation_covering,
    segmentation_scores,
)

__all__ = [
    "SegCover",
    "ari",
    "average",
    "baselines",
    "colour_palette",
    "fixed_grid",
    "image_scores",
    "one_slot",
    "segment",
    "segmentation_covering",
    "segmentation_scores",
]
