"""Options of imagined rollouts."""

from dataclasses import dataclass
from typing import Literal

from genesis_rl.data.cache import Split
from genesis_rl.utils.checks import Count, NonNegative, Positive, Share, check_fields

Start = Literal["prior", "data", "mixture"]
DataFrames = Literal["first", "all"]
Ensemble = Literal["head", "mean"]
Termination = Literal["sample", "threshold"]


@dataclass(frozen=True)
class ImaginationOptions:
    """Options of imagined rollouts: initial scenes, noise, termination and truncation."""

    start: Start = "prior"
    """initial scenes: samples of the encoder's prior (prior), recorded frames (data), or both
    (mixture)"""
    prior_share: Share = 0.5
    """probability of a sample of the prior in a mixture"""
    data: str | None = None
    """folder of a recording (envs/collect.py), for data and mixture"""
    data_split: Split = "train"
    """split of the recording"""
    data_frames: DataFrames = "first"
    """recorded frames: the first of each episode, or all except the last"""
    prior_scenes: Count | None = None
    """size of a fixed pool of prior samples, the same for all seeds; None: a new sample per
    episode, whose mask decoding may take longer than the episode"""
    temperature: Positive = 1.0
    """factor on the prior's standard deviations; lower values give more probable scenes"""
    model_temperature: Positive = 1.0
    """factor on the world model's standard deviations; policies exploit errors of the model more
    easily at low temperatures"""
    ensemble: Ensemble = "head"
    """predictions of one head of the ensemble, sampled per episode, or of their mean"""
    termination: Termination = "sample"
    """sample the termination, or terminate at a probability above 0.5"""
    horizon: Count = 100
    """steps after which an episode is truncated"""
    max_uncertainty: Positive | None = None
    """uncertainty of the world model above which an episode is truncated"""
    uncertainty_penalty: NonNegative = 0.0
    """factor on the uncertainty that is subtracted from the reward"""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if (self.start == "prior") != (self.data is None):
            expected = "None" if self.start == "prior" else "a recording"
            raise ValueError(f"data must be {expected} for start {self.start!r}, got {self.data}.")
