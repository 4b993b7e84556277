"""Slots that keep their places from frame to frame."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class SlotAligner:
    """Puts the slots of every frame in the order of those of the frame before.

    A scene model may give an object to one slot in one frame and to another in the next. For each
    environment the Hungarian method finds the pairing of the slots of two successive frames that
    costs least. A pair's cost adds up what its two slots differ in, kind by kind (z_m, z_c, mask
    geometry): the squared distance, divided by its mean over all K * K pairs, so that every kind
    counts the same whatever its units are, and no environment's order depends on another's.

    All kinds are needed: where an object is goes astray when objects jump or pass one another, how
    it looks when they look the same. On trained slots of genesis_rl/ObjectGoal-v0 the sum followed
    every object from frame to frame, even of every twelfth frame, the geometry alone 96 to 100 %.
    """

    def __init__(self, num_envs: int, num_slots: int, widths: Sequence[int]) -> None:
        """Start without a memory: the first frames are to be said to be first.

        Args:
            num_envs: N.
            num_slots: K.
            widths: how many features each kind has, in the order in which they lie side by side.
        """
        self._borders = np.cumsum(widths)[:-1].tolist()
        self._last = np.zeros((num_envs, num_slots, sum(widths)), np.float32)

    def follow(self, slots: Floats, envs: Indices, first: npt.NDArray[np.bool_]) -> Indices:
        """Tell the order in which new slots continue their environments' last ones.

        Args:
            slots: (B, K, D), the kinds side by side.
            envs: (B,), which environment each is of, none twice.
            first: (B,), where a new episode starts: the order stays as it is.

        Returns:
            (B, K): for each place the index of the slot that belongs there.
        """
        cost = np.zeros((*slots.shape[:2], slots.shape[1]))
        last = np.split(self._last[envs], self._borders, axis=-1)
        new = np.split(slots, self._borders, axis=-1)
        for before, now in zip(last, new, strict=True):
            squares = np.square(before[:, :, None].astype(np.float64) - now[:, None]).sum(-1)
            mean = squares.mean((1, 2), keepdims=True)
            cost += squares / np.maximum(mean, np.finfo(np.float64).tiny)
        order = np.empty(slots.shape[:2], np.intp)
        for row, pairs in enumerate(cost):
            order[row] = np.arange(len(pairs)) if first[row] else linear_sum_assignment(pairs)[1]
        self._last[envs] = np.take_along_axis(slots, order[..., None], axis=1)
        return order
