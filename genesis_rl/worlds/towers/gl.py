"""Import of MuJoCo, and offscreen OpenGL contexts for it."""

import importlib
import os
from typing import Any

from genesis_rl.utils.process import choose_opengl

_ADVICE = (
    "no OpenGL context could be created (MUJOCO_GL={backend}: {error}). Without a GPU driver,"
    " install Mesa: `apt-get install libegl1 libgl1-mesa-dri` for MUJOCO_GL=egl,"
    " `apt-get install libosmesa6` for MUJOCO_GL=osmesa."
)

_opened_in: int | None = None  # the process in which OpenGL was first used


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
        raise
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
