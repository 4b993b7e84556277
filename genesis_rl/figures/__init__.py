"""Figures of a trained model: the paper's, and what one does with slots."""

from genesis_rl.figures.catalogue import FIGURES, Figure, Material
from genesis_rl.figures.draw import SampleConfig, draw
from genesis_rl.figures.images import decomposition_steps, interpolation, reconstruction_rows
from genesis_rl.figures.scenes import building, component_steps, scene_grid, temperature_sweep
from genesis_rl.figures.slots import (
    PriorRange,
    prior_range,
    slot_edits,
    strongest_latents,
    traversal,
)

__all__ = [
    "FIGURES",
    "Figure",
    "Material",
    "PriorRange",
    "SampleConfig",
    "building",
    "component_steps",
    "decomposition_steps",
    "draw",
    "interpolation",
    "prior_range",
    "reconstruction_rows",
    "scene_grid",
    "slot_edits",
    "strongest_latents",
    "temperature_sweep",
    "traversal",
]
