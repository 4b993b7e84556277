"""Offscreen rendering with MuJoCo: one OpenGL context, its release, and supersampled images."""

import importlib
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.utils.extras import require
from genesis_rl.utils.process import choose_opengl

_ADVICE = (
    "no OpenGL context could be created (MUJOCO_GL={backend}: {error}). Without a GPU driver,"
    " install Mesa: `apt-get install libegl1 libgl1-mesa-dri` for MUJOCO_GL=egl,"
    " `apt-get install libosmesa6` for MUJOCO_GL=osmesa."
)

_opened_in: int | None = None  # the process in which OpenGL was first used
Image = npt.NDArray[np.uint8]


def load_mujoco() -> Any:
    """Import and return MuJoCo, also without an OpenGL library, as simulation needs none.

    MuJoCo loads the OpenGL library of the environment variable MUJOCO_GL on import, and fails with
    an unclear error if it is missing.
    """
    choose_opengl()
    backend = os.environ.get("MUJOCO_GL")
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError:
        return require("mujoco")
    except Exception:  # PyOpenGL raises anything from AttributeError to GLError
        if backend is None:
            raise
        os.environ["MUJOCO_GL"] = "off"
        try:
            return importlib.import_module("mujoco")
        finally:
            os.environ["MUJOCO_GL"] = backend


def open_gl(model: Any) -> tuple[Any, Any]:
    """Create an OpenGL context, make it current, and load a model's textures into it.

    Args:
        model: the `mujoco.MjModel`; its `vis` contains the size of the offscreen buffer.

    Returns:
        The OpenGL context and the `mujoco.MjrContext`; free them in reverse order.

    Raises:
        RuntimeError: if no OpenGL library or driver is installed; the message names the packages.
            Also in a process forked from one that has used OpenGL, where drivers would deadlock.
    """
    global _opened_in
    if _opened_in not in (None, os.getpid()):
        raise RuntimeError(
            "OpenGL cannot be used in a process forked from one that has used it."
            " Start processes by 'spawn' or 'forkserver', for example"
            " gym.make_vec(..., vector_kwargs={'context': 'spawn'})."
        )
    mujoco = load_mujoco()
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        # MuJoCo may have been imported before MUJOCO_GL was set above.
        home = importlib.import_module("mujoco.egl") if backend.lower() == "egl" else mujoco
        context = home.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
        context.make_current()
        _opened_in = os.getpid()
        return context, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except Exception as error:
        raise RuntimeError(_ADVICE.format(backend=backend or "unset", error=error)) from error


def require_gl() -> None:
    """Check that an OpenGL context can be created.

    Raises:
        RuntimeError: if no OpenGL library or driver is installed; the message names the packages.
    """
    model: Any = load_mujoco().MjModel.from_xml_string("<mujoco/>")
    context, renderer = open_gl(model)
    renderer.free()
    context.free()


def check_size(size: Any) -> None:
    """Check the side of images in pixels.

    Raises:
        ValueError: unless it is an integer from 8 to 1024.
    """
    if not isinstance(size, int) or not 8 <= size <= 1024:
        raise ValueError(f"size must be an integer from 8 to 1024, got {size!r}.")


class OffscreenRenderer:
    """Base of renderers of square images and instance maps with an OpenGL context of their own.

    Not thread-safe. Use it in a `with` block or call `close`.
    """

    _context: Any = None
    # Contexts of released renderers, to be freed by another renderer: garbage collection may run
    # at any moment, also while another renderer draws in its own context.
    _released: ClassVar[list[tuple[Any, Any]]] = []

    def __init__(self, model: Any, size: int, *, supersampling: int, max_geoms: int) -> None:
        """Create the OpenGL context and an empty scene.

        Args:
            model: the `mujoco.MjModel`; the size of its offscreen buffer is set.
            size: side of the images in pixels.
            supersampling: averaged subpixels per pixel and axis.
            max_geoms: maximum number of geoms in the scene.

        Raises:
            RuntimeError: if OpenGL is not available; the message names the packages.
        """
        self.size = size
        side = size * supersampling
        mujoco = self._mujoco = load_mujoco()
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = side
        self._free_released()
        self._context, self._renderer = open_gl(model)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._renderer)
        self._scene: Any = mujoco.MjvScene(model, maxgeom=max_geoms)
        self._texture_ids = [int(np.max(ids)) for ids in model.mat_texid]
        self._big = np.empty((side, side, 3), np.uint8)
        self._small = np.empty((size, size, 3), np.uint8)

    def _draw_image(self) -> Image:
        """Render the scene: RGB (size, size, 3) uint8."""
        self._activate()
        self._draw(self._big)
        # OpenGL's rows are from bottom to top.
        image = cv2.resize(self._big, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.array(image[::-1], np.uint8)

    def _draw_instances(self) -> Image:
        """Render `segid` + 1 of the geoms at the pixels' centres: (size, size) uint8, 0 = none."""
        self._activate()
        flags, names = self._scene.flags, self._mujoco.mjtRndFlag
        flags[names.mjRND_SEGMENT] = flags[names.mjRND_IDCOLOR] = 1
        self._draw(self._small)
        flags[names.mjRND_SEGMENT] = flags[names.mjRND_IDCOLOR] = 0
        return np.array(self._small[::-1, :, 0])

    def _set_material(self, geom: Any, material: int) -> None:
        """Set the material, and its texture, of a geom of the scene."""
        geom.matid = material
        if hasattr(geom, "texid"):  # since MuJoCo 3.11; before, the material includes it
            geom.texid = self._texture_ids[material]

    def _set_geom(
        self,
        geom: Any,
        kind: Any,
        size: Sequence[float],
        position: npt.ArrayLike,
        rotation: npt.NDArray[np.float64],
        colour: Sequence[float],
        segid: int,
    ) -> None:
        """Set all attributes of a geom of the scene that is not a geom of the model.

        Args:
            geom: an `mujoco.MjvGeom`.
            kind: an `mujoco.mjtGeom`.
            size: up to three sizes, as for the kind.
            position: (3,).
            rotation: matrix (3, 3).
            colour: RGB in 0..1.
            segid: instance, see `_draw_instances`.
        """
        self._mujoco.mjv_initGeom(
            geom,
            kind,
            np.array([*size, 0.0, 0.0][:3], float),
            np.asarray(position, float),
            rotation.reshape(9),
            np.array([*colour, 1.0], np.float32),
        )
        # Not set by MuJoCo: the scene's memory is uninitialised, and what is transparent casts no
        # shadow.
        geom.transparent = 0
        geom.category = self._mujoco.mjtCatBit.mjCAT_DYNAMIC.value
        geom.objtype, geom.objid = self._mujoco.mjtObj.mjOBJ_UNKNOWN.value, -1
        geom.camdist = 0.0
        geom.segid = segid

    def close(self) -> None:
        """Release the OpenGL context."""
        self._release()
        self._free_released()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._context is not None:
            self._released.append((self._context, self._renderer))
            self._context = None

    @classmethod
    def _free_released(cls) -> None:
        while cls._released:
            context, renderer = cls._released.pop()
            # In another context, the same texture and buffer ids belong to another renderer.
            context.make_current()
            renderer.free()
            context.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._context is None:
            raise RuntimeError("the renderer is closed.")

    def _activate(self) -> None:
        self._check_open()
        self._free_released()
        self._context.make_current()

    def _draw(self, pixels: Image) -> None:
        rect = self._mujoco.MjrRect(0, 0, pixels.shape[1], pixels.shape[0])
        self._mujoco.mjr_render(rect, self._scene, self._renderer)
        self._mujoco.mjr_readPixels(pixels, None, rect, self._renderer)
