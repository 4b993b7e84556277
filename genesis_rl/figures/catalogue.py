"""The figures by name: what each shows, what it is drawn from, which of the paper's it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from genesis_rl.editing import select
from genesis_rl.figures.cells import WIDE
from genesis_rl.figures.images import decomposition_steps, interpolation, reconstruction_rows
from genesis_rl.figures.scenes import building, component_steps, scene_grid, temperature_sweep
from genesis_rl.figures.slots import prior_range, slot_edits, traversal
from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.visualize import Picture

_GRID_ROWS = 8  # of scenes


@dataclass(frozen=True, eq=False)
class Material:
    """What figures are drawn from.

    Attributes:
        model: the model, in eval mode.
        images: real images, shape (num, 3, H, W), in [0, 1]; none, shape (0, 3, H, W), for figures
            that need none.
        num: how many images or scenes a figure shows.
        seed: of the noise; every figure starts from it, so that none depends on which others are
            drawn, and the same scenes appear in several.
        temperature: factor on every sigma of the prior.
    """

    model: SceneModel
    images: Tensor
    num: int
    seed: int
    temperature: float

    def generator(self) -> torch.Generator:
        """A new source of noise on the model's device."""
        return torch.Generator(self.images.device).manual_seed(self.seed)

    def scenes(self) -> Slots:
        """``num`` scenes from the prior, the same each time."""
        return self._sample(self.generator())

    def decoded_scenes(self) -> Decoded:
        """The same, decoded."""
        return self.model.decode(self.scenes())

    def scene_images(self, times: int) -> Tensor:
        """Images of so many times ``num`` scenes, the first as in `scenes`."""
        generator = self.generator()
        drawn = [self.model.decode(self._sample(generator)).image for _ in range(times)]
        return torch.cat(drawn)

    def decoded_images(self) -> Decoded:
        """The images as the model sees them."""
        return self.model.decode(self.model.infer(self.images))

    def _sample(self, generator: torch.Generator) -> Slots:
        return self.model.sample(self.num, generator=generator, temperature=self.temperature)


class Figure(NamedTuple):
    """A kind of figure.

    Attributes:
        title: its heading on the page.
        caption: what it shows.
        paper: the paper's figures that it corresponds to.
        draw: material to a picture, or to the frames of a film.
        needs_images: whether it shows real images.
    """

    title: str
    caption: str
    paper: str
    draw: Callable[[Material], Picture | list[Picture]]
    needs_images: bool = False


def _traversal(material: Material, scene: Slots) -> Picture:
    prior = prior_range(material.model, generator=material.generator())
    return traversal(material.model, scene, prior)


#: The figures that can be drawn, by name.
FIGURES: dict[str, Figure] = {
    "scenes": Figure(
        "Scenes from the prior",
        "Scenes as they come, none chosen.",
        "Figures 6, 7 and 9",
        lambda m: scene_grid(m.scene_images(_GRID_ROWS)),
    ),
    "components": Figure(
        "Scenes from the prior, component by component",
        "The final scene, its masks in the slots' colours, and the component of every step on a "
        "checkerboard where its mask leaves room.",
        "Figures 3 and 8",
        lambda m: component_steps(m.decoded_scenes()),
    ),
    "building": Figure(
        "Scenes put together",
        "Scenes from the prior, growing by the component of every step.",
        "Figures 3 and 8, as a film",
        lambda m: building(m.decoded_scenes()),
    ),
    "temperatures": Figure(
        "The prior's temperature",
        "The same draws with the prior's standard deviations times the temperature; at 0 all are "
        "the prior's mean.",
        "",
        lambda m: temperature_sweep(m.model, min(m.num, WIDE), generator=m.generator()),
    ),
    "decompositions": Figure(
        "Decompositions step by step",
        "For each image the input, the reconstruction, the masks in the slots' colours and three "
        "times the absolute error; for each step its mask, its component, the component where the "
        "mask is, and the scope that the steps before left to it.",
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
        "Single latents of each slot, those that change the image most, from two of the prior's "
        "standard deviations below its mean to two above, all else held.",
        "",
        lambda m: _traversal(m, select(m.scenes(), [0])),
    ),
    "image-traversals": Figure(
        "Latents of an image",
        "Single latents of each slot that the model finds in an image, those that change it most, "
        "from two of the prior's standard deviations below its mean to two above, all else held.",
        "",
        lambda m: _traversal(m, m.model.infer(m.images[:1])),
        needs_images=True,
    ),
    "edits": Figure(
        "Slots edited",
        "A column for each slot: the slot itself; the image without it, its pixels given to the "
        "other slots; the image with this slot of the next image; the image with this slot of a "
        "scene from the prior.",
        "",
        lambda m: slot_edits(m.model, m.images, m.scenes()),
        needs_images=True,
    ),
    "interpolation": Figure(
        "From image to image",
        "Slots on a straight line from each image's to the next's, decoded on the way.",
        "",
        lambda m: interpolation(m.model, m.model.infer(m.images)),
        needs_images=True,
    ),
}
