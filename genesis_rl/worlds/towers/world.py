"""ShapeStacks scenes as MJCF, structured as the original files.

A scene consists of `env_<name>.xml` (options), which includes `world_<name>.xml` (floor, walls,
shapes, lights, cameras) and `assets.xml`, the textures and materials common to all scenes.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from genesis_rl.utils.checks import Checked, within
from genesis_rl.worlds.towers.rules import HEIGHTS, Point, Shape, Tower, shapes_of

#: Numbers of the textures in the order of `assets.xml`: index 0 in a file name is texture 003.
TEXTURE_NUMBERS = (3, 1, 5, 2, 6, 4)

#: Position and Euler angles (degrees, fixed axes x, y, z) of cameras 1 to 16.
CAMERAS: tuple[tuple[Point, Point], ...] = (
    ((-7, -7, 5), (75, 0, -45)),
    ((-9, -2, 5), (75, 0, -75)),
    ((-2, -9, 5), (75, 0, -15)),
    ((-7, 7, 5), (75, 0, 225)),
    ((-9, 2, 5), (75, 0, 255)),
    ((-2, 9, 5), (75, 0, 195)),
    ((7, 7, 5), (75, 0, 135)),
    ((9, 2, 5), (75, 0, 105)),
    ((2, 9, 5), (75, 0, 165)),
    ((7, -7, 5), (75, 0, 45)),
    ((9, -2, 5), (75, 0, 75)),
    ((2, -9, 5), (75, 0, 15)),
    ((-5, -5, 9), (45, 0, -45)),
    ((-5, 5, 9), (45, 0, 225)),
    ((5, 5, 9), (45, 0, 135)),
    ((5, -5, 9), (45, 0, 45)),
)

#: Position of lights 0 to 4; each is directed at the origin.
LIGHTS: tuple[Point, ...] = (
    (0, 0, 20),
    (-9, -9, 20),
    (-9, 9, 20),
    (9, 9, 20),
    (9, -9, 20),
)

_GEOMS = {"cuboid": "box", "cylinder": "cylinder", "sphere": "sphere"}
_KINDS = {geom: kind for kind, geom in _GEOMS.items()}
_Texture = Annotated[int, within(0, len(TEXTURE_NUMBERS) - 1)]


@dataclass(frozen=True)
class RoomAppearance(Checked):
    """Textures and light of a room, sampled per recording."""

    wall: _Texture = 0
    """index of the walls' texture in `TEXTURE_NUMBERS`, 0 to 5"""
    floor: _Texture = 0
    """index of the floor's texture, 0 to 5"""
    light: Annotated[int, within(0, len(LIGHTS) - 1)] = 0
    """number of the light that casts shadows, 0 to 4"""


def sample_appearance(rng: np.random.Generator) -> RoomAppearance:
    """Sample an appearance uniformly."""
    count = len(TEXTURE_NUMBERS)
    return RoomAppearance(
        int(rng.integers(count)), int(rng.integers(count)), int(rng.integers(len(LIGHTS)))
    )


def assets_xml() -> str:
    """Return `assets.xml`, the textures and materials."""
    root = ET.Element("assets")
    asset = ET.SubElement(root, "asset")
    _add(
        asset,
        "texture",
        type="skybox",
        builtin="gradient",
        rgb1="0.4 0.6 0.8",
        rgb2="0 0 0",
        width="100",
        height="100",
    )
    for place in ("floor", "wall"):
        for number in TEXTURE_NUMBERS:
            name = f"{place}_{number:03d}"
            file = texture_file(place, number)
            _add(asset, "texture", type="2d", name=f"tex_{name}", file=file)
            _add(asset, "material", name=f"mat_{name}", texture=f"tex_{name}")
    return _text(root)


def texture_file(place: str, number: int) -> str:
    """Return the name of a texture's file in `textures/`; `place` is "floor" or "wall"."""
    return f"{place}/{number:03d}.png"


def env_xml(name: str) -> str:
    """Return `env_<name>.xml`, a scene's options, which includes the assets and the world."""
    root = ET.Element("mujoco", model=name)
    _add(
        root, "compiler", angle="degree", eulerseq="XYZ", strippath="false", texturedir="textures/"
    )
    option = _add(
        root,
        "option",
        cone="elliptic",
        iterations="50",
        jacobian="sparse",
        o_margin="0",
        o_solimp="0.7 0.75 0.001",
        o_solref="0.02 1",
        solver="Newton",
        timestep="0.003",
        tolerance="1e-10",
    )
    _add(option, "flag", override="enable")
    _add(_add(root, "default"), "geom", solimp=".9 .9 .01")
    _add(root, "include", file="assets.xml")
    visual = _add(root, "visual")
    _add(visual, "headlight", active="0")
    _add(visual, "quality", offsamples="8", shadowsize="4096")
    _add(visual, "map", force="0.05", shadowclip="10", znear="0.1")
    _add(root, "statistic", extent="4")
    _add(root, "include", file=f"world_{name}.xml")
    return _text(root)


def world_xml(tower: Tower | Sequence[Shape], appearance: RoomAppearance | None = None) -> str:
    """Return `world_<name>.xml`, a scene's content, to be included by `env_xml`.

    Args:
        tower: a tower, or a sequence of shapes from the bottom to the top.
        appearance: materials of walls and floor, and the light that casts shadows.
    """
    appearance = appearance or RoomAppearance()
    root = ET.Element("world")
    body = ET.SubElement(root, "worldbody")
    floor = f"mat_floor_{TEXTURE_NUMBERS[appearance.floor]:03d}"
    wall = f"mat_wall_{TEXTURE_NUMBERS[appearance.wall]:03d}"
    for name, material, position, euler in (
        ("floor", floor, "0 0 0", "0 0 0"),
        ("wall_1", wall, "0 10 10", "90 180 0"),
        ("wall_2", wall, "10 0 10", "270 0 90"),
    ):
        _add(
            body,
            "geom",
            name=name,
            type="plane",
            size="10 10 0.5",
            pos=position,
            euler=euler,
            material=material,
        )
    shapes = shapes_of(tower)
    for number in range(len(shapes), 0, -1):
        _add_shape(body, shapes[number - 1], number, top=number == len(shapes))
    for number, point in enumerate(LIGHTS):
        x, y, z = point
        _add(
            body,
            "light",
            name=f"light_{number}",
            directional="true",
            mode="fixed",
            castshadow=str(number == appearance.light).lower(),
            pos=_numbers(point),
            dir=_numbers((-x, -y, -z)),
        )
    for number, (point, euler_angles) in enumerate(CAMERAS, start=1):
        _add(
            body,
            "camera",
            name=f"cam_{number}",
            mode="fixed",
            pos=_numbers(point),
            euler=_numbers(euler_angles),
        )
    if shapes:
        _add(
            _add(root, "sensor"),
            "velocimeter",
            name="velo_collapse",
            site="sensor_site_velo_collapse",
        )
    return _text(root)


def _add_shape(parent: ET.Element, shape: Shape, number: int, *, top: bool) -> None:
    body = _add(
        parent,
        "body",
        pos=_numbers(shape.position),
        euler=_numbers((90.0 if shape.lying else 0.0, 0.0, shape.yaw)),
    )
    _add(body, "freejoint")
    geom = _add(
        body,
        "geom",
        name=f"shape_{number}",
        type=_GEOMS[shape.kind],
        condim="6",
        size=_numbers(shape.size),
        pos="0 0 0",
        euler="0 0 0",
        rgba=_numbers([*(c / 255 for c in shape.colour), 1]),
    )
    if shape.kind == "cylinder":
        geom.set("friction", "1 0.01 0.01")
    if top:
        site = ET.SubElement(body, "body")
        _add(site, "site", name="sensor_site_velo_collapse", pos="0 0 0", size="0.01")


def read_world(path: str | Path) -> tuple[Tower, RoomAppearance]:
    """Read a ShapeStacks scene from its MJCF.

    Args:
        path: an `env_*.xml`, with its `world_*.xml` in the same folder, or a `world_*.xml`.

    Returns:
        The tower, with the violation of the file's name, and the appearance; its light is 0 if no
        light casts shadows.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the file is not a ShapeStacks scene.
    """
    path = Path(path)
    root = _parse(path)
    if root.find(".//worldbody") is None:
        included = [e.get("file", "") for e in root.findall("include")]
        worlds = [name for name in included if Path(name).name.startswith("world_")]
        if not worlds:
            raise ValueError(f"{path} must include a world_*.xml.")
        path = path.parent / Path(worlds[0]).name
        root = _parse(path)
    try:
        return _tower(path, root), _appearance(root)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} must be a ShapeStacks scene: {error}") from error


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"{path} cannot be read as XML: {error}") from error


def _tower(path: Path, root: ET.Element) -> Tower:
    by_number: dict[int, Shape] = {}
    for body in root.iter("body"):
        geom = body.find("geom")
        match = re.fullmatch(r"shape_(\d+)", geom.get("name", "")) if geom is not None else None
        if geom is not None and match:
            by_number[int(match[1])] = _shape(body, geom)
    if sorted(by_number) != list(range(1, len(by_number) + 1)) or len(by_number) not in HEIGHTS:
        raise ValueError(f"shapes must be shape_1 to shape_6, got {sorted(by_number) or 'none'}.")
    stem = path.stem
    numbers = {key: int(value) for key, value in re.findall(r"(vcom|vpsf)=(\d+)", stem)}
    shapes = tuple(by_number[number] for number in sorted(by_number))
    family = "blocks" if re.match(r"world_blocks-", stem) else "ccs"
    return Tower(family, shapes, numbers.get("vcom", 0), numbers.get("vpsf", 0))


def _shape(body: ET.Element, geom: ET.Element) -> Shape:
    kind = _KINDS[geom.get("type", "sphere")]
    rotation = _rotation(body) @ _rotation(geom)
    yaw = float(np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))) % 360
    lying = kind == "cylinder" and bool(abs(rotation[2, 2]) < 0.5)
    position = np.array(_floats(body, "pos")) + _rotation(body) @ np.array(_floats(geom, "pos"))
    colour = tuple(round(255 * c) for c in _floats(geom, "rgba", "0.5 0.5 0.5 1")[:3])
    x, y, z = (float(p) for p in position)
    size = tuple(_floats(geom, "size"))
    if kind == "sphere":
        yaw = 0.0
    shape = Shape(kind, size, (x, y, z), yaw, lying, (colour[0], colour[1], colour[2]))
    if kind != "sphere" and not np.allclose(shape.rotation, rotation, atol=1e-6):
        raise ValueError(f"{geom.get('name')} must be upright or lying.")
    return shape


def _appearance(root: ET.Element) -> RoomAppearance:
    numbers = {}
    for geom in root.iter("geom"):
        match = re.fullmatch(r"mat_(floor|wall)_(\d+)", geom.get("material", ""))
        if match:
            numbers[match[1]] = TEXTURE_NUMBERS.index(int(match[2]))
    shadows = [light.get("castshadow", "true") == "true" for light in root.iter("light")]
    light = shadows.index(True) if True in shadows[: len(LIGHTS)] else 0
    return RoomAppearance(numbers.get("wall", 0), numbers.get("floor", 0), light)


def _rotation(element: ET.Element) -> npt.NDArray[np.float64]:
    """Return the rotation matrix (3, 3) of Euler angles about the fixed axes x, y, z."""
    x, y, z = np.radians(_floats(element, "euler"))
    cx, cy, cz, sx, sy, sz = (*np.cos([x, y, z]), *np.sin([x, y, z]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    rotation: npt.NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation


def _floats(element: ET.Element, name: str, default: str = "0 0 0") -> list[float]:
    return [float(number) for number in element.get(name, default).split()]


def _numbers(values: npt.ArrayLike) -> str:
    return " ".join(f"{value:.17g}" for value in np.asarray(values, dtype=float).tolist())


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, attributes)


def _text(root: ET.Element) -> str:
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"
