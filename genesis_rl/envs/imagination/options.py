"""Options of imagined rollouts."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from genesis_rl.data.cache import check_split
from genesis_rl.utils.checks import check_limits

Start = Literal["prior", "data", "mixture"]
DataFrames = Literal["first", "all"]
Ensemble = Literal["head", "mean"]
Termination = Literal["sample", "threshold"]

_CHOICES = {
    "start": Start,
    "data_frames": DataFrames,
    "ensemble": Ensemble,
    "termination": Termination,
}


@dataclass(frozen=True)
class ImaginationOptions:
    """Options of imagined rollouts: initial scenes, noise, termination and truncation."""

    start: Start = "prior"
    """initial scenes: samples of the encoder's prior (prior), recorded frames (data), or both
    (mixture)"""
    prior_share: float = 0.5
    """probability of a sample of the prior in a mixture"""
    data: str | None = None
    """folder of a recording (envs/collect.py), for data and mixture"""
    data_split: str = "train"
    """split of the recording"""
    data_frames: DataFrames = "first"
    """recorded frames: the first of each episode, or all except the last"""
    prior_scenes: int | None = None
    """size of a fixed pool of prior samples, the same for all seeds; None: a new sample per
    episode, whose mask decoding may take longer than the episode"""
    temperature: float = 1.0
    """factor on the prior's standard deviations; lower values give more probable scenes"""
    model_temperature: float = 1.0
    """factor on the world model's standard deviations; policies exploit errors of the model more
    easily at low temperatures"""
    ensemble: Ensemble = "head"
    """predictions of one head of the ensemble, sampled per episode, or of their mean"""
    termination: Termination = "sample"
    """sample the termination, or terminate at a probability above 0.5"""
    horizon: int = 100
    """steps after which an episode is truncated"""
    max_uncertainty: float | None = None
    """uncertainty of the world model above which an episode is truncated"""
    uncertainty_penalty: float = 0.0
    """factor on the uncertainty that is subtracted from the reward"""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                options = ", ".join(get_args(kind))
                raise ValueError(f"{name} must be one of {options}, got {getattr(self, name)!r}.")
        for name in ("temperature", "model_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and > 0, got {getattr(self, name)}.")
        check_limits(self)
        for name in ("horizon", "prior_scenes"):
            value = getattr(self, name)
            if value is None and name == "prior_scenes":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")
        if not 0 <= self.prior_share <= 1:
            raise ValueError(f"prior_share must be in [0, 1], got {self.prior_share}.")
        if self.max_uncertainty is not None and not self.max_uncertainty > 0:
            raise ValueError(f"max_uncertainty must be > 0, got {self.max_uncertainty}.")
        if not 0 <= self.uncertainty_penalty < math.inf:
            raise ValueError(
                f"uncertainty_penalty must be finite and >= 0, got {self.uncertainty_penalty}."
            )
        check_split(self.data_split)
        if (self.start == "prior") != (self.data is None):
            expected = "None" if self.start == "prior" else "a recording"
            raise ValueError(f"data must be {expected} for start {self.start!r}, got {self.data}.")
