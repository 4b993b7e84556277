"""Figures of a trained model: the paper's, traversals and edits of slots."""

from genesis_rl.visualization.figures.catalogue import FIGURES, Figure, FigureInputs
from genesis_rl.visualization.figures.draw import SampleConfig, draw
from genesis_rl.visualization.figures.images import (
    decomposition_steps,
    interpolation,
    reconstruction_rows,
)
from genesis_rl.visualization.figures.scenes import (
    component_steps,
    generation,
    scene_grid,
    temperature_sweep,
)
from genesis_rl.visualization.figures.slots import (
    PriorRange,
    prior_range,
    slot_edits,
    strongest_latents,
    traversal,
)

__all__ = [
    "FIGURES",
    "Figure",
    "FigureInputs",
    "PriorRange",
    "SampleConfig",
    "component_steps",
    "decomposition_steps",
    "draw",
    "generation",
    "interpolation",
    "prior_range",
    "reconstruction_rows",
    "scene_grid",
    "slot_edits",
    "strongest_latents",
    "temperature_sweep",
    "traversal",
]
