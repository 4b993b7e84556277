"""Draw many scenes at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from genesis_rl.sprites import Sprite, render, stamp
from genesis_rl.worlds.scenes import Scene, agent_of

_MARGIN = 3  # pixels by which the stamp of a sprite inside the frame may reach out of it, at most


class BatchRenderer:
    """Draws the scenes of many environments, to the same pixels as `genesis_rl.sprites.render`.

    The frame without the agent is kept until a scene's objects change, so that mostly only the
    agents have to be drawn, and those all at once.
    """

    def __init__(self, num_scenes: int, size: int) -> None:
        """Make room.

        Args:
            num_scenes: how many scenes to keep.
            size: side of the frames in pixels.
        """
        side = size + 2 * _MARGIN
        self._canvases = np.empty((num_scenes, side, side, 3), np.uint8)
        self._inside = slice(_MARGIN, -_MARGIN)
        self._shown: list[list[Sprite] | None] = [None] * num_scenes
        self._size = size

    def draw(self, scenes: Sequence[Scene], indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Draw scenes whose agents have one scale and are inside the frame.

        Args:
            scenes: n scenes.
            indices: the place of each among those that are kept, in 0..num_scenes - 1.

        Returns:
            (n, size, size, 3) uint8, a new array.
        """
        for i, scene in zip(indices, scenes, strict=True):
            # A scene's lists never change, so the same list shows the same objects.
            if self._shown[i] is not scene.objects:
                still = scene._replace(agent=None).sprites
                image = self._canvases[i, self._inside, self._inside]
                render(still, self._size, scene.background, image=image)
                self._shown[i] = scene.objects
        agents = [agent_of(scene) for scene in scenes]
        stamps = [stamp(agent, self._size) for agent in agents]
        alpha = np.stack([one.alpha for one in stamps])
        corners = np.array([(one.top, one.left) for one in stamps]) + _MARGIN
        windows = sliding_window_view(
            self._canvases, alpha.shape[1:3], axis=(1, 2), writeable=True
        ).transpose(0, 1, 2, 4, 5, 3)
        places = (np.asarray(indices), corners[:, 0], corners[:, 1])
        below = windows[places]
        colours = np.array([agent.colour for agent in agents], np.float32)
        blend = colours[:, None, None] - below
        blend *= alpha
        blend += below
        blend += 0.5  # the assignment truncates
        windows[places] = blend
        frames = self._canvases[indices, self._inside, self._inside]
        windows[places] = below
        return frames
