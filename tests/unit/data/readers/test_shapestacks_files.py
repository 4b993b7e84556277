"""ShapeStacks' files: names, lists, label maps."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from genesis_rl.data.readers.shapestacks_files import (
    Scenario,
    View,
    decode_map,
    decode_segmentation,
    encode_map,
    label_map,
    read_split,
    write_split,
)

STABLE = "env_blocks-easy-h=2-vcom=0-vpsf=0-v=1"
FALLING = "env_ccs-hard-h=6-vcom=3-vpsf=0-v=12"


def test_scenario_names_are_read_and_built() -> None:
    scenario = Scenario.parse(FALLING)
    assert scenario == Scenario("ccs", 6, 3, 0, 12, "hard")
    assert (str(scenario), scenario.stem, scenario.stable) == (FALLING, FALLING[4:], False)
    assert Scenario.parse(STABLE).stable
    assert not Scenario("ccs", 4, vpsf=1).stable
    with pytest.raises(ValueError, match=r"scenario .*'ccs-h=2'"):
        Scenario.parse("ccs-h=2")


def test_file_names_are_read_and_built() -> None:
    name = "rgb-w=5-f=2-l=1-c=unique-cam_7-mono-0.png"
    view = View.parse(name)
    assert view == View("rgb", camera=7, wall=5, floor=2, light=1, colours="unique")
    assert str(view) == name
    map_name = "iseg-w=0-f=0-l=0-c=original-cam_16-mono-0.map"
    assert str(label_map(16)) == map_name
    assert View.parse(map_name) == label_map(16)
    assert View.parse("depth-w=0-f=0-l=0-c=shuffle-cam_1-stereo-12.png").frame == 12
    with pytest.raises(ValueError, match=r"'rgb-cam_1\.png'"):
        View.parse("rgb-cam_1.png")


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
def test_lists_do_not_need_a_newline_at_the_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(f"a\nb{end}".encode())
    assert read_split(path) == ["a", "b"]


def test_written_lists_end_with_a_newline(tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.txt"
    write_split(path, ["a", "b"])
    assert path.read_text().split("\n")[:-1] == ["a", "b"]  # how the original reader splits


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"train\.txt "):
        read_split(path)


def test_maps_are_the_data_sets_own(tmp_path: Path) -> None:
    wanted = np.asarray(np.add.outer(np.arange(224) // 9, np.arange(224) // 10) % 7, np.uint8)
    path = tmp_path / "own.map"
    plt.imsave(path, wanted, cmap="gray", vmin=0, vmax=8, format="png")
    assert (decode_map(path.read_bytes()) == wanted).all()
    path.write_bytes(encode_map(wanted))
    with Image.open(path) as file:
        assert (file.format, file.mode, file.size) == ("PNG", "RGBA", (224, 224))
        pixels = np.asarray(file)
    assert (pixels[..., :3] == 32 * wanted[..., None]).all()
    assert (pixels[..., 3] == 255).all()
    assert (decode_map(path.read_bytes()) == wanted).all()


def test_segmentation_images_take_the_nearest_colour() -> None:
    pixels = np.array([[[0, 0, 0], [76, 0, 0], [0, 76, 0], [60, 70, 9], [19, 0, 0]]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    data = file.getvalue()
    assert decode_segmentation(data, "vseg").tolist() == [[0, 2, 1, 3, 0]]
    assert decode_segmentation(data, "iseg").tolist() == [[0, 1, 2, 4, 0]]
