"""Figures: layout for every model, determinism."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from genesis_rl import visualization
from genesis_rl.models import MODELS
from genesis_rl.perception.editing import drop_slot, replace_slot, select
from genesis_rl.slots import Decoded, SceneModel
from genesis_rl.visualization import figures
from genesis_rl.visualization.catalogue import FIGURES, FigureInputs

SIDE, SCALE, EDGE, GAP, MARGIN = 32, 3, 1, 4, 16
CELL = SIDE * SCALE + 2 * EDGE
STEP = CELL + GAP
Build = Callable[..., Any]
Cells = npt.NDArray[np.uint8]


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def inputs(model: Any, num: int = 2, *, seed: int = 0, temperature: float = 1.0) -> FigureInputs:
    return FigureInputs(model, images(num), num, seed, temperature)


def scene(batch: int, num_slots: int) -> Decoded:
    generator = torch.Generator().manual_seed(0)
    mu_x = torch.rand(batch, num_slots, 3, SIDE, SIDE, generator=generator)
    log_pi = torch.randn(batch, num_slots, 1, SIDE, SIDE, generator=generator).log_softmax(1)
    return Decoded(mu_x, log_pi)


def cells(picture: Cells, top: int, left: int, rows: int, columns: int) -> Cells:
    """Crop the pictures of a page from a corner on and scale them to their original size."""
    found = [
        [
            picture[y + EDGE : y + CELL - EDGE : SCALE, x + EDGE : x + CELL - EDGE : SCALE]
            for x in range(left, left + columns * STEP, STEP)
        ]
        for y in range(top, top + rows * STEP, STEP)
    ]
    return np.array(found)


def find(picture: Cells) -> tuple[int, int]:
    """Find the first row and column of a cell's grey frame in a page."""
    grey = (picture == 128).all(-1)
    for y, row in enumerate(grey):
        runs = np.convolve(row, np.ones(CELL, int), "valid")
        if (runs == CELL).any():
            return y, int(np.argmax(runs == CELL))
    raise AssertionError("no framed cell")


@torch.inference_mode()
def drawn(name: str, what: FigureInputs) -> Cells:
    return np.array(FIGURES[name].draw(what))


@pytest.mark.parametrize("name", MODELS)
def test_every_figure_of_every_model(small_model: Build, name: str) -> None:
    what = inputs(small_model(name))
    without_images = dataclasses.replace(what, images=what.images[:0])
    for figure in FIGURES:
        once = drawn(figure, what)
        assert once.dtype == np.uint8 and once.shape[-1] == 3
        assert once.ndim == (4 if figure in ("generation", "interpolation") else 3)
        again = drawn(figure, what if FIGURES[figure].needs_images else without_images)
        assert np.array_equal(once, again), f"{figure} is not the same again"


def test_the_seed_and_the_temperature_change_scenes(small_model: Build) -> None:
    model = small_model("genesis")
    once = drawn("components", inputs(model))
    assert not np.array_equal(once, drawn("components", inputs(model, seed=1)))
    assert not np.array_equal(once, drawn("components", inputs(model, temperature=0.5)))
    cold = drawn("scenes", inputs(model, temperature=0.0))
    found = cells(cold, MARGIN, MARGIN, 2, 8)
    assert (found == found[0, 0]).all()


def test_scenes_begin_with_those_of_the_other_figures(small_model: Build) -> None:
    what = inputs(small_model("genesis"), 3)
    picture = drawn("scenes", what)
    assert picture.shape[:2] == (2 * MARGIN + 3 * STEP - GAP, 2 * MARGIN + 8 * STEP - GAP)
    with torch.inference_mode():
        expected = visualization.to_pictures(what.decoded_scenes().image)
    assert np.array_equal(cells(picture, MARGIN, MARGIN, 1, 3)[0], expected)


@pytest.mark.parametrize("num_slots", [1, 4])
def test_component_steps(num_slots: int) -> None:
    decoded = scene(2, num_slots)
    picture = figures.component_steps(decoded)
    top, left = find(picture)
    found = cells(picture, top, left, 2, 2)
    assert np.array_equal(found[:, 0], visualization.to_pictures(decoded.image))
    pi = decoded.log_pi.exp()
    assert np.array_equal(found[:, 1], visualization.colour_masks(pi.squeeze(2)))
    steps = cells(picture, top, left + 2 * STEP - GAP + 12, 2, num_slots)
    assert np.array_equal(steps, visualization.over_checkerboard(pi * decoded.mu_x, pi))


@pytest.mark.parametrize("num_slots", [1, 4])
def test_decomposition_steps(num_slots: int) -> None:
    x, decoded = images(1), scene(1, num_slots)
    picture = figures.decomposition_steps(x, decoded)
    top, left = find(picture)
    whole = cells(picture, top, left, 4, 1)[:, 0]
    pi = decoded.log_pi.exp()
    assert np.array_equal(whole[0], visualization.to_pictures(x)[0])
    assert np.array_equal(whole[1], visualization.to_pictures(decoded.image)[0])
    assert np.array_equal(whole[2], visualization.colour_masks(pi.squeeze(2))[0])
    error = 3 * (x - decoded.image).abs()
    assert np.array_equal(whole[3], visualization.to_pictures(error)[0])
    steps = cells(picture, top, left + CELL + 12, 4, num_slots)
    assert np.array_equal(steps[0], visualization.to_pictures(pi.expand(-1, -1, 3, -1, -1))[0])
    assert np.array_equal(steps[1], visualization.to_pictures(decoded.mu_x)[0])
    assert np.array_equal(steps[2], visualization.over_checkerboard(pi * decoded.mu_x, pi)[0])
    assert (steps[3, 0] == 255).all()  # the first step may take everything
    for k in range(1, num_slots):
        left_over = 1 - pi[:, :k].sum(1)
        expected = visualization.to_pictures(left_over.expand(-1, 3, -1, -1))[0].astype(int)
        assert np.abs(steps[3, k] - expected).max() <= 1  # rounded after another sum


def test_reconstruction_rows_break_after_eight() -> None:
    x, decoded = images(10), scene(10, 2)
    picture = figures.reconstruction_rows(x, decoded)
    top, left = find(picture)
    found = cells(picture, top, left, 4, 5)
    assert np.array_equal(found[0], visualization.to_pictures(x)[:5])
    assert np.array_equal(found[1], visualization.to_pictures(decoded.image)[:5])
    below = cells(picture, top + 4 * STEP - GAP + 20, left, 4, 5)
    assert np.array_equal(below[0], visualization.to_pictures(x)[5:])


def test_temperatures_share_their_draws(small_model: Build) -> None:
    model = small_model("genesis")
    generator = torch.Generator().manual_seed(3)
    temperatures = (0.0, 0.5, 0.5, 1.0)
    picture = figures.temperature_sweep(model, 3, generator=generator, temperatures=temperatures)
    found = cells(picture, *find(picture), 4, 3)
    assert (found[0] == found[0, 0]).all()
    assert np.array_equal(found[1], found[2])
    assert not np.array_equal(found[2], found[3])
    with torch.inference_mode():
        slots = model.sample(3, generator=torch.Generator().manual_seed(3))
        assert np.array_equal(found[3], visualization.to_pictures(model.decode(slots).image))


def test_building_ends_with_the_scene() -> None:
    decoded = scene(2, 3)
    frames = figures.generation(decoded)
    pi = decoded.log_pi.exp()
    shares = pi * decoded.mu_x
    for frame, there in ((0, 0), (6, 1), (12, 2), (18, 3), (-1, 3)):
        top, left = find(frames[frame])
        found = np.stack(
            [cells(frames[frame], top, x, 1, 1)[0, 0] for x in (left, left + CELL + 8)]
        )
        expected = visualization.over_checkerboard(shares[:, :there].sum(1), pi[:, :there].sum(1))
        assert np.abs(found.astype(int) - expected).max() <= 1
    assert len({frame.shape for frame in frames}) == 1


@torch.inference_mode()
def test_interpolation_passes_the_images_and_returns(small_model: Build) -> None:
    model = small_model("monet")
    slots = model.infer(images(3))
    frames = figures.interpolation(model, slots)
    assert len(frames) == 3 * 17
    expected = visualization.to_pictures(model.decode(slots).image)
    scale, top = 2 * SCALE, frames[0].shape[0] - MARGIN - EDGE - SIDE * 2 * SCALE
    for number in range(3):
        frame = frames[17 * number]
        found = frame[top:, MARGIN + EDGE :][: SIDE * scale : scale, : SIDE * scale : scale]
        assert np.array_equal(found, expected[number])


class Paintbox(torch.nn.Module):
    """A scene model with one effective latent per slot: the slot's red."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_sizes = (2, 3)

    def decode(self, slots: Any) -> Decoded:
        colour = torch.zeros(*slots.z_c.shape[:2], 3, SIDE, SIDE)
        colour[:, :, 0] = 0.5 + 0.1 * slots.z_c[:, :, 1, None, None]
        colour[:, :, 1] = 0.5 + 0.01 * slots.z_m[:, :, 0, None, None]
        return Decoded(colour, slots.log_pi)


@torch.inference_mode()
def test_traversals_sweep_the_latents_that_matter(small_model: Build) -> None:
    model: Any = Paintbox()
    slots = select(
        small_model("genesis", mask_latent_size=2, component_latent_size=3).infer(images()), [0]
    )
    low, high = torch.full((3, 5), -2.0), torch.full((3, 5), 2.0)
    chosen = figures.strongest_latents(model, slots, low, high, 2)
    assert chosen.tolist() == [[3, 0]] * 3
    prior = figures.PriorRange(torch.zeros(3, 5), torch.ones(3, 5))
    picture = figures.traversal(model, slots, prior)
    top, left = find(picture)
    found = cells(picture, top, left + 2 * STEP - GAP + 12, 9, 9)  # three latents of each slot
    pi = slots.log_pi[0, 0, 0].exp()
    for column, value in enumerate(np.linspace(-2, 2, 9)):
        change = 0.1 * (value - slots.z_c[0, 0, 1]) * pi
        expected = visualization.to_pictures(
            model.decode(slots).image + torch.stack([change, 0 * pi, 0 * pi])
        )
        assert np.abs(found[0, column].astype(int) - expected[0]).max() <= 1


@torch.inference_mode()
def test_prior_range(small_model: Build) -> None:
    model = small_model("bd_vae", latent_size=8)
    prior = figures.prior_range(model, generator=torch.Generator().manual_seed(0), num_scenes=2000)
    assert prior.mean.shape == prior.std.shape == (1, 8)
    torch.testing.assert_close(prior.mean, torch.zeros(1, 8), atol=0.1, rtol=0)
    torch.testing.assert_close(prior.std, torch.ones(1, 8), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["genesis", "monet", "dc_vae"])
@torch.inference_mode()
def test_slot_edits(small_model: Build, name: str) -> None:
    model: SceneModel = small_model(name)
    x = images(3)
    slots = model.infer(x)
    prior = model.sample(3, generator=torch.Generator().manual_seed(4))
    picture = figures.slot_edits(model, x, prior)
    top, left = find(picture)
    count = model.config.num_slots
    whole = cells(picture, top, left, 4, 1)[:, 0]
    decoded = model.decode(slots)
    for row, image in enumerate((x, decoded.image, x[[1]], model.decode(prior).image)):
        assert np.array_equal(whole[row], visualization.to_pictures(image)[0])
    found = cells(picture, top, left + CELL + 12, 4, count).astype(int)
    pi = decoded.log_pi.exp()
    shares = pi * decoded.mu_x
    assert np.array_equal(found[0], visualization.over_checkerboard(shares, pi)[0])
    donors = (select(slots, [1, 2, 0]), prior)
    for k in range(count):
        dropped = drop_slot(decoded, k)
        if count == 1:
            ground = visualization.to_pictures(visualization.checkerboard(SIDE, SIDE))
            assert np.array_equal(found[1, k], ground)
        else:
            removed = visualization.to_pictures(dropped.image)[0]
            assert np.abs(found[1, k] - removed).max() <= 1
        for row, donor in zip((2, 3), donors, strict=True):
            edited = visualization.to_pictures(model.decode(replace_slot(slots, k, donor)).image)[0]
            assert np.abs(found[row, k] - edited).max() <= 1
    with pytest.raises(ValueError, match=r"^images "):
        figures.slot_edits(model, x[:1], prior)


def test_captions_name_the_papers_figures() -> None:
    papers = {name: figure.paper for name, figure in FIGURES.items() if figure.paper}
    assert papers == {
        "scenes": "Figures 6, 7 and 9",
        "components": "Figures 3 and 8",
        "generation": "Figures 3 and 8, animated",
        "decompositions": "Figures 4 and 10 to 13",
    }
    assert all(figure.title and figure.caption for figure in FIGURES.values())
