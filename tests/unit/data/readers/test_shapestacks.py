"""ShapeStacks: names and maps of its files, and the reader on trees of the original layout."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from genesis_rl.data import open_dataset
from genesis_rl.data.readers import DamagedRecord, Record
from genesis_rl.data.readers.shapestacks import (
    Scenario,
    ShapeStacks,
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
GENUINE = Path(__file__).parents[5] / "shared" / "reference" / "shapestacks_example"
CAMERAS = (2, 10, 1)
Image8 = npt.NDArray[np.uint8]


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


def picture(seed: int) -> Image8:
    """Return a smooth coloured image."""
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((224, 224), Image.Resampling.BICUBIC))


def labels(camera: int, height: int) -> Image8:
    """Return instance labels: bands of rows and columns of all labels."""
    rows, columns = np.mgrid[:224, :224]
    return np.asarray((rows // 9 + columns // (7 + camera)) % (height + 1), np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tree of two scenarios with three views each; one list lacks its last newline."""
    root = tmp_path_factory.mktemp("shapestacks")
    for number, name in enumerate((STABLE, FALLING)):
        recordings, maps = root / "recordings" / name, root / "iseg" / name
        recordings.mkdir(parents=True)
        maps.mkdir(parents=True)
        for camera in CAMERAS:
            image = picture(16 * number + camera)
            file = f"rgb-w={number}-f=2-l=1-c=unique-cam_{camera}-mono-0.png"
            Image.fromarray(image).save(recordings / file)
            # As the dataset's own maps were written.
            plt.imsave(
                maps / f"iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map",
                labels(camera, 2 + 4 * number),
                cmap="gray",
                vmin=0,
                vmax=8,
                format="png",
            )
        (recordings / "depth-w=0-f=0-l=0-c=original-cam_2-mono-0.png").write_bytes(b"unread")
        (recordings / "rgb-w=0-f=0-l=0-c=original-cam_2-mono-7.png").write_bytes(b"later frame")
    lists = root / "splits" / "default"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"{FALLING}\n{STABLE}")
    (lists / "eval.txt").write_text(f"{STABLE}\n")
    return root


@pytest.fixture
def tree(written: Path, tmp_path: Path) -> Path:
    """Return a copy of the tree that tests may damage."""
    return Path(shutil.copytree(written, tmp_path / "tree"))


def sound(source: ShapeStacks) -> list[Record]:
    records = list(source.records())
    assert all(isinstance(record, Record) for record in records)
    return [record for record in records if isinstance(record, Record)]


def damaged(source: ShapeStacks) -> list[str]:
    return [str(r) for r in source.records() if isinstance(r, DamagedRecord)]


def test_reads_every_view_with_its_labels(tree: Path) -> None:
    records = sound(ShapeStacks(tree, "train", image_size=196))
    assert [record.factors for record in records] == [
        {"stable": stable, "height": height, "camera": camera}
        for stable, height in ((0, 6), (1, 2))
        for camera in sorted(CAMERAS)
    ]
    for record, seed in zip(records, (17, 18, 26, 1, 2, 10), strict=True):
        camera, height = (int(np.asarray(record.factors[name])) for name in ("camera", "height"))
        assert (record.image == picture(seed)[14:210, 14:210]).all()  # lossless
        assert record.mask is not None
        assert (record.mask == labels(camera, height)[14:210, 14:210]).all()


@pytest.mark.parametrize("size", [64, 128])
def test_resizes_as_the_official_loader(tree: Path, size: int) -> None:
    record = sound(ShapeStacks(tree, "validation", image_size=size))[0]
    crop = torch.from_numpy(picture(1)[14:210, 14:210].copy()).permute(2, 0, 1)[None].float()
    wanted = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
    got = torch.from_numpy(record.image.copy()).permute(2, 0, 1)
    assert (got - wanted).abs().max() <= 1
    assert (got - wanted).abs().mean() < 0.3  # rounding alone
    assert record.mask is not None
    cut = labels(1, 2)[14:210, 14:210]
    for row, column in ((0, 0), (size // 3, size - 1), (size - 1, size // 2)):
        assert record.mask[row, column] == cut[row * 196 // size, column * 196 // size]


@pytest.mark.parametrize("start", range(7))
def test_reading_goes_on_anywhere(tree: Path, start: int) -> None:
    source = ShapeStacks(tree, "train")
    names = [record.name for record in sound(source)]
    rest = [record.name for record in source.records(start) if isinstance(record, Record)]
    assert len(source) == 6
    assert rest == names[start:]


def test_opens_as_a_pack(tree: Path, tmp_path: Path) -> None:
    pack = open_dataset("shapestacks", root=tmp_path / "packs", source=tree, image_size=32)
    assert pack.images.shape == (6, 32, 32, 3)
    expected = sound(ShapeStacks(tree, "train", image_size=32))
    assert (pack.images == np.stack([record.image for record in expected])).all()
    assert pack.masks is not None
    for mask, record in zip(pack.masks, expected, strict=True):
        assert record.mask is not None
        assert (mask == record.mask).all()
    assert pack.factors["height"].tolist() == [6, 6, 6, 2, 2, 2]
    assert pack.factors["camera"].tolist() == [1, 2, 10] * 2
    again = open_dataset("shapestacks", root=tmp_path / "packs", source=tree, image_size=32)
    assert again.folder == pack.folder
    other = open_dataset("shapestacks", root=tmp_path / "packs", source=tree, maps="none")
    assert other.masks is None
    assert other.images.shape == (6, 64, 64, 3)


def test_the_default_place_is_below_the_root(tree: Path, tmp_path: Path) -> None:
    home = tmp_path / "root" / "shapestacks" / "original"
    home.parent.mkdir(parents=True)
    tree.rename(home)
    assert len(open_dataset("shapestacks", "validation", root=tmp_path / "root")) == 3


def test_a_missing_download_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        open_dataset("shapestacks", root=tmp_path)
    for words in (
        str(tmp_path / "shapestacks" / "original" / "splits" / "default" / "train.txt"),
        "shapestacks-meta.tar.gz",
        "-rgb.tar.gz",
        "-iseg.tar.gz",
        "envs/render_shapestacks.py",
        "set source",
    ):
        assert words in str(error.value)


def test_missing_maps_say_what_to_fetch(tree: Path) -> None:
    for path in (tree / "iseg").rglob("*.map"):
        path.unlink()
    for path in (tree / "iseg").iterdir():
        path.rmdir()
    (tree / "iseg").rmdir()
    with pytest.raises(FileNotFoundError, match=r"-iseg\.tar\.gz"):
        list(ShapeStacks(tree, "train").records())
    assert len(sound(ShapeStacks(tree, "train", maps="none"))) == 6


def test_maps_beside_the_images_are_found(tree: Path) -> None:
    expected = [record.mask for record in sound(ShapeStacks(tree, "train"))]
    for path in (tree / "iseg").rglob("*.map"):
        path.rename(tree / "recordings" / path.parent.name / path.name)
    (tree / "iseg").rename(tree / "empty")
    found = [record.mask for record in sound(ShapeStacks(tree, "train"))]
    assert np.array_equal(np.stack(found), np.stack(expected))  # type: ignore[arg-type]


def test_missing_scenarios_are_named_or_counted(tree: Path, tmp_path: Path) -> None:
    absent = [f"env_ccs-easy-h=3-vcom=0-vpsf=0-v={n}" for n in range(1, 8)]
    (tree / "splits" / "default" / "train.txt").write_text("\n".join([*absent, STABLE]))
    root = tmp_path / "packs"
    with pytest.raises(ValueError, match=r"train\.txt ") as error:
        open_dataset("shapestacks", root=root, source=tree)
    assert all(name in str(error.value) for name in absent[:5])
    assert "and 2 more" in str(error.value)
    pack = open_dataset("shapestacks", root=root, source=tree, on_damage="skip")
    assert len(pack) == 3
    assert pack.meta["damaged"] == 7


def rgb(tree: Path, camera: int) -> Path:
    return next((tree / "recordings" / STABLE).glob(f"rgb-*cam_{camera}-mono-0.png"))


def cut_short(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut_short, flip_a_byte, empty])
@pytest.mark.parametrize("modality", ["rgb", "iseg"])
def test_damaged_files_are_named_or_counted(
    tree: Path, tmp_path: Path, harm: object, modality: str
) -> None:
    path = rgb(tree, 2) if modality == "rgb" else tree / "iseg" / STABLE / str(label_map(2))
    harm(path)  # type: ignore[operator]
    (message,) = damaged(ShapeStacks(tree, "train"))
    assert message.startswith(f"{path} is damaged: it cannot be decoded as an image")
    options: dict[str, Any] = {"root": tmp_path / "packs", "source": tree}
    with pytest.raises(ValueError, match=path.name):
        open_dataset("shapestacks", **options)
    pack = open_dataset("shapestacks", on_damage="skip", **options)
    assert (len(pack), pack.meta["damaged"]) == (5, 1)
    assert pack.factors["camera"].tolist() == [1, 2, 10, 1, 10]


def test_other_sizes_and_values_are_named(tree: Path) -> None:
    Image.fromarray(picture(0)[:200]).save(rgb(tree, 1))
    Image.fromarray(np.full((224, 224), 33, np.uint8)).save(
        tree / "iseg" / STABLE / str(label_map(2)), "png"
    )
    (tree / "iseg" / STABLE / str(label_map(10))).unlink()
    messages = damaged(ShapeStacks(tree, "validation"))
    assert len(messages) == 3
    assert "224 x 224 pixels, got 200 x 224" in messages[0]
    assert "multiples of 32" in messages[1]
    assert "it has no iseg map" in messages[2]


def test_simulated_labels_come_from_a_rendered_tree(tree: Path) -> None:
    path = tree / "meta" / "simulation.json"
    path.parent.mkdir()
    outcomes = {STABLE: {"collapsed": False}, FALLING: {"collapsed": True}}
    path.write_text(json.dumps({"scenarios": outcomes}))
    records = sound(ShapeStacks(tree, "train"))
    assert [record.factors["simulated_stable"] for record in records] == [0, 0, 0, 1, 1, 1]
    path.write_text(json.dumps({"scenarios": {STABLE: {"collapsed": False}}}))
    assert len(damaged(ShapeStacks(tree, "train"))) == 3
    path.write_text("{")
    with pytest.raises(ValueError, match=r"simulation\.json "):
        list(ShapeStacks(tree, "train").records())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "eval"}, r"^split "),
        ({"maps": "depth"}, r"^maps "),
        ({"subset": "../other"}, r"^subset "),
        ({"image_size": 0}, r"^image_size "),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapeStacks(**{"folder": Path(), "split": "train", **options})  # type: ignore[arg-type]


@pytest.mark.skipif(not GENUINE.is_dir(), reason="the genuine example is not beside the repository")
def test_reads_the_genuine_example(tmp_path: Path) -> None:
    (name,) = (path.name for path in GENUINE.glob("env_*"))
    (tmp_path / "tree" / "recordings").mkdir(parents=True)
    (tmp_path / "tree" / "recordings" / name).symlink_to(GENUINE / name)
    write_split(tmp_path / "tree" / "splits" / "default" / "train.txt", [name])
    source = tmp_path / "tree"
    pack = open_dataset("shapestacks", root=tmp_path, source=source, maps="vseg", image_size=196)
    assert {key: value.tolist() for key, value in pack.factors.items()} == {
        "stable": [0, 0],
        "height": [5, 5],
        "camera": [1, 2],
    }
    assert pack.masks is not None
    for camera, image, mask in zip((1, 2), pack.images, pack.masks, strict=True):
        suffix = f"w=0-f=0-l=0-c=original-cam_{camera}-mono-0.png"
        original = np.asarray(Image.open(GENUINE / name / f"rgb-{suffix}"))[14:210, 14:210]
        assert (image == original).all()
        code = np.asarray(Image.open(GENUINE / name / f"vseg-{suffix}"))[14:210, 14:210]
        # The second shape of the five violates its rule: the first is "stable", and so on.
        assert set(np.unique(mask)) == {0, 1, 2, 3, 4}
        for label, colour in ((1, (0, 76, 0)), (2, (76, 0, 0)), (3, (76, 76, 0)), (4, (0, 0, 76))):
            pure = (code == colour).all(-1)
            assert pure.sum() > 100
            assert (mask[pure] == label).all()
        assert (mask[(code == 0).all(-1)] == 0).all()
