"""Environments that draw their frames themselves: render modes, and the window of "human"."""

from typing import Any, Literal, TypeVar, get_args

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt

ActType = TypeVar("ActType")

Observation = npt.NDArray[Any]
ObservationKind = Literal["image", "state"]


def has_window() -> bool:
    """Tell whether this OpenCV was built with a window toolkit."""
    lines = [line.split() for line in cv2.getBuildInformation().splitlines()]
    return any(words[0] == "GUI:" and words[1:] != ["NONE"] for words in lines if words)


#: What `render_mode` may be here, beside None.
RENDER_MODES = ["rgb_array", *(["human"] if has_window() else [])]


class WindowEnv(gym.Env[Observation, ActType]):
    """Base of environments that observe a picture or a state, and show what they draw.

    A subclass overrides `draw`, names `render_fps` in its metadata, and calls `render` after each
    reset and step if the mode is "human".
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES}  # noqa: RUF012 (as gym.Env has it)

    def __init__(
        self, *, observation: ObservationKind, render_mode: str | None, render_size: int
    ) -> None:
        """Take the options that such environments share.

        Args:
            observation: "image", or "state" for the ground truth.
            render_mode: "rgb_array", "human" (a window, if OpenCV has one) or None.
            render_size: side of the rendered frame in pixels.

        Raises:
            ValueError: for an unknown observation, or a mode that is not available.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            hint = (
                ": this OpenCV is built without windows (opencv-python-headless); install"
                " opencv-python in its place, or use 'rgb_array'"
                if render_mode == "human"
                else f": use one of {', '.join(self.metadata['render_modes'])} or None"
            )
            raise ValueError(f"render_mode {render_mode!r} is not available{hint}")
        if observation not in get_args(ObservationKind):
            raise ValueError(f"observation must be 'image' or 'state', got {observation!r}")
        self.observation = observation
        self.render_mode = render_mode
        self.render_size = render_size
        self._window: str | None = None

    def draw(self, size: int) -> npt.NDArray[np.uint8]:
        """Draw the current scene: (size, size, 3) uint8."""
        raise NotImplementedError

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the scene at `render_size`: returned, or shown in a window."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing: pass render_mode='rgb_array' to gym.make")
            return None
        frame = self.draw(self.render_size)
        if self.render_mode == "rgb_array":
            return frame
        self._window = f"{type(self).__name__} {id(self)}"
        cv2.imshow(self._window, frame[..., ::-1])
        cv2.waitKey(1000 // int(self.metadata["render_fps"]))
        return None

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._window is not None:
            cv2.destroyWindow(self._window)
            self._window = None
