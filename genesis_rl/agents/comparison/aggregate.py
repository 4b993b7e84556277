"""Scores of many runs as one number with an interval (Agarwal et al., NeurIPS 2021).

With a handful of seeds a mean hangs on single lucky runs and a median throws most of them away.
The interquartile mean is the mean of the middle half of all runs of all tasks; its interval comes
from drawing the runs of each task anew, with replacement (a stratified bootstrap). Both are as the
library rliable defines them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import trim_mean

Scores = Sequence[npt.ArrayLike]
# How many drawn score sets are held in memory at once.
_BLOCK = 4096


def iqm(scores: Scores) -> float:
    """The interquartile mean over all runs of all tasks.

    Args:
        scores: for each task the scores of its runs, (runs,); their numbers may differ.

    Raises:
        ValueError: if a task has no runs, or there is no task.
    """
    return float(trim_mean(np.concatenate(_check(scores)), 0.25))


def bootstrap_interval(
    scores: Scores, *, reps: int = 50_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of `iqm` under a bootstrap that is stratified by task.

    Args:
        scores: for each task the scores of its runs, (runs,). A single run for each task makes an
            interval of no width: nothing is known of how runs differ.
        reps: how often the runs are drawn.
        confidence: share of the draws inside.
        seed: of the draws.

    Raises:
        ValueError: if a task has no runs, there is no task, or an argument is out of range.
    """
    if reps < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"reps is {reps} and confidence {confidence}; wanted reps >= 1 and 0 < confidence < 1."
        )
    tasks, rng, means = _check(scores), np.random.default_rng(seed), []
    for start in range(0, reps, _BLOCK):
        size = min(_BLOCK, reps - start)
        drawn = [task[rng.integers(len(task), size=(size, len(task)))] for task in tasks]
        means.append(trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _check(scores: Scores) -> list[npt.NDArray[np.float64]]:
    tasks = [np.asarray(task, np.float64) for task in scores]
    if not tasks or any(task.ndim != 1 or not len(task) for task in tasks):
        shapes = [task.shape for task in tasks]
        raise ValueError(f"scores has the shapes {shapes}; wanted (runs,), runs >= 1, per task.")
    return tasks
