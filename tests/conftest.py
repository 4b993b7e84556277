"""Small scene models, OpenGL and the robot's meshes, for all tests."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from genesis_rl.models import MODELS, build_model
from genesis_rl.worlds.offscreen import require_gl
from genesis_rl.worlds.tabletop import find_assets

# Parts for compact objects.
COMPACT = {
    "posterior": "attention",
    "mask_decoder": "local",
    "component_decoder": "shaded",
    "mixture": "pixel",
    "sigma_x": 0.12,
    "component_latent_size": 4,
}
SIZES = {
    "image_size": 32,
    "num_slots": 3,
    "mask_latent_size": 7,
    "component_latent_size": 2,
    "latent_size": 2,
    "num_iterations": 2,
    "kernel_size": 3,
}


def make_config(name: str = "genesis", *, compact: bool = False, **changes: Any) -> Any:
    """Return the config of a model of MODELS with few channels and the sizes above.

    Args:
        compact: with the parts for compact objects, of GENESIS only.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(MODELS[name][0])}
    sizes: dict[str, Any] = {}
    for field, default in defaults.items():
        if isinstance(default, tuple):
            sizes[field] = (4,) * len(default)
        elif field in SIZES or (type(default) is int and default > 8):
            sizes[field] = SIZES.get(field, 8)
        if compact and field in COMPACT:
            sizes[field] = COMPACT[field]
    return MODELS[name][0](**(sizes | changes))


def make_model(
    name: str = "genesis", *, seed: int = 0, gain: float = 1, updates: int = 0, **changes: Any
) -> Any:
    """Build a model of `make_config`, in eval mode.

    Args:
        seed: of the initial weights.
        gain: factor of all weights; above 1 the slots depend clearly on the frame.
        updates: passes on random images that update batch norm's running averages.
    """
    torch.manual_seed(seed)
    model = build_model(make_config(name, **changes))
    size = model.config.image_size
    with torch.no_grad():
        for parameter in model.parameters():
            if gain != 1 and parameter.ndim > 1:
                parameter.mul_(gain)
        for _ in range(updates):
            model.elbo(torch.rand(4, 3, size, size))
    return model.eval()


@pytest.fixture(scope="session")
def small_config() -> Callable[..., Any]:
    """Make configs of small models: `make_config`."""
    return make_config


@pytest.fixture(scope="session")
def small_model() -> Callable[..., Any]:
    """Build small models: `make_model`."""
    return make_model


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skip if no OpenGL context can be made; the reason lists the packages to install."""
    try:
        require_gl()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def robot() -> None:
    """Skip if the meshes of the Fetch robot are not installed."""
    try:
        find_assets()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def run_without_opengl() -> Callable[[str], list[str]]:
    """Return a function that runs code in an interpreter without OpenGL: the lines it prints."""

    def run(code: str) -> list[str]:
        vendors = {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **vendors},
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.strip().splitlines()

    return run
