"""Base environment with the render modes "rgb_array" and "human" (an OpenCV window)."""

from typing import Any, ClassVar, Literal, TypeVar, get_args

import cv2
import gymnasium as gym
import numpy as np
import numpy.typing as npt

ActType = TypeVar("ActType")

Observation = npt.NDArray[Any]
Frame = npt.NDArray[np.uint8]
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

    A subclass samples a scene in `_start`, describes it in `_info` and `_state`, draws it in `draw`
    and `draw_labelled`, and defines `render_fps` in its metadata. Its `step` changes the scene and
    returns what `_observe` returns.
    """

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES}  # noqa: RUF012 (as gym.Env has it)

    #: Valid values of `observation`.
    OBSERVATIONS: ClassVar[tuple[str, ...]] = get_args(ObservationKind)

    def __init__(
        self,
        *,
        image_size: int,
        observation: str,
        state_in_info: bool,
        masks_in_info: bool,
        render_mode: str | None,
        render_size: int,
    ) -> None:
        """Validate and store the options.

        Args:
            image_size: side of the observed frames in pixels.
            observation: one of `OBSERVATIONS`; "image", or "state" for the ground truth.
            state_in_info: add the ground-truth state as `info["true_state"]`.
            masks_in_info: add the instance masks as `info["true_masks"]`.
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
        self.image_size = image_size
        self.observation = observation
        self.state_in_info = state_in_info
        self.masks_in_info = masks_in_info
        self.render_mode = render_mode
        self.render_size = render_size
        self._window: str | None = None
        self._renderers: dict[int, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seed of the random generator, as in Gymnasium.
            options: not used.

        Returns:
            The observation and the info.

        Raises:
            ValueError: if no scene with these options can be sampled, or a texture is unreadable.
            RuntimeError: if frames are rendered without OpenGL; the message lists packages.
        """
        super().reset(seed=seed, options=options)
        self._start()
        return self._observe()

    def _start(self) -> None:
        """Sample the scene of an episode by `np_random`."""
        raise NotImplementedError

    def _info(self) -> dict[str, Any]:
        """Return the info of the current scene, without state and masks."""
        raise NotImplementedError

    def _state(self) -> npt.NDArray[np.float32]:
        """Return the ground-truth state of the current scene."""
        raise NotImplementedError

    def _observe(self) -> tuple[Any, dict[str, Any]]:
        """Return observation and info of the current scene; show it in mode "human"."""
        if self.render_mode == "human":
            self.render()
        info, frame = self._info(), None
        if self.state_in_info:
            info["true_state"] = self._state()
        if self.masks_in_info:
            frame, info["true_masks"] = self.draw_labelled(self.image_size)
        if self.observation == "state":
            return self._state(), info
        return (self.draw(self.image_size) if frame is None else frame), info

    def make_renderer(self, size: int) -> Any:
        """Create a renderer of (size, size) frames with a method `close`, if `draw` needs one."""
        raise NotImplementedError

    def renderer(self, size: int) -> Any:
        """Return the renderer of (size, size) frames, which is created once."""
        if size not in self._renderers:
            self._renderers[size] = self.make_renderer(size)
        return self._renderers[size]

    def draw(self, size: int) -> Frame:
        """Render the current scene: (size, size, 3) uint8."""
        raise NotImplementedError

    def draw_labelled(self, size: int) -> tuple[Frame, Frame]:
        """Render the current scene and its instance masks: also (size, size) uint8."""
        raise NotImplementedError

    def render(self) -> Frame | None:
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
