"""Base environment with the render modes "rgb_array" and "human" (an OpenCV window)."""

from typing import Any, ClassVar, Literal, TypeVar, get_args

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt

ActType = TypeVar("ActType")

Observation = npt.NDArray[Any]
ObservationKind = Literal["image", "state"]


def has_window() -> bool:
    """Return whether the installed OpenCV was built with a window toolkit."""
    lines = [line.split() for line in cv2.getBuildInformation().splitlines()]
    return any(words[0] == "GUI:" and words[1:] != ["NONE"] for words in lines if words)


#: Valid values of `render_mode`, besides None.
RENDER_MODES = ["rgb_array", *(["human"] if has_window() else [])]


def check_sizes(least: int, **sizes: Any) -> None:
    """Check the sides of frames in pixels, by the names of the arguments.

    Raises:
        ValueError: unless all are integers from `least` to 1024.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or not least <= size <= 1024:
            raise ValueError(f"{name} must be an integer in {least}..1024, got {size!r}.")


class WindowEnv(gym.Env[Any, ActType]):
    """Base of environments with image or state observations and their own renderer.

    A subclass overrides `draw`, defines `render_fps` in its metadata, and calls `render` after
    each reset and step if the render mode is "human".
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES}  # noqa: RUF012 (as gym.Env has it)

    #: Valid values of `observation`.
    OBSERVATIONS: ClassVar[tuple[str, ...]] = get_args(ObservationKind)

    def __init__(self, *, observation: str, render_mode: str | None, render_size: int) -> None:
        """Validate and store the options.

        Args:
            observation: one of `OBSERVATIONS`; "image", or "state" for the ground truth.
            render_mode: "rgb_array", "human" (needs an OpenCV with windows) or None.
            render_size: side of the rendered frame in pixels.

        Raises:
            ValueError: for an unknown observation, or an unavailable render mode.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            hint = (
                " The installed OpenCV has no windows (opencv-python-headless): install"
                " opencv-python instead, or use 'rgb_array'."
                if render_mode == "human"
                else ""
            )
            raise ValueError(
                f"render_mode must be one of {', '.join(self.metadata['render_modes'])} or None,"
                f" got {render_mode!r}.{hint}"
            )
        if observation not in self.OBSERVATIONS:
            raise ValueError(
                f"observation must be one of {', '.join(self.OBSERVATIONS)}, got {observation!r}."
            )
        self.observation = observation
        self.render_mode = render_mode
        self.render_size = render_size
        self._window: str | None = None
        self._renderers: dict[int, Any] = {}

    def make_renderer(self, size: int) -> Any:
        """Create a renderer of (size, size) frames with a method `close`, if `draw` needs one."""
        raise NotImplementedError

    def renderer(self, size: int) -> Any:
        """Return the renderer of (size, size) frames, which is created once."""
        if size not in self._renderers:
            self._renderers[size] = self.make_renderer(size)
        return self._renderers[size]

    def draw(self, size: int) -> npt.NDArray[np.uint8]:
        """Render the current scene: (size, size, 3) uint8."""
        raise NotImplementedError

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Render the scene at `render_size`, to an array or, in mode "human", to a window."""
        if self.render_mode is None:
            gym.logger.warn("render() returns None without render_mode='rgb_array'")
            return None
        frame = self.draw(self.render_size)
        if self.render_mode == "rgb_array":
            return frame
        self._window = f"{type(self).__name__} {id(self)}"
        cv2.imshow(self._window, frame[..., ::-1])
        cv2.waitKey(1000 // int(self.metadata["render_fps"]))
        return None

    def close(self) -> None:
        """Close the renderers and the window, if there are any."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers = {}
        if self._window is not None:
            cv2.destroyWindow(self._window)
            self._window = None
