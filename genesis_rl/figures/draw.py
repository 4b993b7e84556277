"""Draw figures of a run into a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genesis_rl.checkpoint import load_pretrained, pick_device
from genesis_rl.data import SPLITS
from genesis_rl.figures.catalogue import FIGURES, Figure, Material
from genesis_rl.report import Report
from genesis_rl.slots import SceneModel
from genesis_rl.training import PretrainConfig
from genesis_rl.training.run import Run
from genesis_rl.visualize import save_gif, save_png

_FPS = 12


@dataclass(frozen=True)
class SampleConfig:
    """Which figures to draw, of what."""

    run: str
    """run of pretrain/train.py, folder of a saved model, or a model's id on the Hub"""
    figures: tuple[str, ...] = tuple(FIGURES)
    """names of figures, all by default"""
    num: int = 8
    """images or scenes in a figure, at least 2; scenes shows eight times as many"""
    seed: int = 0
    """of the choice of images and of the noise"""
    temperature: float = 1.0
    """factor on every standard deviation of the prior"""
    split: str = "test"
    """which images: train, validation or test"""
    data: str | None = None
    """name of a dataset or folder of a pack; None: what the run was trained on"""
    data_options: str = "{}"
    """options of that dataset as JSON"""
    out: Path | None = None
    """folder of the figures; None: figures/ in the run's folder"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Validate values."""
        if self.num < 2:
            raise ValueError(f"num is {self.num}; wanted at least 2.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; wanted 0 to 2**63 - 1.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; wanted a value >= 0.")
        if self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; wanted one of {', '.join(SPLITS)}.")
        if self.data is None and self.data_options != "{}":
            raise ValueError("data_options are given without data; wanted both.")

    @property
    def folder(self) -> Path:
        """Where the figures go.

        Raises:
            ValueError: if ``out`` is not given and the run is not a folder.
        """
        if self.out is not None:
            return self.out.expanduser()
        run = Path(self.run).expanduser()
        if not run.is_dir():
            raise ValueError(f"run {self.run!r} is no folder to put figures in; wanted --out.")
        return run / "figures"


def draw(config: SampleConfig) -> list[Path]:
    """Draw figures, each into a file of its name, and an index.html that shows them.

    Args:
        config: the settings.

    Returns:
        The files, index.html last.

    Raises:
        ValueError: if a figure is unknown, there is no such run, or its data cannot be had or are
            fewer than asked for.
        OSError: if the folder cannot be written.
    """
    figures, folder = _chosen(config), config.folder
    model, _, metadata = load_pretrained(config.run, device=config.device)
    needs_images = any(figure.needs_images for figure in figures.values())
    images = _images(config, model, config.num if needs_images else 0)
    images = images.to(pick_device(config.device))
    material = Material(model, images, config.num, config.seed, config.temperature)
    folder.mkdir(parents=True, exist_ok=True)
    page = Report(f"Figures of {metadata['model']}").text(
        f"{config.run}, images of the {config.split} split, seed {config.seed}, temperature "
        f"{config.temperature:g}. Figure numbers are those of Engelcke et al., GENESIS (ICLR 2020)."
    )
    files = []
    for name, figure in figures.items():
        files.append(_draw_one(name, material, folder))
        paper = f"Paper: {figure.paper}." if figure.paper else "Not in the paper."
        page.heading(figure.title)
        page.picture(files[-1].read_bytes(), f"{figure.caption} {paper}", pixels=False)
    page.save(folder / "index.html")
    return [*files, folder / "index.html"]


def _chosen(config: SampleConfig) -> dict[str, Figure]:
    """The figures asked for, in the catalogue's order, each once."""
    unknown = [name for name in config.figures if name not in FIGURES]
    if unknown or not config.figures:
        what = f"figure {unknown[0]!r} is unknown" if unknown else "figures is empty"
        raise ValueError(f"{what}; wanted some of {', '.join(FIGURES)}.")
    return {name: figure for name, figure in FIGURES.items() if name in config.figures}


@torch.inference_mode()
def _draw_one(name: str, material: Material, folder: Path) -> Path:
    drawn = FIGURES[name].draw(material)
    if isinstance(drawn, list):
        path = folder / f"{name}.gif"
        save_gif(path, drawn, fps=_FPS)
    else:
        path = folder / f"{name}.png"
        save_png(path, drawn)
    return path


def _images(config: SampleConfig, model: SceneModel, count: int) -> Tensor:
    """So many images of the data, drawn by the seed, in the data's order: (count, 3, H, W)."""
    if not count:  # then no data need be at hand
        side = model.config.image_size
        return torch.zeros(0, 3, side, side)
    pack = _settings(config, model).open_data(config.split)
    if count > len(pack):
        raise ValueError(f"num is {count}; the {config.split} split has {len(pack)} images.")
    chosen = np.random.default_rng(config.seed).choice(len(pack), count, replace=False)
    images = torch.from_numpy(np.array(pack.images[np.sort(chosen)]))
    return images.permute(0, 3, 1, 2).float().div_(255)


def _settings(config: SampleConfig, model: SceneModel) -> PretrainConfig:
    """Settings that name the data."""
    if config.data is not None:
        return PretrainConfig(
            model=model.config, data=config.data, data_options=config.data_options
        )
    try:
        return Run.open(config.run).config
    except ValueError as error:
        raise ValueError(f"{error} Say with --data what images to show.") from error
