"""Catalogue of figures, with captions and the corresponding figures of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from genesis_rl.perception.editing import select
from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualization import Picture
from genesis_rl.visualization.figures.cells import MAX_COLUMNS
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
from genesis_rl.visualization.figures.slots import prior_range, slot_edits, traversal

_GRID_ROWS = 8  # rows of scenes


@dataclass(frozen=True, eq=False)
class FigureInputs:
    """Inputs of every figure.

    Attributes:
        model: the model, in eval mode.
        images: real images, shape (num, 3, H, W), in [0, 1]; empty, shape (0, 3, H, W), for figures
            without images.
        num: number of images or scenes in a figure.
        seed: seed of the noise, the same for every figure, so that figures are independent of each
            other and contain the same scenes.
        temperature: factor of every sigma of the prior.
    """

    model: SceneModel
    images: Tensor
    num: int
    seed: int
    temperature: float

    def generator(self) -> torch.Generator:
        """Return a new random number generator on the model's device."""
        return torch.Generator(self.images.device).manual_seed(self.seed)

    def scenes(self) -> Slots:
        """Sample ``num`` scenes from the prior, the same at each call."""
        return self._sample(self.generator())

    def decoded_scenes(self) -> Decoded:
        """Decode `scenes`."""
        return self.model.decode(self.scenes())

    def scene_images(self, times: int) -> Tensor:
        """Return images of ``times * num`` scenes, the first as in `scenes`."""
        generator = self.generator()
        images = [self.model.decode(self._sample(generator)).image for _ in range(times)]
        return torch.cat(images)

    def decoded_images(self) -> Decoded:
        """Decode the inferred slots of the images."""
        return self.model.decode(self.model.infer(self.images))

    def _sample(self, generator: torch.Generator) -> Slots:
        return self.model.sample(self.num, generator=generator, temperature=self.temperature)


class Figure(NamedTuple):
    """A kind of figure.

    Attributes:
        title: heading on the page.
        caption: description.
        paper: corresponding figures of the paper.
        draw: function from inputs to a picture, or to the frames of an animation.
        needs_images: whether it requires real images.
    """

    title: str
    caption: str
    paper: str
    draw: Callable[[FigureInputs], Picture | list[Picture]]
    needs_images: bool = False


def _traversal(inputs: FigureInputs, scene: Slots) -> Picture:
    prior = prior_range(inputs.model, generator=inputs.generator())
    return traversal(inputs.model, scene, prior)


#: All figures by name.
FIGURES: dict[str, Figure] = {
    "scenes": Figure(
        "Scenes from the prior",
        "Random samples of the prior, not selected.",
        "Figures 6, 7 and 9",
        lambda m: scene_grid(m.scene_images(_GRID_ROWS)),
    ),
    "components": Figure(
        "Scenes from the prior, component by component",
        "The final scene, its masks in the slots' colours, and the component of every step, on a "
        "checkerboard outside its mask.",
        "Figures 3 and 8",
        lambda m: component_steps(m.decoded_scenes()),
    ),
    "generation": Figure(
        "Generation of scenes",
        "Scenes from the prior, composed component by component.",
        "Figures 3 and 8, animated",
        lambda m: generation(m.decoded_scenes()),
    ),
    "temperatures": Figure(
        "The prior's temperature",
        "The same noise with the prior's standard deviations multiplied by the temperature; at 0 "
        "all scenes are the prior's mean.",
        "",
        lambda m: temperature_sweep(m.model, min(m.num, MAX_COLUMNS), generator=m.generator()),
    ),
    "decompositions": Figure(
        "Decompositions step by step",
        "For each image the input, the reconstruction, the masks in the slots' colours and three "
        "times the absolute error; for each step its mask, its component, the masked component, "
        "and the scope left by the steps before.",
        "Figures 4 and 10 to 13",
        lambda m: decomposition_steps(m.images, m.decoded_images()),
        needs_images=True,
    ),
    "reconstructions": Figure(
        "Reconstructions",
        "Images, their reconstructions, three times the absolute error, and the masks in the "
        "slots' colours.",
        "",
        lambda m: reconstruction_rows(m.images, m.decoded_images()),
        needs_images=True,
    ),
    "traversals": Figure(
        "Latents of a scene from the prior",
        "The latents of each slot with the largest effect on the image, varied one at a time from "
        "two of the prior's standard deviations below its mean to two above.",
        "",
        lambda m: _traversal(m, select(m.scenes(), [0])),
    ),
    "image-traversals": Figure(
        "Latents of an image",
        "The latents of each inferred slot with the largest effect on the image, varied one at a "
        "time from two of the prior's standard deviations below its mean to two above.",
        "",
        lambda m: _traversal(m, m.model.infer(m.images[:1])),
        needs_images=True,
    ),
    "edits": Figure(
        "Edits of slots",
        "A column for each slot: the slot itself; the image without it, its pixels assigned to the "
        "other slots; the image with this slot of the next image; the image with this slot of a "
        "scene from the prior.",
        "",
        lambda m: slot_edits(m.model, m.images, m.scenes()),
        needs_images=True,
    ),
    "interpolation": Figure(
        "Interpolation between images",
        "Linear interpolation between the slots of consecutive images, decoded.",
        "",
        lambda m: interpolation(m.model, m.model.infer(m.images)),
        needs_images=True,
    ),
}
