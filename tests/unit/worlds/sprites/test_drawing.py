import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.data.multi_dsprites import SHAPES, draw_dsprite
from genesis_rl.worlds.sprites.drawing import (
    COLOURS,
    DSPRITES_OUTLINES,
    OUTLINES,
    Sprite,
    check_shapes,
    coverage,
    render,
    rgb,
    scales,
    several,
)

GENUINE = Path(__file__).parents[4].parent / "shared" / "reference" / "dsprites_samples.npz"
RED, BLUE = COLOURS["red"], COLOURS["blue"]


def test_rgb_takes_names_and_numbers() -> None:
    assert rgb("green") == (0, 128, 0)
    assert rgb([1, 2, 255]) == (1, 2, 255)
    array: Any = np.array([1, 2, 3], np.uint8)
    assert rgb(array) == (1, 2, 3)


@pytest.mark.parametrize("bad", ["blu", (0, 0), (0, 0, 256), (0, 0, -1), (0, 0, 0.5), 7, True])
def test_rgb_refuses_anything_else(bad: Any) -> None:
    with pytest.raises(ValueError, match="colour"):
        rgb(bad)


def test_several_tells_one_colour_from_many() -> None:
    assert several("red") == [RED]
    assert several((255, 0, 0)) == [RED]
    assert several(("red", (0, 0, 255))) == [RED, BLUE]
    with pytest.raises(ValueError, match=r"^colours "):
        several(())


def test_shapes_and_scales_are_checked() -> None:
    check_shapes(("square",))
    with pytest.raises(ValueError, match=r"^shapes "):
        check_shapes(("square", "cube"))
    with pytest.raises(ValueError, match=r"^shapes "):
        check_shapes("square")
    assert scales(0.2, "s") == [0.2]
    assert scales((0.1, 0.2), "s") == [0.1, 0.2]
    bad: Any
    for bad in (0, 1.0, -0.1, (), "big"):
        with pytest.raises(ValueError, match=r"^s "):
            scales(bad, "s")


@pytest.mark.parametrize("shape", OUTLINES)
def test_outlines_have_unit_width_and_are_centred(shape: str) -> None:
    low, high = OUTLINES[shape].min(axis=0), OUTLINES[shape].max(axis=0)
    assert (high - low).max() == pytest.approx(1)
    assert low + high == pytest.approx(0)


@pytest.mark.parametrize(
    ("shape", "area"), [("square", 1), ("circle", np.pi / 4), ("triangle", 3**0.5 / 4)]
)
def test_coverage_sums_to_the_area(shape: str, area: float) -> None:
    share = coverage(OUTLINES[shape], (40, 50), (20.3, 24.6), scale=30) / 255
    assert share.shape == (40, 50)
    assert share.sum() == pytest.approx(area * 900, rel=0.01)


def test_coverage_rotates_counter_clockwise_and_puts_y_up() -> None:
    arrow = np.array([[0, 1], [-0.2, 0], [0.2, 0]])
    up = coverage(arrow, (21, 21), (10.5, 10.5), scale=8)
    assert up[4:10].any() and not up[12:].any()
    left = coverage(arrow, (21, 21), (10.5, 10.5), scale=8, angle=np.pi / 2)
    assert left[:, 4:10].any() and not left[:, 12:].any()


def test_render_puts_y_up_and_later_sprites_on_top() -> None:
    low = Sprite("square", RED, 0.5, 0.25, 0.25)
    over = Sprite("square", BLUE, 0.25, 0.25, 0.25)
    masks = np.full((16, 16), 9, np.uint8)
    image = render([low, over], 16, (1, 2, 3), masks=masks)
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8
    assert (image[:8] == (1, 2, 3)).all() and (image[8:, 8:] == (1, 2, 3)).all()
    assert (image[9, 1] == RED).all() and (image[12, 4] == BLUE).all()
    assert masks[9, 1] == 1 and masks[12, 4] == 2 and masks[0, 0] == 0
    assert (masks == 2).sum() == 16 and (masks > 0).sum() == 64


def test_render_blends_edges_by_coverage() -> None:
    image = render([Sprite("square", (200, 200, 200), 0.25, 0.5 + 0.25 / 8, 0.5)], 8)
    row = image[3, :, 0].astype(int)
    assert row[3] == pytest.approx(150, abs=25) and row[4] == 200
    assert row[5] == pytest.approx(50, abs=25) and row[2] == row[6] == 0


@pytest.mark.parametrize(("x", "y"), list(itertools.product([0.0, 1.0], repeat=2)))
def test_render_cuts_sprites_at_the_frame(x: float, y: float) -> None:
    masks = np.zeros((20, 20), np.uint8)
    render([Sprite("square", RED, 0.5, x, y)], 20, masks=masks)
    assert (masks == 1).sum() == 25
    assert masks[0 if y else -1, -1 if x else 0] == 1


def test_render_draws_into_given_arrays() -> None:
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    image = render([], 8, RED, image=batch[1])
    assert image.base is batch and (batch[1] == RED).all() and not batch[0].any()


def _iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def _fit(frame: npt.NDArray[np.bool_], shape: str) -> float:
    """Best overlap with a drawn sprite, by a search over position, scale and angle."""

    def score(factors: tuple[float, ...]) -> float:
        column, row, scale, angle = factors
        drawn = np.zeros(frame.shape, bool)
        draw_dsprite(shape, scale, angle, column, row, drawn)
        return _iou(drawn, frame)

    def centroid(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return np.asarray(np.argwhere(mask).mean(axis=0) / 64)

    upright = np.zeros(frame.shape, bool)
    draw_dsprite(shape, 1, 0, 0.5, 0.5, upright)
    scale = (frame.sum() / upright.sum()) ** 0.5
    starts = []
    for angle in np.arange(40) * 2 * np.pi / 39:
        drawn = np.zeros(frame.shape, bool)
        draw_dsprite(shape, scale, angle, 0.5, 0.5, drawn)
        row, column = 0.5 + centroid(frame) - centroid(drawn)
        starts.append((column, row, scale, angle))
    best = max(starts, key=score)
    for step in (1, 0.5, 0.25):
        for axis, width in enumerate((0.008, 0.008, 0.05, 0.1)):
            moves = [np.eye(4)[axis] * width * step * k for k in (-1, 0, 1)]
            best = max((tuple(np.add(best, move)) for move in moves), key=score)
    return score(best)


@pytest.mark.skipif(not GENUINE.is_file(), reason="genuine dSprites frames are not at hand")
def test_drawn_sprites_match_genuine_frames() -> None:
    with np.load(GENUINE, allow_pickle=False) as file:
        shape = tuple(file["shape"])
        bits = np.unpackbits(file["frames"].ravel())[: np.prod(shape)]
    frames = bits.reshape(shape).astype(bool)
    # Frames 190 to 192 are hearts too: an ellipse is first seen in frame 192.
    for name, first, last in (("heart", 0, 190), ("ellipse", 193, 256), ("square", 256, 320)):
        scores = np.array([_fit(frame, name) for frame in frames[first:last:2]])
        print(f"{name}: worst {scores.min():.3f}, median {np.median(scores):.3f}")
        assert scores.min() >= 0.85, f"{name}: worst {scores.min():.3f}"
        assert np.median(scores) >= 0.95, f"{name}: median {np.median(scores):.3f}"


def test_dsprites_sizes() -> None:
    """Pixels at scale 1 and 0.5, from measurements of the dataset."""
    sizes = {"square": (368, 100), "ellipse": (289, 76), "heart": (225, 58)}
    assert set(SHAPES) == set(sizes) == set(DSPRITES_OUTLINES)
    for name, (full, half) in sizes.items():
        for scale, pixels in ((1, full), (0.5, half)):
            drawn = np.zeros((64, 64), bool)
            draw_dsprite(name, scale, 0.16 * (scale == 1), 0.25, 0.25, drawn)
            assert drawn.sum() == pytest.approx(pixels, rel=0.05)
