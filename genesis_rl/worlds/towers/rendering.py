"""Renderer of towers: images and instance maps from the 16 cameras of ShapeStacks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.offscreen import Image, OffscreenRenderer, check_size, load_mujoco
from genesis_rl.worlds.towers.rules import Shape, Tower, shapes_of
from genesis_rl.worlds.towers.textures import texture_files
from genesis_rl.worlds.towers.world import (
    CAMERAS,
    TEXTURE_NUMBERS,
    RoomAppearance,
    assets_xml,
    env_xml,
    world_xml,
)

RECORDED_SIZE = 224  # side of ShapeStacks' recordings in pixels
CROPPED_SIZE = 196  # side of the central crop used for training
MAX_SHAPES = 32
_TEXTURE_SIZE = 512  # pixels for 20 m: finer than the resolution of a 224 pixel image


class TowerRenderer(OffscreenRenderer):
    """Renderer of scenes with one OpenGL context and one set of textures.

    The cameras are the left ones of the recordings' stereo pairs: a vertical field of view of 45
    degrees, 0.034 left of the camera's pose. By default, an image shows the central 196 of a
    recording's 224 pixels, rendered directly at the output size.

    Not thread-safe. Use it in a `with` block or call `close`.

    Example:
        >>> with TowerRenderer(64) as renderer:
        ...     tower = sample_tower(np.random.default_rng(0), height=4)
        ...     renderer.load(tower, RoomAppearance(light=1))
        ...     image, instances = renderer.render(camera=1)
    """

    def __init__(
        self,
        size: int = 64,
        *,
        crop: bool = True,
        supersampling: int = 2,
        shadow_size: int | None = None,
        textures: str | Path | None = None,
    ) -> None:
        """Create the OpenGL context and load the textures.

        Args:
            size: side of the images in pixels, 8 to 1024.
            crop: render the central 196/224 of a recording; False: all of it.
            supersampling: averaged subpixels per pixel and axis; 1: aliased edges, fastest.
            shadow_size: side of the shadow map, a power of two, or 0 for no shadows; None: 512 for
                images of up to 128 pixels, else 2048, which has the resolution of the original's
                4096. In software rendering, shadows take most of the time.
            textures: folder of custom textures, see `texture_files`.

        Raises:
            ValueError: for an invalid option or texture.
            RuntimeError: if OpenGL is not available; the message names the packages.
        """
        check_size(size)
        if supersampling not in (1, 2, 3, 4):
            raise ValueError(f"supersampling must be 1, 2, 3 or 4, got {supersampling!r}.")
        if shadow_size is None:
            shadow_size = 512 if size <= 128 else 2048
        if shadow_size not in (0, 256, 512, 1024, 2048, 4096, 8192):
            raise ValueError(
                f"shadow_size must be 0 or a power of two from 256 to 8192, got {shadow_size!r}."
            )
        # MuJoCo identifies files in memory by their names without folders.
        images = texture_files(textures, _TEXTURE_SIZE)
        files = {name.replace("/", "_"): png for name, png in images.items()}
        files["assets.xml"] = assets_xml().replace("/0", "_0").encode()
        files["world_room.xml"] = world_xml(()).encode()
        mujoco = load_mujoco()
        model: Any = mujoco.MjModel.from_xml_string(env_xml("room"), files)
        model.vis.quality.shadowsize = shadow_size
        # Half of the original value: the shadow map then covers 40 x 40 m, still the whole room.
        model.vis.map.shadowclip = 5.0
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        super().__init__(model, size, supersampling=supersampling, max_geoms=MAX_SHAPES + 8)
        self._cameras = [self._left_eye(model, data, i, crop=crop) for i in range(len(CAMERAS))]
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadow_size > 0
        self._room = self._scene.ngeom  # floor and walls come first
        self._materials = {
            (place, index): mujoco.mj_name2id(
                model, mujoco.mjtObj.mjOBJ_MATERIAL, f"mat_{place}_{number:03d}"
            )
            for place in ("floor", "wall")
            for index, number in enumerate(TEXTURE_NUMBERS)
        }

    def load(
        self, tower: Tower | Sequence[Shape], appearance: RoomAppearance | None = None
    ) -> None:
        """Replace the shapes in the room.

        Args:
            tower: a tower, or a sequence of at most 32 shapes.
            appearance: textures, and the light that casts shadows.

        Raises:
            ValueError: for too many shapes.
            RuntimeError: if the renderer is closed.
        """
        self._check_open()
        appearance = appearance or RoomAppearance()
        shapes = shapes_of(tower)
        if len(shapes) > MAX_SHAPES:
            raise ValueError(f"tower must have at most {MAX_SHAPES} shapes, got {len(shapes)}.")
        for geom, place in zip(self._scene.geoms, ("floor", "wall", "wall"), strict=False):
            self._set_material(geom, self._materials[place, getattr(appearance, place)])
            geom.segid = -1
        for number, light in enumerate(self._scene.lights[: self._scene.nlight]):
            light.castshadow = number == appearance.light
        self._scene.ngeom = self._room + len(shapes)
        types = self._mujoco.mjtGeom
        geom_types = {
            "cuboid": types.mjGEOM_BOX,
            "cylinder": types.mjGEOM_CYLINDER,
            "sphere": types.mjGEOM_SPHERE,
        }
        for number, shape in enumerate(shapes):
            self._set_geom(
                self._scene.geoms[self._room + number],
                geom_types[shape.kind],
                shape.size,
                shape.position,
                shape.rotation,
                [c / 255 for c in shape.colour],
                number,
            )

    def move(self, number: int, position: npt.ArrayLike, rotation: npt.ArrayLike) -> None:
        """Set the pose of a loaded shape.

        Args:
            number: number of the shape, from 1.
            position: centre (3,).
            rotation: matrix (3, 3).

        Raises:
            ValueError: if there is no such shape.
        """
        count = self._scene.ngeom - self._room
        if not 1 <= number <= count:
            raise ValueError(f"number must be from 1 to {count}, got {number!r}.")
        geom = self._scene.geoms[self._room + number - 1]
        geom.pos[:] = position
        geom.mat[:] = np.asarray(rotation, np.float32).reshape(geom.mat.shape)

    def render(self, camera: int) -> tuple[Image, Image]:
        """Render the scene.

        Args:
            camera: number of the camera, 1 to 16.

        Returns:
            The image, RGB (size, size, 3) uint8, and the instance map (size, size) uint8, sampled
            at the pixels' centres: 0 = background, i = i-th shape.

        Raises:
            ValueError: for another camera.
            RuntimeError: if the renderer is closed.
        """
        self._check_open()
        if camera not in range(1, len(CAMERAS) + 1):
            raise ValueError(f"camera must be from 1 to {len(CAMERAS)}, got {camera!r}.")
        for eye in self._scene.camera:
            for name, value in self._cameras[camera - 1].items():
                setattr(eye, name, value)
        return self._draw_image(), self._draw_instances()

    def _left_eye(self, model: Any, data: Any, index: int, *, crop: bool) -> dict[str, Any]:
        """Return the attributes of a camera's left eye for MuJoCo's renderer."""
        camera = self._mujoco.MjvCamera()
        camera.type = self._mujoco.mjtCamera.mjCAMERA_FIXED.value
        camera.fixedcamid = index
        option, category = self._mujoco.MjvOption(), self._mujoco.mjtCatBit.mjCAT_ALL.value
        self._mujoco.mjv_updateScene(model, data, option, None, camera, category, self._scene)
        left = self._scene.camera[0]
        zoom = CROPPED_SIZE / RECORDED_SIZE if crop else 1.0
        return {
            "pos": left.pos.copy(),
            "forward": left.forward.copy(),
            "up": left.up.copy(),
            "frustum_center": 0.0,
            "frustum_bottom": left.frustum_bottom * zoom,
            "frustum_top": left.frustum_top * zoom,
            "frustum_near": left.frustum_near,
            "frustum_far": left.frustum_far,
        }
