"""Configuration of probes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from genesis_rl.evaluation.probes.heads import MlpConfig
from genesis_rl.utils.checks import DIFFERENT, Count, Names, Positive, check_fields

SceneTask = Literal["stability", "height", "view", "simulated_stability"]


@dataclass(frozen=True)
class ProbeConfig:
    """Models, targets and training of probes; defaults are the paper's (appendix B.5)."""

    encoders: Names
    """run directories, folders of pretrained models, or model ids on the Hub"""
    task: Literal["scenes", "properties", "state"] | None = None
    """scenes: predict the ShapeStacks tasks from all slots; properties: predict an object's
    properties from its slot; state: predict the simulator's state, which recordings of rendered
    environments contain, from all slots. None: the first that the dataset has factors for"""
    tasks: Annotated[tuple[SceneTask, ...], DIFFERENT] = ()
    """scene tasks; none: all tasks for which the dataset has a factor"""
    num_train: Count = 50_000
    """most labelled training images, drawn at random"""
    num_held_out: Count = 10_000
    """most images of the test split, and of the validation split if used"""
    mlp: MlpConfig = field(default_factory=MlpConfig)
    """network of the probes and its training"""
    ridge: Positive = 1.0
    """L2 weight of the linear probes of properties, in examples"""
    standardise: bool = False
    """standardise latents and pixels for the MLP; the inputs of linear probes and the ground-truth
    state are always standardised"""
    pixel_side: Count | None = 16
    """side in pixels of the area-averaged images of the pixel baseline; None: all pixels"""
    seeds: Count = 1
    """number of trainings of each MLP, with different seeds"""
    seed: int = 0
    """first of these seeds; also seeds the weights of the random encoders"""
    which: Literal["best", "last"] = "best"
    """checkpoint of a run"""
    data: str | None = None
    """name of a dataset or folder of packs; None: the runs' training dataset"""
    data_options: str = "{}"
    """options of that dataset as JSON"""
    cache: Path | None = None
    """folder of cached latents; None: latents/ in the folder of generated datasets"""
    out: Path | None = None
    """JSON file of results; None: probes-TASK.json in the run directory"""
    heads: Path | None = None
    """folder to save the scene MLPs of a single encoder in, one subfolder per target, as
    `genesis_rl.evaluation.probes.SceneProbe`; the first seed is saved"""
    device: str = "auto"
    """auto, cpu or cuda"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if len(self.encoders) > 1 and self.out is None:
            raise ValueError("out must be set for several encoders, got None.")
        others = ("properties", "state")
        if self.heads is not None and (len(self.encoders) > 1 or self.task in others):
            raise ValueError(
                "heads must be None unless encoders is a single one and task is 'scenes', "
                f"got {len(self.encoders)} encoders and task {self.task!r}."
            )
        if self.tasks and self.task in others:
            raise ValueError(f"tasks must be empty with task={self.task!r}, got {self.tasks}.")
        if not 0 <= self.seed < 2**63 - self.seeds:
            raise ValueError(f"seed must be 0 to 2**63 - 1 - seeds, got {self.seed}.")
        if self.data is None and self.data_options != "{}":
            raise ValueError("data must be set with data_options, got None.")

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits in use."""
        held_out = ("validation", "test") if self.mlp.epoch == "best" else ("test",)
        return ("train", *held_out)
