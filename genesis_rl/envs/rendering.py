"""Rendered frames as observations, with a workaround for MuJoCo's OpenGL contexts."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt


def render_frame(env: gym.Env[Any, Any]) -> npt.NDArray[Any]:
    """Render an environment of render_mode "rgb_array".

    Returns:
        (H, W, 3).

    Raises:
        TypeError: if it renders anything but an integer array (the range of floats is unknown).
    """
    # Closing a MuJoCo environment leaves no OpenGL context current: others of the process then
    # render black frames, without an error.
    inner: Any = env.unwrapped
    for name in ("point_env", "ant_env"):  # within the mazes of gymnasium-robotics
        inner = getattr(inner, name, inner)
    viewer: Any = getattr(getattr(inner, "mujoco_renderer", None), "viewer", None)
    if hasattr(viewer, "make_context_current"):
        viewer.make_context_current()
    frame = env.render()
    if not isinstance(frame, np.ndarray) or frame.dtype.kind not in "iu":
        got = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise TypeError(
            f"render() must return an (H, W, 3) array of integers in 0..255, got {got}."
        )
    return frame


class RenderedObs(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces observations by rendered frames.

    Like `gymnasium.wrappers.AddRenderObservation` with render_only, but with `render_frame`.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Reset and render once, for the size of the frames.

        Raises:
            ValueError: if it cannot be rendered.
        """
        super().__init__(env)
        try:
            shape = self.reset()[0].shape
        except Exception as error:  # whatever the environment's renderer raises
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{env} cannot be rendered: {type(error).__name__}: {reason}. Without a display,"
                " MuJoCo needs the environment variable MUJOCO_GL=egl (or osmesa)."
            ) from error
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Reset and render."""
        _, info = self.env.reset(seed=seed, options=options)
        return render_frame(self.env), info

    def step(self, action: Any) -> tuple[npt.NDArray[Any], Any, bool, bool, dict[str, Any]]:
        """Step and render."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return render_frame(self.env), reward, terminated, truncated, info
