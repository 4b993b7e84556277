"""The region of frames that changes."""

import numpy as np
import numpy.typing as npt

from genesis_rl.perception.region import changing_region, reduced, region_of, squared

H, W = 120, 200


def moving(top: int, left: int, side: int, steps: int = 20) -> list[npt.NDArray[np.uint8]]:
    """Frames of a square that moves by two pixels down and right in each, on a grey wall."""
    frames = []
    for i in range(steps):
        frame = np.full((H, W, 3), 100, np.uint8)
        frame[top + 2 * i : top + 2 * i + side, left + 2 * i : left + 2 * i + side] = 255, 0, 0
        frames.append(frame)
    return frames


def contains(region: tuple[int, ...], top: int, left: int, bottom: int, right: int) -> bool:
    y, x, height, width = region
    return y <= top and x <= left and y + height >= bottom and x + width >= right


def test_the_region_contains_a_moving_object_and_little_else() -> None:
    frames = moving(30, 60, 8)
    region = changing_region(frames, (H, W))
    assert contains(region, 31, 61, 75, 105)
    assert region[2] == region[3] < 60


def test_lines_and_rare_changes_are_ignored() -> None:
    frames = [frame.copy() for frame in 4 * moving(30, 60, 8)]
    region = changing_region(frames, (H, W))
    for frame in frames[::2]:
        frame[:, 5] = 0  # a line
    frames[7][:10, :10] = 255  # in one of 80 frames
    assert changing_region(frames, (H, W)) == region


def test_regions_are_in_pixels_of_the_original_frames() -> None:
    frames = [frame.repeat(8, 0).repeat(8, 1) for frame in moving(30, 60, 8)]
    small = [reduced(frame) for frame in frames]
    assert small[0].shape == (288, 480, 3)
    region = changing_region(small, (8 * H, 8 * W))
    assert contains(region, 8 * 31, 8 * 61, 8 * 75, 8 * 105) and region[2] < 480


def test_equal_frames_give_the_whole_frame() -> None:
    assert region_of(np.zeros((3, H, W), np.bool_), (H, W)) == (0, 0, H, W)


def test_squares_stay_in_the_frame() -> None:
    assert squared((110, 150, 10, 40), (H, W)) == (80, 150, 40, 40)
    assert squared((0, 0, 10, 40), (H, W)) == (0, 0, 40, 40)
    assert squared((10, 0, 20, 200), (H, W)) == (0, 0, 120, 200)
