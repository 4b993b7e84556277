"""MuJoCo, and an OpenGL context for it without a screen."""

import importlib
import os
import sys
from typing import Any

_ADVICE = (
    "no OpenGL context could be made (MUJOCO_GL={backend}: {error}). Without a GPU's driver,"
    " install Mesa's: `apt-get install libegl1 libgl1-mesa-dri` gives MUJOCO_GL=egl,"
    " `apt-get install libosmesa6` gives MUJOCO_GL=osmesa"
)

_opened_in: int | None = None  # the process in which OpenGL was first used


def load_mujoco() -> Any:
    """Import MuJoCo, also where there is no OpenGL library: simulating needs none.

    The environment variable MUJOCO_GL says which one MuJoCo takes, and where it names one that is
    missing, importing fails, with an error that does not say why. Where it is not set and there is
    no screen, it is set to "egl".

    Returns:
        The module.
    """
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not screen:
        os.environ.setdefault("MUJOCO_GL", "egl")
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
    """Make an OpenGL context, make it current, and load a model's textures into it.

    Args:
        model: the `mujoco.MjModel`; its `vis` says the size of the offscreen buffer.

    Returns:
        The OpenGL context and the `mujoco.MjrContext`, to be freed in the other order.

    Raises:
        RuntimeError: if there is no OpenGL library or driver; the message names the packages. Also
            in a process forked from one that has used OpenGL, where drivers would wait forever.
    """
    global _opened_in
    if _opened_in not in (None, os.getpid()):
        raise RuntimeError(
            "this process was forked from one that has used OpenGL, which drivers do not survive:"
            " start processes by 'spawn' or 'forkserver', for example"
            " gym.make_vec(..., vector_kwargs={'context': 'spawn'})"
        )
    mujoco = load_mujoco()
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        # Another part of the program may have imported MuJoCo before the choice was made.
        home = importlib.import_module("mujoco.egl") if backend.lower() == "egl" else mujoco
        context = home.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
        context.make_current()
        _opened_in = os.getpid()
        return context, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except Exception as error:
        raise RuntimeError(_ADVICE.format(backend=backend or "unset", error=error)) from error


def require_gl() -> None:
    """Check that scenes can be rendered here.

    Raises:
        RuntimeError: if there is no OpenGL library or driver; the message names the packages.
    """
    model: Any = load_mujoco().MjModel.from_xml_string("<mujoco/>")
    context, renderer = open_gl(model)
    renderer.free()
    context.free()
