"""Settings of training in imagination."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from genesis_rl.agents.config import ENCODED, AgentConfig
from genesis_rl.envs.imagination import ImaginationOptions
from genesis_rl.envs.imagination.scenes import Start
from genesis_rl.utils.checks import DIFFERENT, Count, Natural, PositiveShare
from genesis_rl.utils.jobs import JobsConfig


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig(AgentConfig, JobsConfig):
    """Settings of the agent and of imagined rollouts.

    env and n_envs are the real environments of evaluation and recording; total_timesteps are
    imagined steps.
    """

    world_model: Path
    """world model of the encoder's slots (pretrain/train_world_model.py)"""
    data: Path
    """recording (envs/collect.py) of the world model's training, the agent's only real data"""
    n_imagined_envs: Count = 64
    """imagined environments in one batch"""
    start: Start = "mixture"
    """initial scenes of imagined rollouts: samples of the encoder's prior (prior), recorded frames
    (data), or both (mixture)"""
    temperature: float = 1.0
    """factor on the prior's standard deviations"""
    model_temperature: float = 1.0
    """factor on the world model's standard deviations; policies exploit errors of the model more
    easily at low temperatures"""
    horizon: Count = 25
    """steps after which an imagined rollout is truncated, and its value bootstrapped"""
    uncertainty_quantile: PositiveShare = 0.99
    """truncate imagined rollouts above this quantile of the uncertainty on held-out recorded steps;
    1: never"""
    uncertainty_penalty: float = 0.0
    """factor on the uncertainty that is subtracted from imagined rewards"""
    rounds: Natural = 0
    """rounds of recording the agent in the real environment, refitting the world model to all
    recorded data, and training for another total_timesteps"""
    collect_steps: Count = 5_000
    """recorded real steps per round"""
    fit_steps: Count = 6_000
    """updates of each round's world model"""
    seeds: Annotated[tuple[int, ...], DIFFERENT] = ()
    """seeds of a comparison with PPO trained on as many real steps as were recorded; none: train
    one agent"""
    episodes: Count = 200
    """real episodes of the comparison's final evaluation"""
    summary: Path | None = None
    """JSON file of the comparison, with the curves in the same folder; None: imagination.json in
    out"""
    total_timesteps: int = 500_000
    """imagined steps, rounded up to whole rollouts of ppo.n_steps"""
    eval_every: int = 50_000
    """imagined steps between evaluations"""
    out: Path = Path("runs/imagination")
    """run directory, or folder of all runs of the comparison"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        if self.obs not in ENCODED:
            raise ValueError(
                f"obs must be one of {', '.join(ENCODED)}, because imagined observations are "
                f"slots, got {self.obs!r}."
            )
        if self.algo != "ppo" or self.keep or isinstance(self.image_key, tuple):
            raise ValueError(
                "algo must be ppo, keep empty and image_key a single entry for training in "
                f"imagination, got {self.algo!r}, {self.keep} and {self.image_key!r}."
            )
        if self.finetune:
            raise ValueError("finetune must be False for training in imagination, got True.")
        if not (self.seeds or self.in_process):
            raise ValueError("seeds must be set with jobs or executor, got ().")
        if self.max_minutes is not None:
            raise ValueError(
                f"max_minutes must be None, got {self.max_minutes}; set total_timesteps instead."
            )
        self.imagination_options(self.data)

    @property
    def round_steps(self) -> int:
        """Imagined steps per round, in whole rollouts."""
        rollout = self.n_imagined_envs * self.ppo.n_steps
        return -(-self.total_timesteps // rollout) * rollout

    def imagination_options(
        self, data: Path, max_uncertainty: float | None = None
    ) -> ImaginationOptions:
        """Return the options of imagined rollouts.

        Args:
            data: recording of initial scenes.
            max_uncertainty: uncertainty above which rollouts are truncated; None: never.
        """
        return ImaginationOptions(
            start=self.start,
            data=None if self.start == "prior" else str(data),
            data_frames="all",
            temperature=self.temperature,
            model_temperature=self.model_temperature,
            horizon=self.horizon,
            max_uncertainty=max_uncertainty,
            uncertainty_penalty=self.uncertainty_penalty,
        )
