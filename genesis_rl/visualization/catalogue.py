"""Catalogue of figures, with captions and numbers of the paper, and the program that draws them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genesis_rl.checkpoints.loading import load_pretrained, pick_device
from genesis_rl.data.cache import Split
from genesis_rl.perception.editing import select
from genesis_rl.slots import Decoded, SceneModel, Slots
from genesis_rl.training import PretrainConfig
from genesis_rl.training.folder import Run
from genesis_rl.utils.checks import NonNegative, Seed, at_least, check_fields
from genesis_rl.visualization import Picture, save_gif, save_png
from genesis_rl.visualization.figures import (
    MAX_COLUMNS,
    component_steps,
    decomposition_steps,
    generation,
    interpolation,
    prior_range,
    reconstruction_rows,
    scene_grid,
    slot_edits,
    temperature_sweep,
    traversal,
)
from genesis_rl.visualization.report import Report

_GRID_ROWS = 8  # rows of scenes
_FPS = 12


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


@dataclass(frozen=True)
class SampleConfig:
    """Settings of the figures."""

    model: str
    """run directory of pretrain/train.py, folder of a pretrained model, or Hub id"""
    figures: tuple[str, ...] = tuple(FIGURES)
    """names of figures, all by default"""
    num: Annotated[int, at_least(2)] = 8
    """images or scenes per figure, at least 2; the figure "scenes" has eight times as many"""
    seed: Seed = 0
    """seed of the selection of images and of the noise"""
    temperature: NonNegative = 1.0
    """factor on every standard deviation of the prior"""
    split: Split = "test"
    """split of the images: train, validation or test"""
    data: str | None = None
    """name of a dataset or folder of a pack; None: the run's training data"""
    data_options: str = "{}"
    """options of that dataset as JSON"""
    out: Path | None = None
    """output folder; None: figures/ in the model's folder"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Validate values."""
        check_fields(self)
        if self.data is None and self.data_options != "{}":
            raise ValueError("data must be set with data_options, got None.")

    @property
    def folder(self) -> Path:
        """Output folder.

        Raises:
            ValueError: if ``out`` is None and the model is not a folder.
        """
        if self.out is not None:
            return self.out.expanduser()
        model = Path(self.model).expanduser()
        if not model.is_dir():
            raise ValueError(f"out (--out) must be set for {self.model!r}, which is not a folder.")
        return model / "figures"


def draw(config: SampleConfig) -> list[Path]:
    """Render figures into files named after them, and write index.html.

    Args:
        config: the settings.

    Returns:
        The files, index.html last.

    Raises:
        ValueError: if a figure or the model is unknown, or the data are missing or have fewer than
            ``num`` images.
        OSError: if the folder cannot be written.
    """
    figures, folder = _selected_figures(config), config.folder
    model, _, metadata = load_pretrained(config.model, device=config.device)
    needs_images = any(figure.needs_images for figure in figures.values())
    images = _images(config, model, config.num if needs_images else 0)
    images = images.to(pick_device(config.device))
    inputs = FigureInputs(model, images, config.num, config.seed, config.temperature)
    folder.mkdir(parents=True, exist_ok=True)
    page = Report(f"Figures of {metadata['model']}").text(
        f"{config.model}, images of the {config.split} split, seed {config.seed}, temperature "
        f"{config.temperature:g}. Figure numbers refer to Engelcke et al., GENESIS (ICLR 2020)."
    )
    files = []
    for name, figure in figures.items():
        files.append(_draw_one(name, inputs, folder))
        paper = f"Paper: {figure.paper}." if figure.paper else "Not in the paper."
        page.heading(figure.title)
        page.picture(files[-1].read_bytes(), f"{figure.caption} {paper}", pixels=False)
    page.save(folder / "index.html")
    return [*files, folder / "index.html"]


def _selected_figures(config: SampleConfig) -> dict[str, Figure]:
    """Return the selected figures, in the catalogue's order without repetition."""
    unknown = [name for name in config.figures if name not in FIGURES]
    if unknown or not config.figures:
        got = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"figures must be some of {', '.join(FIGURES)}, got {got}.")
    return {name: figure for name, figure in FIGURES.items() if name in config.figures}


@torch.inference_mode()
def _draw_one(name: str, inputs: FigureInputs, folder: Path) -> Path:
    result = FIGURES[name].draw(inputs)
    if isinstance(result, list):
        path = folder / f"{name}.gif"
        save_gif(path, result, fps=_FPS)
    else:
        path = folder / f"{name}.png"
        save_png(path, result)
    return path


def _images(config: SampleConfig, model: SceneModel, count: int) -> Tensor:
    """Select ``count`` random images of the data, in the data's order: (count, 3, H, W)."""
    if not count:  # do not open the data
        side = model.config.image_size
        return torch.zeros(0, 3, side, side)
    pack = _settings(config, model).open_data(config.split)
    if count > len(pack):
        raise ValueError(
            f"num must be at most {len(pack)}, the images of the {config.split} split, got {count}."
        )
    rows = np.random.default_rng(config.seed).choice(len(pack), count, replace=False)
    return pack.tensor(np.sort(rows))


def _settings(config: SampleConfig, model: SceneModel) -> PretrainConfig:
    """Return the settings that define the data: those of the arguments, or the run's."""
    if config.data is not None:
        return PretrainConfig(
            model=model.config, data=config.data, data_options=config.data_options
        )
    try:
        return Run.open(config.model).config
    except ValueError as error:
        raise ValueError(f"{error} Set data (--data).") from error
