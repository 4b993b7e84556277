"""Settings of a probing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genesis_rl.checks import check_integers
from genesis_rl.probes.heads import MlpConfig
from genesis_rl.probes.scenes import TASKS

_CHOICES = {"which": ("best", "last"), "task": (None, "scenes", "properties")}


@dataclass(frozen=True)
class ProbeConfig:
    """Which models to probe for what; defaults are the paper's (appendix B.5)."""

    runs: tuple[str, ...]
    """runs of pretrain/train.py, folders of saved models, or models' ids on the Hub"""
    task: Literal["scenes", "properties"] | None = None
    """what is asked: of whole scenes the tasks of ShapeStacks; of single slots the properties of
    the object that each took. None: of scenes if the data's factors have a task's answers"""
    tasks: tuple[Literal["stability", "height", "view", "simulated_stability"], ...] = ()
    """tasks of scenes; none: all that the data's factors tell"""
    num_train: int = 50_000
    """labelled images of the training split, drawn at random; a pack may have fewer"""
    num_held_out: int = 10_000
    """images of the test split, and of the validation split where it is used"""
    mlp: MlpConfig = field(default_factory=MlpConfig)
    """the probes' network and its training"""
    ridge: float = 1.0
    """weight of the squared coefficients of the linear probes of properties, as examples"""
    standardise: bool = False
    """bring each latent and pixel to mean 0 and standard deviation 1 before the MLP; the linear
    probes and the ground-truth state are always brought to it"""
    pixel_side: int | None = 16
    """side in pixels of the raw images, averaged over areas, beside the models; None: all pixels"""
    seeds: int = 1
    """trainings of each MLP, from other weights in another order"""
    seed: int = 0
    """the first of these seeds, and that of the random encoders' weights"""
    which: Literal["best", "last"] = "best"
    """which model of a run"""
    data: str | None = None
    """name of a data set or folder of packs; None: what the runs were trained on"""
    data_options: str = "{}"
    """options of that data set as JSON"""
    cache: Path | None = None
    """folder where latents are kept; None: latents in the folder of the generated data sets"""
    out: Path | None = None
    """JSON file of all figures; None: probes-TASK.json in the run's folder"""
    heads: Path | None = None
    """folder to keep one run's MLPs on scenes in, each in a folder named as its question, to judge
    other scenes by (see `genesis_rl.probes.SceneProbe`); of several seeds the first"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Check values."""
        if not self.runs:
            raise ValueError("runs is empty; wanted at least one.")
        doubled = sorted({run for run in self.runs if self.runs.count(run) > 1})
        if doubled:
            raise ValueError(f"runs has {', '.join(doubled)} more than once.")
        if len(self.runs) > 1 and self.out is None:
            raise ValueError("several runs are probed; wanted --out, one file for all.")
        if self.heads is not None and (len(self.runs) > 1 or self.task == "properties"):
            raise ValueError(
                "heads are kept of a single run's scenes; wanted one run, no properties."
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; wanted one of {choices}.")
        unknown = sorted(set(self.tasks) - set(TASKS))
        if unknown or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks is {self.tasks}; wanted each of {', '.join(TASKS)} once.")
        if self.tasks and self.task == "properties":
            raise ValueError("tasks are those of scenes; task is 'properties'.")
        check_integers(self, 1, "num_train", "num_held_out", "seeds")
        if self.pixel_side is not None and self.pixel_side < 1:
            raise ValueError(f"pixel_side is {self.pixel_side}; wanted at least 1.")
        if not self.ridge > 0:
            raise ValueError(f"ridge is {self.ridge}; wanted a value > 0.")
        if not 0 <= self.seed < 2**63 - self.seeds:
            raise ValueError(f"seed is {self.seed}; wanted 0 to 2**63 - 1 - seeds.")
        if self.data is None and self.data_options != "{}":
            raise ValueError("data_options are given without data; wanted both.")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are used."""
        held_out = ("validation", "test") if self.mlp.epoch == "best" else ("test",)
        return ("train", *held_out)
