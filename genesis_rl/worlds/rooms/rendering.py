"""Renderer of rooms: images and instance maps from any camera pose."""

from math import cos, pi, radians, sin, tan
from typing import Any

import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.offscreen import Image, OffscreenRenderer, check_size, load_mujoco
from genesis_rl.worlds.patterns import encode_png
from genesis_rl.worlds.rooms.rules import (
    FIELD_OF_VIEW,
    FOOTPRINTS,
    HALF_WIDTH,
    WALL_HEIGHT,
    CameraPose,
    Room,
    RoomObject,
)
from genesis_rl.worlds.rooms.textures import TEXTURES, room_texture

MAX_RENDERED = 16
_NEAR = 0.05  # metres
_LIGHT_DISTANCE = 8.0  # of the lights from the room's centre, in metres
_MESHES = ("cone", "icosahedron")  # the other shapes are MuJoCo's own
_SIDES = 32  # of the cone

Array = npt.NDArray[np.float64]


class RoomRenderer(OffscreenRenderer):
    """Renderer of rooms with one OpenGL context and one MuJoCo model.

    The model contains all textures and meshes. Objects, textures and the light are replaced in the
    scene of the renderer, without compiling another model.

    Not thread-safe. Use it in a `with` block or call `close`.

    Example:
        >>> with RoomRenderer(64) as renderer:
        ...     rng = np.random.default_rng(0)
        ...     renderer.load(sample_room(rng, num_objects=3))
        ...     image, instances = renderer.render(sample_ring_pose(rng))
    """

    def __init__(self, size: int = 64) -> None:
        """Create the OpenGL context and load the textures.

        Args:
            size: side of the images in pixels, 8 to 1024.

        Raises:
            ValueError: for an invalid size.
            RuntimeError: if OpenGL is not available; the message names the packages.
        """
        check_size(size)
        mujoco = load_mujoco()
        model: Any = mujoco.MjModel.from_xml_string(_room_xml(), _texture_files())
        model.vis.quality.shadowsize = 512 if size <= 128 else 2048
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        super().__init__(model, size, supersampling=2, max_geoms=MAX_RENDERED + 8)
        option, category = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL.value
        camera = mujoco.MjvCamera()
        mujoco.mjv_updateScene(model, data, option, None, camera, category, self._scene)
        self._room_geoms = self._scene.ngeom  # floor and walls come first
        for geom in self._scene.geoms[: self._room_geoms]:
            geom.segid = -1
        for eye in self._scene.camera:
            eye.frustum_center = eye.frustum_width = 0.0
            eye.frustum_top = _NEAR * tan(radians(FIELD_OF_VIEW / 2))
            eye.frustum_bottom = -eye.frustum_top
            eye.frustum_near, eye.frustum_far = _NEAR, 8 * HALF_WIDTH
        self._materials = {
            (place, name): int(model.material(f"{place}_{name}").id)
            for place, names in TEXTURES["all"].items()
            for name in names
        }
        # MuJoCo moves the vertices of a mesh into the frame of its moments of inertia.
        self._mesh_frames = {}
        for name in _MESHES:
            mesh = int(model.mesh(name).id)
            frame = _rotation(mujoco, model.mesh_quat[mesh])
            self._mesh_frames[name] = (mesh, model.mesh_pos[mesh].copy(), frame)

    def load(self, room: Room) -> None:
        """Replace the content of the scene.

        Args:
            room: the room, with at most 16 objects.

        Raises:
            ValueError: for too many objects.
            RuntimeError: if the renderer is closed.
        """
        self._check_open()
        count = len(room.objects)
        if count > MAX_RENDERED:
            raise ValueError(f"room must have at most {MAX_RENDERED} objects, got {count}.")
        for number, geom in enumerate(self._scene.geoms[: self._room_geoms]):
            name = ("wall", room.wall) if number else ("floor", room.floor)
            self._set_material(geom, self._materials[name])
        light = self._scene.lights[0]  # the first one of the model
        light.pos[:] = _LIGHT_DISTANCE * np.array(room.light)
        light.dir[:] = -np.array(room.light)
        self._scene.ngeom = self._room_geoms + count
        for number, item in enumerate(room.objects):
            self._place(self._scene.geoms[self._room_geoms + number], item, number)

    def render(self, pose: CameraPose) -> tuple[Image, Image]:
        """Render the room.

        Args:
            pose: pose of the camera.

        Returns:
            The image, RGB (size, size, 3) uint8, and the instance map (size, size) uint8, sampled
            at the pixels' centres: 0 = background, i = i-th object.

        Raises:
            RuntimeError: if the renderer is closed.
        """
        return self.image(pose), self._draw_instances()

    def image(self, pose: CameraPose) -> Image:
        """Render the image alone, see `render`."""
        self._check_open()
        ahead = np.array((cos(pose.yaw), sin(pose.yaw)))
        forward = [*(cos(pose.pitch) * ahead), sin(pose.pitch)]
        up = [*(-sin(pose.pitch) * ahead), cos(pose.pitch)]
        for eye in self._scene.camera:
            eye.pos[:], eye.forward[:], eye.up[:] = pose[:3], forward, up
        return self._draw_image()

    def _place(self, geom: Any, item: RoomObject, number: int) -> None:
        types, scale = self._mujoco.mjtGeom, item.scale
        radius = FOOTPRINTS[item.shape] * scale
        position, turn = np.array((item.x, item.y, scale)), _about_z(item.yaw)
        kind, size = {
            "box": (types.mjGEOM_BOX, (radius / 2**0.5, radius / 2**0.5, scale)),
            "sphere": (types.mjGEOM_SPHERE, (radius, 0, 0)),
            "cylinder": (types.mjGEOM_CYLINDER, (radius, scale, 0)),
            # The height of a capsule includes its caps.
            "capsule": (types.mjGEOM_CAPSULE, (radius, scale - radius, 0)),
        }.get(item.shape, (types.mjGEOM_MESH, (1, 1, 1)))
        if item.shape in self._mesh_frames:
            mesh, offset, frame = self._mesh_frames[item.shape]
            position = position + scale * turn @ offset
            turn = turn @ frame
        self._set_geom(geom, kind, size, position, turn, item.colour, number)
        if item.shape in self._mesh_frames:
            geom.dataid = 2 * mesh  # the odd numbers are convex hulls
            geom.mat[:] = (scale * turn).astype(np.float32)


def _about_z(angle: float) -> Array:
    return np.array([[cos(angle), -sin(angle), 0], [sin(angle), cos(angle), 0], [0, 0, 1]])


def _rotation(mujoco: Any, quaternion: Array) -> Array:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _texture_files() -> dict[str, bytes]:
    return {
        f"{place}_{name}.png": encode_png(room_texture(place, name))
        for place, names in TEXTURES["all"].items()
        for name in names
    }


def _room_xml() -> str:
    """Return the MJCF of an empty room with all textures and meshes."""
    names = [(place, name) for place, of_place in TEXTURES["all"].items() for name in of_place]
    repeat = {"wall": "2 1", "floor": "1 1"}
    assets = "".join(
        f'<texture type="2d" name="{place}_{name}" file="{place}_{name}.png"/>'
        f'<material name="{place}_{name}" texture="{place}_{name}" texrepeat="{repeat[place]}"'
        ' specular="0.1" shininess="0.1"/>'
        for place, name in names
    )
    walls = "".join(
        f'<geom type="plane" size="{HALF_WIDTH} {WALL_HEIGHT / 2} 1" material="wall_red"'
        f' pos="{-HALF_WIDTH * cos(yaw)} {-HALF_WIDTH * sin(yaw)} {WALL_HEIGHT / 2}"'
        f' xyaxes="{-sin(yaw)} {cos(yaw)} 0 0 0 1"/>'
        for yaw in (0, pi / 2, pi, -pi / 2)
    )
    # The shadow map covers a square of 2 * extent * shadowclip.
    return f"""
<mujoco>
 <visual>
  <headlight active="0"/>
  <map shadowclip="1.6" znear="0.01"/>
 </visual>
 <statistic extent="{HALF_WIDTH}" center="0 0 0.5"/>
 <asset>
  <texture type="skybox" builtin="gradient" rgb1="0.62 0.74 0.86" rgb2="0.36 0.52 0.72"
   width="64" height="384"/>
  {assets}{_mesh_xml("cone", *_cone())}{_mesh_xml("icosahedron", *_icosahedron())}
 </asset>
 <worldbody>
  <light directional="true" castshadow="false" ambient="0.45 0.45 0.45"
   diffuse="0.25 0.25 0.25" specular="0 0 0"/>
  <light directional="true" castshadow="true" pos="0 0 {_LIGHT_DISTANCE}" dir="0 0 -1"
   diffuse="0.5 0.5 0.5" specular="0.2 0.2 0.2"/>
  <geom type="plane" size="{HALF_WIDTH} {HALF_WIDTH} 1" material="floor_white"/>
  {walls}
 </worldbody>
</mujoco>"""


def _mesh_xml(name: str, triangles: Array, normals: Array) -> str:
    """Return a mesh (T, 3, 3) with a normal per corner (T, 3, 3), half of whose height is 1."""
    corners = triangles.reshape(-1, 3)
    numbers = np.arange(len(corners))
    lists = {"vertex": corners, "normal": normals.reshape(-1, 3), "face": numbers}
    text = " ".join(
        f'{key}="{" ".join(f"{value:.9g}" for value in values.ravel())}"'
        for key, values in lists.items()
    )
    return f'<mesh name="{name}" {text}/>'


def _cone() -> tuple[Array, Array]:
    """Return a cone with smooth sides: corners and normals of its triangles (T, 3, 3)."""
    radius = FOOTPRINTS["cone"]
    angles = np.linspace(0, 2 * pi, _SIDES + 1)
    circle = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    rim = radius * circle - (0, 0, 1)
    apex, base = (np.broadcast_to((0, 0, z), (_SIDES, 3)) for z in (1, -1))
    slope = circle + np.array((0, 0, radius / 2))
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    between = slope[:-1] + slope[1:]
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    side = np.stack([rim[:-1], rim[1:], apex], 1)
    bottom = np.stack([rim[1:], rim[:-1], base], 1)
    normals = np.stack([slope[:-1], slope[1:], between], 1)
    return np.concatenate([side, bottom]), np.concatenate([normals, np.stack([base] * 3, 1)])


def _icosahedron() -> tuple[Array, Array]:
    """Return an icosahedron on one of its faces, and the normals of its faces, (20, 3, 3) each."""
    golden = (1 + 5**0.5) / 2
    corners = np.array([(0, a, b * golden) for a in (1, -1) for b in (1, -1)], float)
    corners = np.concatenate([np.roll(corners, shift, 1) for shift in range(3)])
    near = np.linalg.norm(corners[:, None] - corners, axis=2) < 2.1  # edges have length 2
    faces = [
        (i, j, k)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    triangles = corners[np.array(faces)]
    normals = triangles.mean(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    inwards = np.linalg.det(triangles) < 0
    triangles[inwards] = triangles[inwards, ::-1]
    # Rotate the first face to the bottom.
    x = triangles[0, 0] - triangles[0, 1]
    frame = np.stack([x / 2, np.cross(-normals[0], x / 2), -normals[0]])
    triangles, normals = triangles @ frame.T, normals @ frame.T
    triangles /= triangles[..., 2].max()
    return triangles, np.stack([normals] * 3, 1)
