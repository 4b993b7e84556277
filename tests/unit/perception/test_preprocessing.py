"""Frames of every common layout, range and size come out as the same image."""

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from genesis_rl.perception.preprocessing import (
    LAYOUTS,
    Preprocessing,
    Resize,
    as_labels,
    as_nhwc,
    as_nhwc_uint8,
    infer_layout,
    to_images,
)

B, H, W = 2, 24, 40


@pytest.fixture
def rgb() -> Any:
    return np.random.default_rng(0).integers(0, 256, (B, H, W, 3), np.uint8)


def rearranged(rgb: npt.NDArray[np.uint8], layout: Any) -> Any:
    """The images (B, H, W, 3) in another layout; older frames of a stack are noise."""
    images = rgb if "C" in layout else rgb[..., :1]
    if "S" in layout:
        noise = np.random.default_rng(1).integers(0, 256, (3, *images.shape), np.uint8)
        images = np.concatenate([noise, images[None]]).transpose(1, 0, 2, 3, 4)
    else:
        images = images[:, None]
    axes = [1 + "SHWC".index(axis) for axis in layout]
    rest = [axis for axis in (1, 4) if axis not in axes]
    return images.transpose(0, *axes, *rest).reshape(B, *[images.shape[axis] for axis in axes])


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_gives_the_same_image_single_and_batched(
    rgb: npt.NDArray[np.uint8], layout: Any
) -> None:
    frames = rearranged(rgb, layout)
    want = rgb if "C" in layout else np.repeat(rgb[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(as_nhwc(frames, layout=layout), want)
    np.testing.assert_array_equal(as_nhwc(frames[1], layout=layout), want[1:])


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
@pytest.mark.parametrize("channels", [1, 3])
def test_auto_tells_channels_first_from_last(
    rgb: npt.NDArray[np.uint8], layout: Any, channels: int
) -> None:
    frames = rearranged(rgb, layout)
    frames = frames[..., :channels] if layout == "HWC" else frames[:, :channels]
    want = np.repeat(rgb[..., :1], 3, axis=-1) if channels == 1 else rgb
    np.testing.assert_array_equal(as_nhwc(frames), want)
    np.testing.assert_array_equal(as_nhwc(frames[0]), want[:1])


def test_auto_reads_two_axes_as_grey(rgb: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(as_nhwc(rgb[0, ..., 0]), np.repeat(rgb[:1, ..., :1], 3, -1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, H, W), r"^layout "),
        ((3, H, 3), r"^layout "),
        ((H, W, 2), r"^frames "),
        ((7, H, W), r"^frames "),
        ((H,), r"^frames "),
        ((2, 2, H, W, 3), r"^frames "),
    ],
)
def test_auto_refuses_what_could_mean_two_things(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infer_layout(shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16])
def test_integers_stay_bytes(rgb: npt.NDArray[np.uint8], dtype: Any) -> None:
    frames = as_nhwc(rgb.astype(dtype))
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, rgb)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("named", [True, False])
def test_floats_of_either_range(
    rgb: npt.NDArray[np.uint8], dtype: Any, white: Any, named: bool
) -> None:
    frames = (rgb / 255 * white).astype(dtype)
    images = as_nhwc(frames, white=white if named else None)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, rgb / 255, atol=1e-3 if dtype == np.float16 else 1e-6)


def test_almost_black_floats_need_white_named() -> None:
    frames = np.full((H, W, 3), 0.5, np.float32)
    assert as_nhwc(frames).max() == 0.5
    np.testing.assert_allclose(as_nhwc(frames, white=255), 0.5 / 255, rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 255])
def test_rgba_lies_over_black(rgb: npt.NDArray[np.uint8], scale: Any) -> None:
    alpha = np.random.default_rng(2).integers(0, 256, (B, H, W, 1), np.uint8)
    frames = np.concatenate([rgb, alpha], axis=-1)
    want = rgb / 255 * (alpha / 255)
    if scale == 255:
        np.testing.assert_array_equal(as_nhwc(frames), np.rint(want * 255).astype(np.uint8))
    else:
        np.testing.assert_allclose(as_nhwc(frames / 255.0), want, atol=1e-6)


def test_tensors_and_lists(rgb: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(as_nhwc(torch.from_numpy(rgb).permute(0, 3, 1, 2)), rgb)
    np.testing.assert_array_equal(as_nhwc([rgb[0], rgb[1]]), rgb)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (np.full((H, W, 3), np.nan), ValueError, "NaN"),
        (np.full((H, W, 3), np.inf), ValueError, r"^frames .*NaN"),
        (np.full((H, W, 3), 256.0), ValueError, "256"),
        (np.full((H, W, 3), -1.0), ValueError, "-1"),
        (np.full((H, W, 3), 300), ValueError, "300"),
        (np.full((H, W, 3), True), TypeError, "bool"),
        (np.full((H, W, 3), "x"), TypeError, "<U1"),
        ("frame.png", TypeError, "<U9"),
        (None, TypeError, "object"),
        ([np.zeros((4, 5, 3)), np.zeros((5, 4, 3))], ValueError, r"^frames "),
        (np.zeros((0, H, W, 3), np.uint8), ValueError, r"^frames "),
        (np.zeros(7), ValueError, r"^frames "),
    ],
)
def test_what_is_no_image_is_refused(
    frames: npt.NDArray[np.uint8], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        as_nhwc(frames)


def test_a_named_layout_must_fit(rgb: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"^frames "):
        as_nhwc(rgb[0, 0], layout="CHW")
    with pytest.raises(ValueError, match=r"^frames .*channels"):
        as_nhwc(rgb, layout="CHW")
    with pytest.raises(ValueError, match=r"^layout "):
        as_nhwc(rgb, layout="HCW")  # type: ignore[arg-type]


def test_floats_beyond_one_are_refused_where_white_is_one() -> None:
    with pytest.raises(ValueError, match=r"^frames .*\[0, 1\]"):
        as_nhwc(np.full((H, W, 3), 1.1), white=1)


# ---- sizes ---------------------------------------------------------------------------------------


def test_shrinking_averages_areas() -> None:
    image = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, np.ones((3, 2), np.uint8))
    small = as_nhwc_uint8(image, image_size=4)
    np.testing.assert_array_equal(small[0, ..., 0], np.arange(16).reshape(4, 4) * 16)


def test_enlarging_is_bilinear() -> None:
    image = np.array([[0.0, 1.0], [0.0, 1.0]])
    large = to_images(image, image_size=4, white=1)
    np.testing.assert_allclose(large[0, 0, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_stretch_fills_the_square() -> None:
    white = np.full((H, W, 3), 255, np.uint8)
    assert as_nhwc_uint8(white, image_size=16).min() == 255


def test_letterbox_keeps_proportions() -> None:
    white = np.full((24, 48, 3), 255, np.uint8)
    boxed = as_nhwc_uint8(white, image_size=16, preprocessing=Preprocessing("letterbox"))[0]
    assert boxed.shape == (16, 16, 3)
    np.testing.assert_array_equal(boxed[..., 0].max(1) > 0, [False] * 4 + [True] * 8 + [False] * 4)
    assert boxed[4:12].min() == 255


def test_crop_takes_the_central_square() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 4:12] = 255
    crop = Preprocessing("crop")
    assert as_nhwc_uint8(image, image_size=4, preprocessing=crop).min() == 255
    assert as_nhwc_uint8(image, image_size=4).min() == 0
    tall = image.transpose(1, 0, 2)
    assert as_nhwc_uint8(tall, image_size=8, preprocessing=crop).min() == 255


def test_none_wants_the_size() -> None:
    none = Preprocessing("none")
    assert as_nhwc_uint8(np.zeros((8, 8)), image_size=8, preprocessing=none).shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"8 x 8 .*8 x 16"):
        as_nhwc_uint8(np.zeros((8, 16)), image_size=8, preprocessing=none)


@pytest.mark.parametrize("how", get_args(Resize))
def test_a_frame_of_the_size_is_not_touched(rgb: npt.NDArray[np.uint8], how: Resize) -> None:
    square = rgb[:, :H, :H]
    images = as_nhwc_uint8(square, image_size=H, preprocessing=Preprocessing(how))
    np.testing.assert_array_equal(images, square)


def test_unknown_resize_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^resize "):
        Preprocessing("zoom")  # type: ignore[arg-type]


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, None])
def test_to_images_is_what_models_take(rgb: npt.NDArray[np.uint8], scale: Any) -> None:
    frames = rgb if scale is None else rgb / 255.0
    x = to_images(frames[:, :H, :H], image_size=H)
    assert x.shape == (B, 3, H, H)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(x.permute(0, 2, 3, 1), rgb[:, :H, :H] / 255, atol=1e-6)


def test_to_images_leaves_read_only_frames_alone(
    rgb: npt.NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    rgb.flags.writeable = False
    before = rgb.copy()
    to_images(rgb[:, :H, :H], image_size=H).zero_()
    np.testing.assert_array_equal(rgb, before)
    assert not recwarn.list


def test_floats_round_to_bytes(rgb: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(as_nhwc_uint8(rgb / 255.0), rgb)


# ---- PIL images ----------------------------------------------------------------------------------


def picture(rgb: npt.NDArray[np.uint8]) -> Image.Image:
    """Four colours that every mode holds well enough."""
    colours = np.array([[255, 0, 0], [0, 0, 255], [90, 90, 90], [255, 255, 255]], np.uint8)
    return Image.fromarray(colours[rgb[0, ..., 0] % 4])


@pytest.mark.parametrize("mode", ["P", "CMYK", "HSV", "YCbCr", "RGBX", "LAB", "RGBA", "RGBa"])
def test_pil_modes_keep_their_colours(rgb: npt.NDArray[np.uint8], mode: str) -> None:
    image = picture(rgb)
    other = image.quantize(4) if mode == "P" else image
    if mode == "RGBa":
        other = image.convert("RGBA")
    elif mode == "LAB":
        pytest.importorskip("PIL.ImageCms")
        other = Image.new("LAB", image.size, (255, 128, 128))
        image = Image.new("RGB", image.size, (255, 255, 255))
    if mode not in ("P", "LAB"):
        other = other.convert(mode)
    found = as_nhwc(other)
    assert other.mode == mode and found.dtype == np.uint8
    np.testing.assert_allclose(found[0].astype(int), np.asarray(image).astype(int), atol=3)
    np.testing.assert_array_equal(as_nhwc([other, other]), np.concatenate([found, found]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "PA"])
def test_pil_modes_of_grey(mode: str) -> None:
    grey = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 4, axis=1))
    found = as_nhwc(grey.convert(mode), layout="HW" if mode in ("1", "L") else "auto")
    np.testing.assert_array_equal(found[0, 0, :, 1], [0] * 4 + [255] * 4)


def test_alpha_of_pil_images_lies_over_black() -> None:
    clear = Image.new("LA", (2, 2), (200, 51))  # a fifth
    assert set(as_nhwc(clear).ravel().tolist()) == {40}
    palette = Image.new("RGB", (2, 2), (250, 10, 20)).quantize(2)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert as_nhwc(palette).max() == 0


def test_pil_images_of_more_bits() -> None:
    deep = Image.fromarray(np.array([[0, 13107, 65535]], np.uint16))
    assert deep.mode == "I;16"
    found = as_nhwc(deep)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0, :, 0], [0, 0.2, 1])
    floats = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    np.testing.assert_allclose(as_nhwc(floats)[0, 0, :, 2], [0, 0.2, 1])
    np.testing.assert_allclose(
        as_nhwc(Image.fromarray(np.array([[0, 51, 255]], np.float32)), white=255), as_nhwc(floats)
    )
    grey = Image.fromarray(np.array([[0, 51, 255]], np.uint8))
    np.testing.assert_allclose(as_nhwc([deep, grey])[0], as_nhwc([deep, grey])[1])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("I", (2, 2), 200), r"^image .*32-bit .* 200"),
        (Image.new("I", (2, 2), 70_000), r"^image .*32-bit .* 70000"),
        (Image.new("F", (2, 2), 200.0), r"^frames "),
        (Image.new("F", (2, 2), float("nan")), "NaN"),
    ],
)
def test_pil_images_whose_white_is_unknown_are_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_nhwc(image)
    with pytest.raises(ValueError, match=message):
        as_nhwc([image])


def test_pil_images_that_do_not_fit_are_refused() -> None:
    image = Image.new("RGB", (4, 3))
    with pytest.raises(ValueError, match=r"^layout "):
        as_nhwc(image, layout="CHW")
    with pytest.raises(ValueError, match=r"^frames "):
        as_nhwc([image, Image.new("RGB", (3, 4))])
    for frames in ([image, np.zeros((3, 4, 3), np.uint8)], [np.zeros((3, 4, 3), np.uint8), image]):
        with pytest.raises(TypeError, match=r"^frames "):
            as_nhwc(frames)


# ---- never guess ---------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [2, 0, -1, float("nan"), "255"])
def test_other_values_of_white_are_refused(white: Any) -> None:
    with pytest.raises(ValueError, match=r"^white "):
        as_nhwc(np.zeros((4, 4, 3), np.float32), white=white)


def test_lists_of_bytes_and_floats_are_refused(rgb: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(TypeError, match=r"^frames .*float64, uint8"):
        as_nhwc([rgb[0], rgb[1] / 255])
    with pytest.raises(TypeError, match=r"^frames .*Tensor .*float32, uint8"):
        as_nhwc([torch.from_numpy(rgb[0]), torch.from_numpy(rgb[1]) / 255])
    np.testing.assert_array_equal(as_nhwc([rgb[0], rgb[1].astype(np.int64)]), rgb)


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.uint64])
def test_large_ids_never_merge(dtype: Any) -> None:
    ids = np.array([[0, 300, 301], [1000, 2, 255]], dtype)
    found = as_labels(ids)
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1, 3], [4, 2, 255]]
    assert as_labels(ids, num_rows=11).tolist() == [[0, 11, 12], [13, 2, 255]]
    small = np.array([[0, 7], [255, 1]], dtype)
    np.testing.assert_array_equal(as_labels(small), small)


def test_ids_that_are_no_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^instance ids .* 256 .* 256 .* 255 "):
        as_labels(np.arange(1000, 1256).reshape(16, 16))
    with pytest.raises(ValueError, match=r"^instance ids .*-1"):
        as_labels(np.array([[0, -1]]))
    with pytest.raises(TypeError, match=r"^instance ids .*float64"):
        as_labels(np.array([[0.0, 1.5]]))
