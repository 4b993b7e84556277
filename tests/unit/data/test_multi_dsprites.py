from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.data import Pack, open_dataset
from genesis_rl.data.multi_dsprites import (
    GRID,
    LEVELS,
    SHAPES,
    MultiDSpritesConfig,
    NpzSprites,
    RenderedSprites,
    draw_dsprite,
    factor_values,
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return open_dataset("multi_dsprites", root=tmp_path_factory.mktemp("data"), num_images=300)


def test_levels_and_grid() -> None:
    assert LEVELS.tolist() == [0, 64, 128, 191, 255]
    low = factor_values(np.zeros(5, int))
    high = factor_values(np.array(GRID) - 1)
    np.testing.assert_allclose(low, [0, 0.5, 0, 0.25, 0.25])
    np.testing.assert_allclose(high, [2, 1, 2 * np.pi, 0.75, 0.75])
    np.testing.assert_allclose(factor_values(np.array([0, 1, 1, 1, 2]))[1:3], [0.6, 2 * np.pi / 39])


def test_images_are_what_masks_and_factors_say(pack: Pack) -> None:
    factors = pack.factors
    assert pack.masks is not None and pack.masks.shape == (300, 64, 64)
    assert pack.images.shape == (300, 64, 64, 3)
    for i, (image, mask) in enumerate(zip(pack.images, pack.masks, strict=True)):
        n = factors["count"][i]
        assert set(np.unique(mask)) == set(range(n + 1))
        colours = np.concatenate([factors["background"][i : i + 1], factors["colour"][i]])
        np.testing.assert_array_equal(image, colours[mask])
        expected = np.zeros((64, 64), int)
        for k in range(n):
            drawn = np.zeros((64, 64), bool)
            shape = SHAPES[factors["shape"][i, k]]
            scale, angle, x, y = (factors[f][i, k] for f in ("scale", "angle", "x", "y"))
            draw_dsprite(shape, scale, angle, x, 1 - y, drawn)
            expected[drawn] = k + 1
        assert (expected != mask).sum() <= 4  # factors are stored as float32
        assert not factors["scale"][i, n:].any() and not factors["colour"][i, n:].any()


def test_every_value_occurs(pack: Pack) -> None:
    factors = pack.factors
    assert set(factors["count"]) == {1, 2, 3, 4}
    there = np.arange(4) < factors["count"][:, None]
    for name, number in (("shape", 3), ("scale", 6), ("angle", 40), ("x", 32), ("y", 32)):
        assert len(np.unique(factors[name][there])) == number, name
    assert (
        set(factors["colour"][there].ravel()) == set(LEVELS) == set(factors["background"].ravel())
    )


def test_images_depend_on_seed_split_and_index_alone(pack: Pack, tmp_path: Path) -> None:
    def images(n: int, split: str = "train", **options: Any) -> npt.NDArray[np.uint8]:
        return open_dataset("multi_dsprites", split, root=tmp_path, num_images=n, **options).images

    np.testing.assert_array_equal(images(7), pack.images[:7])
    for other in (images(7, "validation"), images(7, "test"), images(7, seed=1)):
        assert all((a != b).any() for a, b in zip(other, pack.images[:7], strict=True))
    assert len(list((tmp_path / "multi_dsprites").glob("[!.]*"))) == 4


def test_colours_are_unique_by_option(pack: Pack, tmp_path: Path) -> None:
    def repeats(data: Pack) -> int:
        factors, count = data.factors, 0
        for i, n in enumerate(factors["count"]):
            colours = [factors["background"][i], *factors["colour"][i, :n]]
            count += len({tuple(c) for c in colours}) < n + 1
        return count

    unique = open_dataset("multi_dsprites", root=tmp_path, num_images=300, unique_colours=True)
    assert repeats(pack) > 0 and repeats(unique) == 0


@pytest.mark.parametrize("image_size", [32, 128])
def test_other_sizes_show_the_same_scenes(pack: Pack, tmp_path: Path, image_size: int) -> None:
    small = open_dataset("multi_dsprites", root=tmp_path, num_images=5, image_size=image_size)
    assert small.images.shape == (5, image_size, image_size, 3)
    assert small.masks is not None and pack.masks is not None
    for i in range(5):
        share = np.bincount(small.masks[i].ravel(), minlength=5) / float(image_size**2)
        np.testing.assert_allclose(
            share, np.bincount(pack.masks[i].ravel(), minlength=5) / 64**2, atol=0.01
        )


def test_the_number_of_sprites_is_an_option(tmp_path: Path) -> None:
    data = open_dataset(
        "multi_dsprites", root=tmp_path, num_images=40, min_objects=2, max_objects=3
    )
    assert set(data.factors["count"]) == {2, 3} and data.factors["x"].shape == (40, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 48}, r"^image_size "),
        ({"min_objects": 0}, "min_objects"),
        ({"min_objects": 3, "max_objects": 2}, "min_objects"),
        ({"max_objects": 11}, "max_objects"),
        ({"seed": -1}, r"^seed "),
        ({"image_size": 128, "dsprites_path": "x.npz"}, r"^image_size "),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiDSpritesConfig(**options)


SMALL_GRID = (3, 2, 4, 2, 3)


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file in the format of dSprites with a smaller grid of factors."""
    classes = np.stack(np.unravel_index(np.arange(np.prod(SMALL_GRID)), SMALL_GRID), axis=1)
    frames = np.zeros((len(classes), 64, 64), bool)
    for frame, (shape, scale, angle, x, y) in zip(
        frames, factor_values(classes, SMALL_GRID), strict=True
    ):
        draw_dsprite(SHAPES[int(shape)], scale, angle, x, y, frame)
    path = tmp_path_factory.mktemp("npz") / "dsprites.npz"
    latents = np.pad(classes, ((0, 0), (1, 0)))  # the first latent is the colour, always white
    np.savez_compressed(path, imgs=frames.astype(np.uint8), latents_classes=latents)
    return path


def test_genuine_sprites_are_found_by_their_factors(npz: Path) -> None:
    sprites = NpzSprites(str(npz), 64)
    assert sprites.grid == SMALL_GRID
    drawn = RenderedSprites(64)
    drawn.grid = SMALL_GRID
    for classes in ((0, 0, 0, 0, 0), (2, 1, 3, 1, 2), (1, 0, 2, 1, 0)):
        masks = np.zeros((2, 64, 64), bool)
        sprites.mask(np.array(classes), masks[0])
        drawn.mask(np.array(classes), masks[1])
        np.testing.assert_array_equal(masks[0], masks[1])
    small = np.zeros((32, 32), bool)
    NpzSprites(str(npz), 32).mask(np.array(classes), small)
    np.testing.assert_array_equal(small, masks[0][::2, ::2])


def test_a_dataset_cut_from_the_npz(npz: Path, tmp_path: Path) -> None:
    data = open_dataset("multi_dsprites", root=tmp_path, num_images=50, dsprites_path=str(npz))
    there = np.arange(4) < data.factors["count"][:, None]
    assert set(data.factors["scale"][there]) == {0.5, 1.0}
    assert data.meta["source"].startswith("npz ")
    assert data.masks is not None
    colours = np.concatenate([data.factors["background"][:, None], data.factors["colour"]], axis=1)
    for i in range(50):
        np.testing.assert_array_equal(data.images[i], colours[i][data.masks[i]])


@pytest.mark.parametrize("damage", ["cut", "flipped", "shuffled", "part", "other", "text", "npy"])
def test_files_that_are_not_dsprites_are_refused(npz: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.npz"
    with np.load(npz) as file:
        arrays = dict(file)
    if damage == "cut":
        path.write_bytes(npz.read_bytes()[:-500])
    elif damage == "flipped":
        data = bytearray(npz.read_bytes())
        data[1000:1100] = bytes(100)
        path.write_bytes(data)
    elif damage == "npy":
        with path.open("wb") as file:
            np.save(file, arrays["imgs"])
    elif damage == "shuffled":
        np.savez(path, imgs=arrays["imgs"], latents_classes=arrays["latents_classes"][::-1])
    elif damage == "part":
        np.savez(path, imgs=arrays["imgs"][:-1], latents_classes=arrays["latents_classes"])
    elif damage == "other":
        np.savez(path, imgs=arrays["imgs"])
    else:
        path.write_text("hello")
    with pytest.raises(ValueError, match=r"bad\.npz "):
        NpzSprites(str(path), 64)


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^dsprites_path .*gone\.npz"):
        open_dataset("multi_dsprites", root=tmp_path, dsprites_path=str(tmp_path / "gone.npz"))
