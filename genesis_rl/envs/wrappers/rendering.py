"""Rendered frames as observations, with a workaround for MuJoCo's OpenGL contexts.

Functions that render raise TypeError for anything but an array of integers, as the range of floats
is unknown.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from genesis_rl.envs.wrappers.frame_source import find_kept, follow

_FONT_SCALE = 150  # of MuJoCo's contexts, in per cent; no text is drawn


def render_frame(env: gym.Env[Any, Any]) -> npt.NDArray[Any]:
    """Render an environment of render_mode "rgb_array".

    Returns:
        (H, W, 3).
    """
    # Closing a MuJoCo environment leaves no OpenGL context current: others of the process then
    # render black frames, without an error.
    viewer = _mujoco_viewer(env)
    if viewer is not None:
        viewer.make_context_current()
    frame = _checked(env.render())
    if viewer is not None and not frame.any():
        # Another environment's buffers were released with this context current, as by garbage
        # collection. Buffers have the same numbers in every context, so these are lost too.
        importlib.import_module("OpenGL.GL").glGetError()  # or MuJoCo reports it in a file
        viewer.con.free()
        viewer.con = type(viewer.con)(viewer.model, _FONT_SCALE)
        viewer._set_mujoco_buffer()
        frame = _checked(env.render())
    return frame


def _mujoco_viewer(env: gym.Env[Any, Any]) -> Any:
    """Return the offscreen viewer of a MuJoCo environment of Gymnasium that has rendered."""
    viewer = getattr(_mujoco_renderer(env), "viewer", None)
    return viewer if hasattr(viewer, "make_context_current") else None


def _mujoco_renderer(env: gym.Env[Any, Any]) -> Any:
    """Return the renderer of a MuJoCo environment of Gymnasium; None for others."""
    inner: Any = env.unwrapped
    for name in ("point_env", "ant_env"):  # within the mazes of gymnasium-robotics
        inner = getattr(inner, name, inner)
    return getattr(inner, "mujoco_renderer", None)


def place_camera(env: gym.Env[Any, Any]) -> None:
    """Render a MuJoCo environment once from a fixed initial state.

    Gymnasium's renderer places a free camera by the state at its first frame. Without this, every
    instance of an environment would have a camera of its own. The next episode is seeded at random.
    """
    if _mujoco_renderer(env) is not None:
        env.reset(seed=0)
        render_frame(env)
        env.reset(seed=int(np.random.SeedSequence().generate_state(1)[0] >> 1))


def render_frames(envs: Any) -> npt.NDArray[Any]:
    """Render the environments of a vector environment of Gymnasium or Stable-Baselines3.

    Returns:
        (N, H, W, 3).
    """
    single = getattr(envs.unwrapped, "envs", None)
    if isinstance(single, list | tuple) and all(isinstance(env, gym.Env) for env in single):
        return np.stack([render_frame(env) for env in single])
    frames = envs.get_images() if hasattr(envs, "get_images") else envs.render()
    return np.stack([_checked(frame) for frame in frames])


def check_render_mode(mode: str | None) -> None:
    """Check the render mode of environments with render=True.

    Raises:
        ValueError: unless it is "rgb_array".
    """
    if mode != "rgb_array":
        raise ValueError(
            f"render_mode must be 'rgb_array' with render=True, got {mode!r}. Use "
            'gym.make(..., render_mode="rgb_array").'
        )


def _checked(frame: Any) -> npt.NDArray[Any]:
    if not isinstance(frame, np.ndarray) or frame.dtype.kind not in "iu":
        got = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise TypeError(
            f"render() must return an (H, W, 3) array of integers in 0..255, got {got}."
        )
    return frame


#: Entry of a Dict observation with the rendered frame.
RENDERED = "rendered_frame"


class RenderedObs(gym.Wrapper[Any, Any, Any, Any]):
    """Replaces observations by rendered frames.

    Like `gymnasium.wrappers.AddRenderObservation` with render_only, but with `render_frame`. With
    ``keep``, the observation is a Dict of the frame, under `RENDERED`, and the kept entries. With
    ``state``, the info contains the environment's own observation as "true_state".
    """

    def __init__(
        self, env: gym.Env[Any, Any], keep: Sequence[str] = (), *, state: bool = False
    ) -> None:
        """Reset and render once, for the size of the frames.

        Args:
            env: environment of render_mode "rgb_array".
            keep: entries of a Dict observation to keep, or their paths in nested Dicts.
            state: add a vector observation, or the concatenated vectors of a Dict, to the info,
                unless it contains "true_state" already.

        Raises:
            ValueError: if it cannot be rendered, or an entry of ``keep`` is missing.
        """
        super().__init__(env)
        self._kept = find_kept(env.observation_space, keep)
        self._state = state and _is_vector(env.observation_space)
        try:
            place_camera(env)
            env.reset()
            shape = render_frame(env).shape
        except Exception as error:  # whatever the environment's renderer raises
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{env} cannot be rendered: {type(error).__name__}: {reason}. Without a display,"
                " MuJoCo needs the environment variable MUJOCO_GL=egl (or osmesa)."
            ) from error
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        if keep:
            entries = {name: follow(env.observation_space, at) for name, at in self._kept.items()}
            self.observation_space = gym.spaces.Dict({RENDERED: self.observation_space, **entries})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset and render."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._rendered(observation), self._with_state(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and render."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = self._with_state(observation, info)
        return self._rendered(observation), reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment, after releasing its buffers in its own OpenGL context."""
        viewer = _mujoco_viewer(self.env)
        if viewer is not None:
            viewer.make_context_current()
            viewer.con.free()
        super().close()

    def _with_state(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if not self._state:
            return info
        vector = gym.spaces.flatten(self.env.observation_space, observation)
        return {"true_state": vector, **info}

    def _rendered(self, observation: Any) -> Any:
        frame = render_frame(self.env)
        if not self._kept:
            return frame
        kept = {name: follow(observation, route) for name, route in self._kept.items()}
        return {RENDERED: frame, **kept}


def _is_vector(space: gym.spaces.Space[Any]) -> bool:
    """Return whether a space is a vector of numbers, or a Dict of vectors."""
    entries = space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]
    return all(isinstance(entry, gym.spaces.Box) and len(entry.shape) == 1 for entry in entries)
