"""Interquartile mean of many runs and its confidence interval (Agarwal et al., NeurIPS 2021).

With few seeds a mean is sensitive to single runs, and a median discards most of them. The
interquartile mean is the mean of the middle half of all runs of all tasks; its interval is that of
a bootstrap stratified by task. Both are defined as in the library rliable.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import trim_mean

Scores = Sequence[npt.ArrayLike]
# Bootstrap samples in memory at once.
_BLOCK = 4096


def iqm(scores: Scores) -> float:
    """Return the interquartile mean over all runs of all tasks.

    Args:
        scores: per task, the scores of its runs, (runs,); numbers of runs may differ.

    Raises:
        ValueError: if there is no task, or a task has no runs.
    """
    return float(trim_mean(np.concatenate(_check(scores)), 0.25))


def bootstrap_interval(
    scores: Scores, *, reps: int = 50_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of `iqm` under a bootstrap stratified by task.

    Args:
        scores: per task, the scores of its runs, (runs,). With a single run per task the interval
            has no width.
        reps: bootstrap samples.
        confidence: level of the interval, in (0, 1).
        seed: seed of the bootstrap.

    Raises:
        ValueError: if there is no task, a task has no runs, or an argument is out of range.
    """
    if reps < 1:
        raise ValueError(f"reps must be at least 1, got {reps}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
    tasks, rng, means = _check(scores), np.random.default_rng(seed), []
    for start in range(0, reps, _BLOCK):
        size = min(_BLOCK, reps - start)
        resampled = [task[rng.integers(len(task), size=(size, len(task)))] for task in tasks]
        means.append(trim_mean(np.concatenate(resampled, axis=1), 0.25, axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _check(scores: Scores) -> list[npt.NDArray[np.float64]]:
    tasks = [np.asarray(task, np.float64) for task in scores]
    if not tasks or any(task.ndim != 1 or not len(task) for task in tasks):
        shapes = [task.shape for task in tasks]
        raise ValueError(f"scores must have shape (runs,) with runs >= 1 per task, got {shapes}.")
    return tasks
