"""Batched rendering of sprite scenes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from genesis_rl.worlds.sprites.drawing import Sprite, render, stamp
from genesis_rl.worlds.sprites.scenes import Scene, get_agent

_MARGIN = 3  # largest extent of a sprite beyond the frame, in pixels


class BatchRenderer:
    """Renderer of the scenes of many environments, equal to `drawing.render`.

    The frame without the agent is cached until the objects of a scene change, so most calls draw
    the agents alone, in one vectorised operation.
    """

    def __init__(self, num_scenes: int, size: int) -> None:
        """Allocate the frames.

        Args:
            num_scenes: number of cached scenes.
            size: side of the frames in pixels.
        """
        side = size + 2 * _MARGIN
        self._canvases = np.empty((num_scenes, side, side, 3), np.uint8)
        self._inside = slice(_MARGIN, -_MARGIN)
        self._cached: list[list[Sprite] | None] = [None] * num_scenes
        self._size = size

    def draw(self, scenes: Sequence[Scene], indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Render scenes whose agents share one scale and are inside the frame.

        Args:
            scenes: n scenes.
            indices: cache index of each scene, in 0..num_scenes - 1.

        Returns:
            (n, size, size, 3) uint8, a new array.
        """
        for i, scene in zip(indices, scenes, strict=True):
            # Lists of objects are never modified in place, so identity implies equality.
            if self._cached[i] is not scene.objects:
                static = scene._replace(agent=None).sprites
                image = self._canvases[i, self._inside, self._inside]
                render(static, self._size, scene.background, image=image)
                self._cached[i] = scene.objects
        agents = [get_agent(scene) for scene in scenes]
        stamps = [stamp(agent, self._size) for agent in agents]
        alpha = np.stack([sprite.alpha for sprite in stamps])
        corners = np.array([(sprite.top, sprite.left) for sprite in stamps]) + _MARGIN
        windows = sliding_window_view(
            self._canvases, alpha.shape[1:3], axis=(1, 2), writeable=True
        ).transpose(0, 1, 2, 4, 5, 3)
        places = (np.asarray(indices), corners[:, 0], corners[:, 1])
        background = windows[places]
        colours = np.array([agent.colour for agent in agents], np.float32)
        blend = colours[:, None, None] - background
        blend *= alpha
        blend += background
        blend += 0.5  # round: the assignment to uint8 truncates
        windows[places] = blend
        frames = self._canvases[indices, self._inside, self._inside]
        windows[places] = background
        return frames
