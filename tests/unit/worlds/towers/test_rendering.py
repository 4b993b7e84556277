from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from genesis_rl.worlds.offscreen import Image, load_mujoco
from genesis_rl.worlds.towers import (
    RoomAppearance,
    Shape,
    TowerRenderer,
    assets_xml,
    env_xml,
    read_world,
    sample_appearance,
    sample_tower,
    texture_files,
    world_xml,
)

# Smoke: MuJoCo's structures change between versions.
pytestmark = [pytest.mark.smoke, pytest.mark.usefixtures("opengl")]
EXAMPLE = Path(__file__).parents[5] / "shared/reference/shapestacks_example"
SCENARIO = "env_ccs-easy-h=5-vcom=2-vpsf=0-v=1"
TOWER = sample_tower(np.random.default_rng(1), height=6, vpsf=2)


@pytest.fixture(scope="module")
def small(opengl: None) -> Iterator[TowerRenderer]:
    with TowerRenderer(64) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def large(opengl: None) -> Iterator[TowerRenderer]:
    with TowerRenderer(224, crop=False) as renderer:
        yield renderer


def genuine(kind: str, camera: int) -> npt.NDArray[np.int64]:
    (path,) = (EXAMPLE / SCENARIO).glob(f"{kind}-*-cam_{camera}-mono-0.png")
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1].astype(np.int64)


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the genuine example is not here")
@pytest.mark.parametrize("camera", [1, 2])
def test_blocks_cover_the_pixels_of_the_genuine_recording(
    large: TowerRenderer, camera: int
) -> None:
    tower, _ = read_world(EXAMPLE / f"mjcf/{SCENARIO}.xml")
    large.load(tower)
    image, instances = large.render(camera)
    # Below, at and above the violating shape 2; all higher shapes share a code.
    codes = np.array([[0, 0, 0], [0, 76, 0], [76, 0, 0], [76, 76, 0], [0, 0, 76]])
    wanted = ((genuine("vseg", camera)[:, :, None] - codes) ** 2).sum(-1).argmin(-1)
    got = np.minimum(instances, 4)
    overlaps = [
        ((wanted == code) & (got == code)).sum() / ((wanted == code) | (got == code)).sum()
        for code in range(1, 5)
    ]
    assert np.mean(overlaps) >= 0.97
    assert min(overlaps) >= 0.95
    recording = genuine("rgb", camera)
    for number in range(1, 6):
        block = instances == number
        np.testing.assert_allclose(image[block].mean(0), recording[block].mean(0), atol=8)


@pytest.mark.parametrize("camera", [1, 8, 15])
def test_pictures_are_those_of_mujocos_own_renderer(
    large: TowerRenderer, tmp_path: Path, camera: int
) -> None:
    appearance = RoomAppearance(2, 4, 3)
    for name, content in (
        ("env_a.xml", env_xml("a")),
        ("world_a.xml", world_xml(TOWER, appearance)),
        ("assets.xml", assets_xml()),
    ):
        (tmp_path / name).write_text(content)
    for name, png in texture_files(size=512).items():
        path = tmp_path / "textures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    mujoco = load_mujoco()
    model: Any = mujoco.MjModel.from_xml_path(str(tmp_path / "env_a.xml"))
    model.vis.quality.offsamples = 0
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 448, 448) as renderer:
        renderer.update_scene(data, f"cam_{camera}")
        renderer.scene.camera[1].pos = renderer.scene.camera[0].pos  # the left eye alone
        wanted = cv2.resize(renderer.render(), (224, 224), interpolation=cv2.INTER_AREA)
    large.load(TOWER, appearance)
    image, _ = large.render(camera)
    difference = np.abs(image.astype(int) - wanted)
    assert difference.mean() < 0.2
    assert (difference.max(-1) > 30).mean() < 0.001


@pytest.mark.parametrize("camera", [2, 13])
def test_small_images_show_the_central_crop_of_a_recording(
    small: TowerRenderer, large: TowerRenderer, camera: int
) -> None:
    appearance = RoomAppearance(1, 1, 2)
    small.load(TOWER, appearance)
    large.load(TOWER, appearance)
    image, instances = small.render(camera)
    whole, whole_instances = large.render(camera)
    assert image.shape == (64, 64, 3)
    assert whole.shape == (224, 224, 3)
    kept = cv2.resize(whole[14:210, 14:210], (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - kept).mean() < 4
    blocks = whole_instances[14:210, 14:210]
    shifts = []
    for number in range(1, 7):
        share = cv2.resize((blocks == number).astype(np.float32), (64, 64), None, 0, 0, 3)
        assert ((instances == number) == (share > 0.5)).mean() > 0.997
        if (instances == number).sum() < 20:
            continue  # hidden but for an edge
        rows, columns = np.nonzero(instances == number)
        centre = np.array(np.nonzero(blocks == number)).mean(1)
        place = (centre + 0.5) * 64 / 196 - 0.5
        shifts.append([rows.mean() - place[0], columns.mean() - place[1]])
    assert len(shifts) >= 4
    assert np.abs(shifts).max() < 0.5
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.15


def test_lights_and_textures_change_the_image(small: TowerRenderer) -> None:
    def frame(appearance: RoomAppearance) -> npt.NDArray[np.int64]:
        small.load(TOWER, appearance)
        return small.render(1)[0].astype(np.int64)

    first = frame(RoomAppearance(0, 0, 0))
    np.testing.assert_array_equal(first, frame(RoomAppearance(0, 0, 0)))
    background = small.render(1)[1] == 0
    for other in (RoomAppearance(1, 0, 0), RoomAppearance(0, 1, 0), RoomAppearance(0, 0, 1)):
        assert np.abs(first - frame(other))[background].mean() > 2


def test_shapes_cast_shadows(small: TowerRenderer) -> None:
    sphere = Shape("sphere", (0.5,), (0.0, 0.0, 2.0))
    with TowerRenderer(64, shadow_size=0) as bare:
        for renderer, darkened in ((small, 30), (bare, 0)):
            renderer.load([], RoomAppearance(3, 3, 0))
            empty, _ = renderer.render(13)
            renderer.load([sphere], RoomAppearance(3, 3, 0))
            image, instances = renderer.render(13)
            darker = (empty.astype(int) - image).mean(-1)[
                cv2.dilate(instances, np.ones((3, 3))) == 0
            ]
            assert (darker > 20).sum() >= darkened
            assert np.abs(darker).max() < 1 or darkened


def test_all_cameras_show_the_tower(small: TowerRenderer) -> None:
    rng = np.random.default_rng(0)
    small.load(sample_tower(rng, height=4), sample_appearance(rng))
    views = [small.render(camera) for camera in range(1, 17)]
    assert len({image.tobytes() for image, _ in views}) == 16
    for image, instances in views:
        assert image.dtype == instances.dtype == np.uint8
        assert set(np.unique(instances)) == {0, 1, 2, 3, 4}
        assert (image[instances == 0].std(0) > 5).any()


def test_shapes_are_coloured_and_moved(small: TowerRenderer) -> None:
    shape = Shape("sphere", (0.5,), (0.0, 0.0, 0.5), colour=(0, 255, 0))
    small.load([shape])
    image, before = small.render(1)
    assert image[before == 1].mean(0)[1] > 4 * image[before == 1].mean(0)[[0, 2]].max()
    small.move(1, (0, 0, 2), np.eye(3))
    after = small.render(1)[1]
    assert (after == 1).sum() == pytest.approx((before == 1).sum(), rel=0.3)
    assert np.nonzero(after)[0].mean() < np.nonzero(before)[0].mean() - 5
    small.load([])
    assert not small.render(1)[1].any()
    with pytest.raises(ValueError, match=r"^number "):
        small.move(1, (0, 0, 0), np.eye(3))


def test_supersampling_smooths_edges() -> None:
    with TowerRenderer(64, supersampling=1) as jagged, TowerRenderer(64) as smooth:
        colours = []
        for renderer in (jagged, smooth):
            renderer.load(TOWER)
            image, _ = renderer.render(4)
            colours.append(len(np.unique(image.reshape(-1, 3), axis=0)))
        np.testing.assert_array_equal(jagged.render(4)[1], smooth.render(4)[1])
    assert colours[1] > 1.1 * colours[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, r"^size "),
        ({"supersampling": 8}, r"^supersampling "),
        ({"shadow_size": 1000}, r"^shadow_size "),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TowerRenderer(**options)


def test_bad_calls_are_refused(small: TowerRenderer) -> None:
    with pytest.raises(ValueError, match=r"^camera "):
        small.render(0)
    with pytest.raises(ValueError, match=r"^tower .*shapes"):
        small.load([TOWER.shapes[0]] * 33)
    closed = TowerRenderer(16)
    closed.close()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.render(1)


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_dropped_renderer_does_not_disturb_others(
    small: TowerRenderer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    small.load(TOWER)
    image, instances = small.render(5)
    others = [TowerRenderer(64)]  # never closed
    others[0].load(TOWER.shapes[:2], RoomAppearance(wall=3, floor=4, light=1))
    others[0].render(9)
    draw = small._draw

    def drop_and_draw(pixels: Image) -> None:
        others.clear()
        draw(pixels)

    if moment == "before":
        others.clear()
    monkeypatch.setattr(small, "_draw", drop_and_draw)
    again = small.render(5)
    monkeypatch.undo()
    assert not others
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], instances)
    np.testing.assert_array_equal(small.render(5)[0], image)


def test_a_view_does_not_depend_on_uninitialised_memory(small: TowerRenderer) -> None:
    small.load(TOWER)
    wanted = small.render(13)[0]
    for geom in list(small._scene.geoms)[3:]:  # after the floor and the walls
        geom.transparent = 1
    small.load(TOWER)
    np.testing.assert_array_equal(small.render(13)[0], wanted)
