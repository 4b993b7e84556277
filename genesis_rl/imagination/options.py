"""How scenes are dreamt."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from genesis_rl.checks import check_limits
from genesis_rl.data.cache import check_split

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
class DreamOptions:
    """How dreams start, go on and end."""

    start: Start = "prior"
    """where episodes start: in novel scenes from the model's prior, in recorded ones (data), or in
    either (mixture)"""
    prior_share: float = 0.5
    """probability of a start from the prior in a mixture"""
    data: str | None = None
    """folder of a recording by envs/collect.py, for data and mixture"""
    data_split: str = "train"
    """split of the recording"""
    data_frames: DataFrames = "first"
    """start from the first frames of its episodes, or from all that a step follows"""
    prior_scenes: int | None = None
    """start in one of so many scenes from the prior, drawn once and the same for all seeds, not in
    a novel one each time: decoding a novel scene's masks may take longer than its episode"""
    temperature: float = 1.0
    """factor on the prior's standard deviations; lower draws more usual scenes"""
    model_temperature: float = 1.0
    """factor on the world model's; a dream of little noise is exploited more easily"""
    ensemble: Ensemble = "head"
    """each episode follows one head of the ensemble, drawn at its start, or their mean"""
    termination: Termination = "sample"
    """draw the episode's end from its probability, or end where that is above one half"""
    horizon: int = 100
    """steps after which an episode is cut"""
    max_uncertainty: float | None = None
    """cut an episode where the world model's uncertainty is above this"""
    uncertainty_penalty: float = 0.0
    """what a unit of uncertainty takes from the reward"""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; wanted {get_args(kind)}.")
        for name in ("temperature", "model_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; wanted a value > 0 that is finite."
                )
        check_limits(self)
        for name in ("horizon", "prior_scenes"):
            value = getattr(self, name)
            if value is None and name == "prior_scenes":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; wanted a whole number of at least 1.")
        if not 0 <= self.prior_share <= 1:
            raise ValueError(f"prior_share is {self.prior_share}; wanted a value in [0, 1].")
        if self.max_uncertainty is not None and not self.max_uncertainty > 0:
            raise ValueError(f"max_uncertainty is {self.max_uncertainty}; wanted a value > 0.")
        if not 0 <= self.uncertainty_penalty < math.inf:
            raise ValueError(
                f"uncertainty_penalty is {self.uncertainty_penalty}; wanted a value >= 0 that is "
                "finite."
            )
        check_split(self.data_split)
        if (self.start == "prior") != (self.data is None):
            raise ValueError(
                f"start is {self.start!r} with data {self.data!r}; wanted a recording with 'data'"
                " and 'mixture', and none with 'prior'."
            )
