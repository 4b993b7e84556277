"""An OpenGL context for MuJoCo without a screen."""

import os
import sys
from typing import Any

_ADVICE = (
    "no OpenGL context could be made (MUJOCO_GL={backend}: {error}). Without a GPU's driver,"
    " install Mesa's: `apt-get install libegl1 libgl1-mesa-dri` gives MUJOCO_GL=egl, `libosmesa6`"
    " MUJOCO_GL=osmesa"
)


def gl_context(width: int, height: int) -> Any:
    """Make an OpenGL context and make it current.

    The environment variable MUJOCO_GL decides which; where it is not set and there is no screen,
    it is set to "egl".

    Returns:
        The context; its `free()` releases it.

    Raises:
        RuntimeError: if there is no OpenGL library or driver; the message names the packages.
    """
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    chosen = "MUJOCO_GL" not in os.environ and sys.platform.startswith("linux") and not screen
    if chosen:
        os.environ["MUJOCO_GL"] = "egl"  # MuJoCo's library reads it too
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        if backend.lower() == "egl":  # MuJoCo may have been imported before the choice was made
            from mujoco.egl import GLContext
        else:
            from mujoco import GLContext
        context = GLContext(width, height)
        context.make_current()
    except Exception as error:  # PyOpenGL raises anything from AttributeError to GLError
        if chosen:
            del os.environ["MUJOCO_GL"]
        raise RuntimeError(_ADVICE.format(backend=backend or "unset", error=error)) from error
    return context


def require_gl() -> None:
    """Check that scenes can be rendered here.

    Raises:
        RuntimeError: if there is no OpenGL library or driver; the message names the packages.
    """
    gl_context(16, 16).free()
