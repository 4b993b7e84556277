from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from genesis_rl.worlds.towers import (
    TEXTURE_NUMBERS,
    RoomAppearance,
    Tower,
    assets_xml,
    env_xml,
    read_world,
    sample_appearance,
    sample_tower,
    texture,
    texture_files,
    world_xml,
)

EXAMPLE = Path(__file__).parents[5] / "shared/reference/shapestacks_example/mjcf"


def write(folder: Path, name: str, tower: Tower, appearance: RoomAppearance) -> Path:
    env = folder / f"env_{name}.xml"
    env.write_text(env_xml(name))
    (folder / f"world_{name}.xml").write_text(world_xml(tower, appearance))
    return env


def test_read_world_inverts_world_xml(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(30):
        height = 2 + index % 5
        violation: dict[str, Any] = ({}, {"vcom": 1}, {"vpsf": 1})[index % 3]
        tower, appearance = sample_tower(rng, height=height, **violation), sample_appearance(rng)
        name = f"ccs-hard-h={height}-vcom={tower.vcom}-vpsf={tower.vpsf}-v={index}"
        read, read_appearance = read_world(write(tmp_path, name, tower, appearance))
        assert read_appearance == appearance
        assert (read.family, read.vcom, read.vpsf) == (tower.family, tower.vcom, tower.vpsf)
        for a, b in zip(read.shapes, tower.shapes, strict=True):
            for name_of_field in ("kind", "size", "position", "lying", "colour"):
                assert getattr(a, name_of_field) == getattr(b, name_of_field)
            np.testing.assert_allclose(a.rotation, b.rotation, atol=1e-12)
        assert read_world(tmp_path / f"world_{name}.xml")[0] == read


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the original example files are missing")
def test_original_worlds_are_read() -> None:
    tower, appearance = read_world(EXAMPLE / "env_ccs-easy-h=5-vcom=2-vpsf=0-v=1.xml")
    assert (tower.family, tower.height, tower.vcom, tower.vpsf) == ("ccs", 5, 2, 0)
    kinds = "cylinder cuboid cylinder cylinder sphere".split()
    assert [s.kind for s in tower.shapes] == kinds
    assert tower.shapes[1].yaw == pytest.approx(111)
    assert appearance == RoomAppearance(1, 1, 0)  # textures 001


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the original example files are missing")
def test_written_files_have_the_structure_of_the_original() -> None:
    import xml.etree.ElementTree as ET

    tower, appearance = read_world(EXAMPLE / "world_ccs-easy-h=5-vcom=2-vpsf=0-v=1.xml")
    name = "ccs-easy-h=5-vcom=2-vpsf=0-v=1"
    for kind, written in (("env", env_xml(name)), ("world", world_xml(tower, appearance))):
        original = ET.parse(EXAMPLE / f"{kind}_{name}.xml").getroot()
        tags = [e.tag for e in original.iter() if e.tag != "size"]  # buffers of MuJoCo 1.50
        root = ET.fromstring(written.encode())
        assert [e.tag for e in root.iter()] == tags
        by_name = {e.get("name"): e for e in root.iter() if e.get("name")}
        for element in original.iter():
            counterpart = by_name.get(element.get("name"))
            if element.get("name") and kind == "world":
                assert counterpart is not None
                assert set(counterpart.attrib) == set(element.attrib)


def test_invalid_worlds_raise(tmp_path: Path) -> None:
    tower = sample_tower(np.random.default_rng(0), height=2)
    env = write(tmp_path, "a", tower, RoomAppearance())
    world = tmp_path / "world_a.xml"
    text = world.read_text()
    for content, message in (
        (text[:300], r"world_a.xml .*XML"),
        (text.replace("shape_1", "shape_3"), r"world_a.xml .* got \[2, 3\]"),
        ("<world><worldbody/></world>", r"world_a.xml .*shape_6"),
        (text.replace("mat_wall_003", "mat_wall_009"), "world_a.xml "),
        (text.replace('euler="0', 'euler="20', 9), r"world_a.xml .*shape_2"),
    ):
        world.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_world(env)
    world.unlink()
    with pytest.raises(FileNotFoundError):
        read_world(env)
    env.write_text("<mujoco/>")
    with pytest.raises(ValueError, match=r"env_a\.xml "):
        read_world(env)


@pytest.mark.parametrize(("name", "value"), [("wall", 6), ("floor", -1), ("light", 5)])
def test_appearances_are_validated(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name} "):
        RoomAppearance(**{name: value})


def test_textures_are_distinct_with_the_mean_colours_of_the_originals() -> None:
    textures = {(p, n): texture(p, n, 128) for p in ("floor", "wall") for n in TEXTURE_NUMBERS}
    assert len({image.tobytes() for image in textures.values()}) == 9
    for number in (1, 2, 3):
        np.testing.assert_array_equal(textures["floor", number], textures["wall", number])
    means = {("floor", 1): (122, 105, 83), ("floor", 6): (113, 82, 53), ("wall", 6): (80, 81, 78)}
    for key, mean in means.items():
        np.testing.assert_allclose(textures[key].mean((0, 1)), mean, atol=6)
    assert all(image.std() > 15 for image in textures.values())
    np.testing.assert_array_equal(texture("wall", 4, 128), textures["wall", 4])
    with pytest.raises(ValueError, match=r"^place "):
        texture("wall", 7)


def test_texture_files_replace_procedural_ones(tmp_path: Path) -> None:
    (tmp_path / "wall").mkdir()
    image = np.full((40, 40, 3), (200, 10, 30), np.uint8)
    cv2.imwrite(str(tmp_path / "wall/004.png"), image[..., ::-1])
    files = texture_files(tmp_path, 64)
    assert sorted(files) == [f"{p}/00{n}.png" for p in ("floor", "wall") for n in range(1, 7)]
    assert all(name in assets_xml() for name in files)
    decoded = cv2.imdecode(np.frombuffer(files["wall/004.png"], np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert (decoded[..., ::-1] == (200, 10, 30)).all()
    assert files["floor/004.png"] == texture_files(None, 64)["floor/004.png"]
    (tmp_path / "wall/004.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"004\.png "):
        texture_files(tmp_path, 64)
    (tmp_path / "wall/004.png").unlink()
    with pytest.raises(ValueError, match=r"^textures "):
        texture_files(tmp_path, 64)
    with pytest.raises(FileNotFoundError, match=r"^textures "):
        texture_files(tmp_path / "missing", 64)
