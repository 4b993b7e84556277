"""Program that renders figures of a model and saves them in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from genesis_rl.checkpoints.loading import load_pretrained, pick_device
from genesis_rl.data.cache import Split
from genesis_rl.slots import SceneModel
from genesis_rl.training import PretrainConfig
from genesis_rl.training.folder import Run
from genesis_rl.utils.checks import NonNegative, Seed, at_least, check_fields
from genesis_rl.visualization import save_gif, save_png
from genesis_rl.visualization.figures.catalogue import FIGURES, Figure, FigureInputs
from genesis_rl.visualization.report import Report

_FPS = 12


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
    images = torch.from_numpy(np.array(pack.images[np.sort(rows)]))
    return images.permute(0, 3, 1, 2).float().div_(255)


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
