"""Alignment of slots across frames."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

#: Least share of the image's area of a slot that shows an object: two pixels of 64 x 64. Masks of
#: slots without an object add up to about one.
LEAST_AREA = 5e-4
# Cost of a slot whose object is hidden, or appears, in mean squared distances of a kind.
_HIDDEN = 0.5

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class SlotAligner:
    """Matcher of the slots of each frame to those of the previous frame of its environment.

    A scene model may assign an object to different slots in successive frames. For each
    environment, the Hungarian method finds the assignment of minimum cost between two successive
    frames. The cost of a pair of slots is the sum, over the kinds of features (z_m, z_c, mask
    geometry), of the squared distance divided by its mean over all pairs. All kinds therefore have
    equal weight, and environments are independent of each other. Only slots with an object are
    compared; a pair with one object has a constant cost, a pair without objects none. A slot whose
    object is hidden remembers the last frame that showed it, so that the object returns to it.

    All kinds are needed: positions are ambiguous when objects jump or pass one another, appearances
    when objects are identical. On trained slots of genesis_rl/ObjectGoal-v0, the sum tracked all
    objects, even when only every twelfth frame was used; the geometry alone tracked 96 to 100 %.
    """

    def __init__(self, num_envs: int, num_slots: int, widths: Sequence[int]) -> None:
        """Initialise without previous frames; ``first`` must be True for the first frames.

        Args:
            num_envs: number of environments N.
            num_slots: number of slots K.
            widths: number of features of each kind, in the order of their concatenation.
        """
        self._borders = np.cumsum(widths)[:-1].tolist()
        self._last = np.zeros((num_envs, num_slots, sum(widths)), np.float32)
        self._known = np.zeros((num_envs, num_slots), np.bool_)  # has shown an object

    def follow(
        self,
        slots: Floats,
        envs: Indices,
        first: npt.NDArray[np.bool_],
        present: npt.NDArray[np.bool_] | None = None,
    ) -> Indices:
        """Return the order of new slots that matches the previous frame of their environments.

        Args:
            slots: (B, K, D), the kinds concatenated.
            envs: (B,), indices of the environments, without duplicates.
            first: (B,), whether a new episode starts; the order is then unchanged.
            present: (B, K), whether a slot shows an object; None: all do.

        Returns:
            (B, K): for each position, the index of the matching slot.
        """
        shown = np.ones(slots.shape[:2], np.bool_) if present is None else present
        known = self._known[envs]
        pairs = known[:, :, None] & shown[:, None]
        count = np.maximum(pairs.sum((1, 2), keepdims=True), 1)
        cost = np.zeros(pairs.shape)
        previous = np.split(self._last[envs], self._borders, axis=-1)
        current = np.split(slots, self._borders, axis=-1)
        for old, new in zip(previous, current, strict=True):
            squares = np.square(old[:, :, None].astype(np.float64) - new[:, None]).sum(-1) * pairs
            mean = squares.sum((1, 2), keepdims=True) / count
            cost += squares / np.maximum(mean, np.finfo(np.float64).tiny)
        cost[known[:, :, None] ^ shown[:, None]] = _HIDDEN
        orders = np.empty(slots.shape[:2], np.intp)
        for row, costs in enumerate(cost):
            orders[row] = np.arange(len(costs)) if first[row] else linear_sum_assignment(costs)[1]
        shown = np.take_along_axis(shown, orders, axis=1)
        followed = np.take_along_axis(slots, orders[..., None], axis=1)
        update = shown | first[:, None]
        self._last[envs] = np.where(update[..., None], followed, self._last[envs])
        self._known[envs] = np.where(first[:, None], shown, known | shown)
        return orders
