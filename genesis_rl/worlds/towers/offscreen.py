"""Offscreen rendering with MuJoCo: one OpenGL context, its release, and supersampled images."""

from types import TracebackType
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.worlds.towers.gl import load_mujoco, open_gl

Image = npt.NDArray[np.uint8]


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
