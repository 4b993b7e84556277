"""Pictures: layout, grids with headings, decompositions, and files."""

import io
from pathlib import Path

import imageio.v3
import numpy as np
import numpy.typing as npt
import pytest
import torch

from genesis_rl import visualization
from genesis_rl.slots import Decoded

B, K, H, W = 2, 5, 4, 6


def scene(batch: int = B, *, num_slots: int = K) -> tuple[torch.Tensor, Decoded]:
    generator = torch.Generator().manual_seed(0)
    mu_x = torch.rand(batch, num_slots, 3, H, W, generator=generator)
    log_pi = torch.randn(batch, num_slots, 1, H, W, generator=generator).log_softmax(1)
    return torch.rand(batch, 3, H, W, generator=generator), Decoded(mu_x, log_pi)


def cell(
    picture: npt.NDArray[np.uint8], row: int, column: int, top: int = 0
) -> npt.NDArray[np.uint8]:
    """Return the pixels of a mosaic's cell with lines of one pixel."""
    y, x = top + row * (H + 1), column * (W + 1)
    return picture[y : y + H, x : x + W]


def test_slot_colours_tell_slots_apart() -> None:
    colours = visualization.slot_colours(16).astype(int)
    assert colours.shape == (16, 3)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(16, dtype=int)
    assert distance.min() > 40
    assert distance[:7, :7].min() > 90
    assert np.array_equal(colours[:5], visualization.slot_colours(5))
    assert visualization.slot_colours(0).shape == (0, 3)
    assert visualization.slot_colours(100).shape == (100, 3)


@pytest.mark.parametrize("tensor", [True, False])
def test_to_pictures_rounds_and_moves_channels(tensor: bool) -> None:
    images = np.array([0.0, 0.999, 1.3, 0.0039, 0.5, -1.0], np.float32).reshape(1, 3, 1, 2)
    pictures = visualization.to_pictures(torch.from_numpy(images) if tensor else images)
    assert pictures.dtype == np.uint8
    assert pictures.tolist() == [[[[0, 255, 128], [255, 1, 0]]]]


def test_colour_masks_paints_and_mixes() -> None:
    pi = np.zeros((3, 1, 3), np.float32)
    pi[0, 0, 0] = pi[2, 0, 1] = 1
    pi[:2, 0, 2] = 0.5
    colours = visualization.slot_colours(3)
    painted = visualization.colour_masks(pi)
    assert np.array_equal(painted[0, :2], colours[[0, 2]])
    assert np.array_equal(painted[0, 2], np.round(colours[:2].mean(0, dtype=np.float32)))


def test_mosaic_by_hand() -> None:
    cells = np.zeros((2, 2, 1, 2, 3), np.uint8)
    cells[0, 1], cells[1, 0] = 7, 9
    expected = [[0, 0, 128, 7, 7], [128] * 5, [9, 9, 128, 0, 0]]
    picture = visualization.mosaic(cells)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[value] * 3 for value in row] for row in expected]
    assert visualization.mosaic(cells, separator=0)[..., 0].tolist() == [[0, 0, 7, 7], [9, 9, 0, 0]]
    enlarged = visualization.mosaic(cells, scale=3, separator=0)
    assert np.array_equal(enlarged[1::3, 1::3], visualization.mosaic(cells, separator=0))
    assert enlarged.shape == (6, 12, 3)


def test_mosaic_captions_stand_above_their_columns() -> None:
    cells = np.zeros((1, 2, 8, 40, 3), np.uint8)
    plain = visualization.mosaic(cells)
    titled = visualization.mosaic(cells, captions=["", "slot 2"])
    top = titled.shape[0] - plain.shape[0]
    assert top > 0
    assert np.array_equal(titled[top:], plain)
    assert (titled[:top, :41] == 255).all()
    assert (titled[:top, 41:] < 128).any()
    with pytest.raises(ValueError, match=r"^captions "):
        visualization.mosaic(cells, captions=["input"])
    with pytest.raises(ValueError, match=r"^cells "):
        visualization.mosaic(cells[0])


@pytest.mark.parametrize("batch", [1, B])
@pytest.mark.parametrize("captions", [True, False])
def test_decomposition_grid(batch: int, captions: bool) -> None:
    images, decoded = scene(batch)
    picture = visualization.decomposition_grid(images, decoded, captions=captions)
    top = picture.shape[0] - (batch * (H + 1) - 1)
    assert (top > 0) == captions
    assert picture.shape[1] == (3 + 2 * K) * (W + 1) - 1
    pi, row = decoded.log_pi.exp(), batch - 1
    assert np.array_equal(cell(picture, row, 0, top), visualization.to_pictures(images[row]))
    recon = visualization.to_pictures(decoded.image[row])
    assert np.array_equal(cell(picture, row, 1, top), recon)
    assert np.array_equal(cell(picture, row, 2, top), visualization.colour_masks(pi[row, :, 0]))
    for k in range(K):
        mask = visualization.to_pictures(pi[row, k].expand(3, H, W))
        share = visualization.to_pictures((pi * decoded.mu_x)[row, k])
        assert np.array_equal(cell(picture, row, 3 + 2 * k, top), mask)
        assert np.array_equal(cell(picture, row, 4 + 2 * k, top), share)


def test_sample_grid() -> None:
    _, decoded = scene()
    picture = visualization.sample_grid(decoded, captions=False)
    assert picture.shape == (B * (H + 1) - 1, (2 + K) * (W + 1) - 1, 3)
    shares = decoded.log_pi.exp() * decoded.mu_x
    scenes = visualization.to_pictures(decoded.image)
    masks = visualization.colour_masks(decoded.log_pi.exp().squeeze(2))
    for row in range(B):
        assert np.array_equal(cell(picture, row, 0), scenes[row])
        assert np.array_equal(cell(picture, row, 1), masks[row])
        for k in range(K):
            assert np.array_equal(
                cell(picture, row, 2 + k), visualization.to_pictures(shares[row, k])
            )


def test_grids_show_the_first_rows_and_enlarge() -> None:
    images, decoded = scene(3, num_slots=1)
    whole = visualization.decomposition_grid(images, decoded, captions=False)
    first = visualization.decomposition_grid(images, decoded, captions=False, max_rows=2)
    assert np.array_equal(first, whole[: 2 * (H + 1) - 1])
    assert visualization.sample_grid(decoded, captions=False, max_rows=1, scale=3).shape[0] == 3 * H


def test_grids_take_bfloat16_and_gradients() -> None:
    images, decoded = scene()
    half = Decoded(decoded.mu_x.bfloat16().requires_grad_(), decoded.log_pi.bfloat16())
    assert visualization.decomposition_grid(images.bfloat16(), half).dtype == np.uint8


def test_decomposition_grid_names_a_wrong_shape() -> None:
    images, decoded = scene()
    with pytest.raises(ValueError, match=r"^images .*\(2, 3, 6, 4\) .*mu_x"):
        visualization.decomposition_grid(images.mT, decoded)


@pytest.mark.parametrize("axes", [(3,), (3, 1)])
def test_overlay_masks(axes: tuple[int, ...]) -> None:
    frame = np.full((4, 6, 3), 100, np.uint8)
    pi = np.zeros((*axes, 2, 3), np.float32)  # half the frame's resolution
    pi[1] = 1
    picture = visualization.overlay_masks(frame, pi, strength=0.25, min_size=8)
    scale, line = 2, 2
    assert picture.shape == (4 * scale, 5 * (6 * scale + line) - line, 3)
    columns = [picture[:, x : x + 12] for x in range(0, picture.shape[1], 14)]
    assert (columns[0] == 100).all()
    tint = np.round(75 + 0.25 * visualization.slot_colours(3)[1])
    assert (columns[1] == tint).all()
    assert [int(column.max()) for column in columns[2:]] == [0, 100, 0]


def test_overlay_masks_of_many_slots_are_in_several_rows() -> None:
    frame = np.full((4, 6, 3), 100, np.uint8)
    pi = np.zeros((11, 4, 6), np.float32)
    pi[10] = 1
    picture = visualization.overlay_masks(frame, pi, min_size=4)
    assert picture.shape == (2 * 4 + 2, 7 * (6 + 2) - 2, 3)
    cells = [picture[y : y + 4, x : x + 6] for y in (0, 6) for x in range(0, 54, 8)]
    assert [int(cell.max()) for cell in cells[2:]] == 10 * [0] + [100, 0]


def test_overlay_masks_names_bad_input() -> None:
    frame = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^frame "):
        visualization.overlay_masks(frame.astype(float), np.zeros((3, 4, 6)))
    with pytest.raises(ValueError, match=r"^frame "):
        visualization.overlay_masks(frame[..., 0], np.zeros((3, 4, 6)))
    with pytest.raises(ValueError, match=r"^pi "):
        visualization.overlay_masks(frame, np.zeros((4, 6)))


@pytest.mark.smoke
def test_png_reads_back(tmp_path: Path) -> None:
    picture = np.arange(H * W * 3, dtype=np.uint8).reshape(H, W, 3)
    visualization.save_png(tmp_path / "new" / "picture.png", picture)
    assert np.array_equal(imageio.v3.imread(tmp_path / "new" / "picture.png"), picture)
    assert np.array_equal(imageio.v3.imread(io.BytesIO(visualization.png_bytes(picture))), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


@pytest.mark.smoke
def test_gif_reads_back(tmp_path: Path) -> None:
    frames = [np.full((H, W, 3), value, np.uint8) for value in (0, 90, 200)]
    visualization.save_gif(tmp_path / "clip.gif", iter(frames), fps=20)
    assert np.array_equal(imageio.v3.imread(tmp_path / "clip.gif", mode="RGB"), np.stack(frames))
    metadata = imageio.v3.immeta(tmp_path / "clip.gif")
    assert (metadata["duration"], metadata["loop"]) == (50, 0)


@pytest.mark.smoke
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_mp4_plays_everywhere(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = [np.full((*size, 3), value, np.uint8) for value in (10, 120, 240, 60)]
    visualization.save_mp4(tmp_path / "clip.mp4", iter(frames), fps=5)
    metadata = imageio.v3.immeta(tmp_path / "clip.mp4", plugin="FFMPEG")
    assert metadata["codec"] == "h264"
    assert metadata["pix_fmt"].startswith("yuv420p")
    assert metadata["fps"] == 5
    video = imageio.v3.imread(tmp_path / "clip.mp4", plugin="FFMPEG")
    assert video.shape == (4, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(video.mean((1, 2, 3)) - [10, 120, 240, 60]).max() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("name", ["clip.gif", "clip.mp4"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    save = visualization.save_gif if name.endswith("gif") else visualization.save_mp4
    path = tmp_path / name
    path.write_bytes(b"old")
    frames = [np.zeros((32, 48, 3), np.uint8), np.zeros((48, 32, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"^frames "):
        save(path, frames)
    with pytest.raises(ValueError, match=r"^frames "):
        save(path, [])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.smoke
def test_curves() -> None:
    panels = {
        "loss": {"nll": ([0, 1, 2], [3.0, float("nan"), 1.0]), "kl": ([0, 2], [1.0, 2.0])},
        "success": {},
    }
    picture = imageio.v3.imread(io.BytesIO(visualization.curves(panels, height=2)))
    assert picture.shape[0] == 200
    assert picture.shape[1] > 500
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10
    with pytest.raises(ValueError, match=r"^panels "):
        visualization.curves({})


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
