"""Renderer of the robot at its table: images and instance maps."""

from typing import Any

from genesis_rl.worlds.offscreen import Image, OffscreenRenderer
from genesis_rl.worlds.tabletop.simulation import CAMERAS, FetchSimulation

#: Links of the arm that form one instance; parts of the geoms' names.
ARM = ("gripper", "wrist", "forearm", "elbow", "upperarm")

#: Links of the robot outside of each camera's frame, which are not drawn.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "frontview": ("head_pan_link", "head_tilt_link", "estop_link", "laser_link"),
    "topview": (
        *("head_pan_link", "head_tilt_link", "estop_link", "laser_link"),
        *("torso_lift_link", "torso_fixed_link", "shoulder_pan_link"),
    ),
}

_DRAWN, _HIDDEN = 0, 5  # geom groups


class TableRenderer(OffscreenRenderer):
    """Renderer of a `FetchSimulation` with an OpenGL context of its own, without shadows.

    Not thread-safe. Use it in a `with` block or call `close`.
    """

    def __init__(
        self,
        simulation: FetchSimulation,
        size: int = 64,
        *,
        camera: str = "frontview",
        supersampling: int = 2,
    ) -> None:
        """Create the OpenGL context and load the meshes.

        Args:
            simulation: the simulation to render.
            size: side of the images in pixels.
            camera: name in `CAMERAS`.
            supersampling: averaged subpixels per pixel and axis.

        Raises:
            ValueError: for an unknown camera.
            RuntimeError: if OpenGL is not available; the message names the packages.
        """
        if camera not in CAMERAS:
            raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, got {camera!r}.")
        model = self._model = simulation.model
        self._data = simulation.data
        super().__init__(model, size, supersampling=supersampling, max_geoms=model.ngeom + 8)
        mujoco = self._mujoco
        names = [model.geom(i).name for i in range(model.ngeom)]
        outside = {f"robot0:{link}" for link in OUTSIDE[camera]}
        model.geom_group[:] = [_HIDDEN if name in outside else _DRAWN for name in names]
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[_DRAWN] = 1
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._camera.fixedcamid = model.camera(camera).id
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        rows = [f"object{i}" for i in range(simulation.objects)]
        rows += ["goal"] * simulation.has_goal
        self._rows = [
            rows.index(name)
            if name in rows
            else (len(rows) if any(link in name for link in ARM) else -1)
            for name in names
        ]

    def image(self) -> Image:
        """Render the scene: RGB (size, size, 3) uint8."""
        self._update()
        return self._draw_image()

    def instances(self) -> Image:
        """Render the instances at the pixels' centres.

        Returns:
            (size, size) uint8: 0 = background (table and other links too), i + 1 = i-th of all
            objects that the scene may have, the goal, if there is one, and the arm.
        """
        self._update()
        for geom in self._scene.geoms[: self._scene.ngeom]:
            geom.segid = self._rows[geom.objid]
        return self._draw_instances()

    def _update(self) -> None:
        category: Any = self._mujoco.mjtCatBit.mjCAT_ALL.value
        self._mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, category, self._scene
        )
