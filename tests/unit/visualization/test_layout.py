"""Layout of pages: headings, frames, blocks."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from genesis_rl import visualization


def picture(height: int, width: int, value: int = 0) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def test_framed_cells_by_hand() -> None:
    cells = np.zeros((1, 2, 1, 1, 3), np.uint8)
    cells[0, 1] = 7
    rows = [[128] * 3 + [255] * 2 + [128] * 3]
    expected = [*rows, [128, 0, 128, 255, 255, 128, 7, 128], *rows]
    assert visualization.mosaic(cells, gap=2)[..., 0].tolist() == expected
    both = visualization.mosaic(np.concatenate([cells, cells]), gap=2)
    assert both.shape == (3 + 2 + 3, 8, 3)
    assert (both[3:5] == 255).all()


@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_row_captions_stand_beside_their_rows(gap: int, side: visualization.Side) -> None:
    cells = np.zeros((2, 2, 8, 40, 3), np.uint8)
    plain = visualization.mosaic(cells, scale=2, gap=gap)
    titled = visualization.mosaic(
        cells, captions=["", "b"], row_captions=["", "x\ny"], row_side=side, scale=2, gap=gap
    )
    top, beside = (a - b for a, b in zip(titled.shape[:2], plain.shape[:2], strict=True))
    page = titled[top:]
    body, margin = page[:, beside:], page[:, :beside]
    if side == "right":
        body, margin = page[:, :-beside], page[:, -beside:]
    assert np.array_equal(body, plain)
    assert (margin[:16] == 255).all() and (margin[16:] < 128).any()
    # The second column's heading is above the second column.
    heading = titled[:top, beside:] if side == "left" else titled[:top, :-beside]
    middle = plain.shape[1] // 2
    assert (titled[:top] < 128).sum() == (heading[:, middle:] < 128).sum() > 0


def test_row_captions_are_one_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"^row_captions "):
        visualization.mosaic(np.zeros((2, 1, 4, 4, 3), np.uint8), row_captions=["a"])


def test_join_pads_with_white() -> None:
    parts = [picture(2, 3), picture(4, 5)]
    beside = visualization.join(parts, gap=1)
    assert beside.shape == (4, 9, 3)
    assert (beside[:2, :3] == 0).all() and (beside[2:, :4] == 255).all()
    assert (visualization.join(parts, gap=1, end=True)[2:, :3] == 0).all()
    below = visualization.join(parts, axis=0, gap=1)
    assert below.shape == (7, 5, 3)
    assert (below[:2, 3:] == 255).all() and (below[2] == 255).all()


def test_flow_breaks_into_equal_lines() -> None:
    blocks = [picture(2, 10, value) for value in range(4)]
    three_fit = visualization.flow(blocks, max_width=34, gap=2)
    assert three_fit.shape == (2 + 2 + 2, 10 + 2 + 10, 3)  # two and two, not three and one
    assert [int(three_fit[y, x, 0]) for y in (0, 4) for x in (0, 12)] == [0, 1, 2, 3]
    assert visualization.flow(blocks, max_width=5, gap=2).shape == (4 * 2 + 3 * 2, 10, 3)
    assert visualization.flow(blocks[:1], max_width=34).shape == (2, 10, 3)


def test_margin() -> None:
    page = visualization.margin(picture(2, 3), 4)
    assert page.shape == (10, 11, 3)
    assert page.sum() == 255 * 3 * (10 * 11 - 2 * 3)


def test_text() -> None:
    one, two = visualization.text_picture("slot"), visualization.text_picture("slot\nz_m[3] or so")
    assert two.shape[0] == 2 * one.shape[0] and two.shape[1] > one.shape[1]
    assert (one < 64).any()
    small = visualization.text_picture("reconstruction", max_width=60)
    assert small.shape[1] <= 60 and small.shape[0] < one.shape[0]
    assert visualization.text_picture("reconstruction", max_width=9).shape[1] == 9  # cut off
    left, right = (
        visualization.text_picture("slot\nz_m[3] or so", align=a) for a in ("left", "right")
    )
    top = slice(0, one.shape[0])
    assert (left[top, -30:] == 255).all() and (right[top, -30:] < 128).any()
    assert (visualization.text_picture("") == 255).all()


def test_what_is_transparent_shows_the_checkerboard() -> None:
    ground = visualization.checkerboard(32, 48)
    assert ground.shape == (3, 32, 48)
    assert len(np.unique(ground)) == 2
    assert ground[0, 0, 0] == ground[0, 2, 2] != ground[0, 0, 2]
    mu_x = torch.full((1, 3, 32, 48), 0.5)
    pi = torch.zeros(1, 1, 32, 48)
    assert np.array_equal(
        visualization.over_checkerboard(pi * mu_x, pi)[0], visualization.to_pictures(ground)
    )
    pi[:] = 1
    opaque = visualization.over_checkerboard(pi * mu_x, pi)
    assert np.array_equal(opaque, visualization.to_pictures(mu_x))
