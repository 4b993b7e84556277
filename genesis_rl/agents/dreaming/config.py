"""Settings of an agent that practises in dreams."""

from dataclasses import dataclass
from pathlib import Path

from genesis_rl.agents.config import ENCODED, AgentConfig
from genesis_rl.checks import check_integers, check_limits
from genesis_rl.imagination import DreamOptions
from genesis_rl.imagination.options import Start

_COUNTS = ("num_dreams", "horizon", "collect_steps", "fit_steps", "episodes")


@dataclass(frozen=True, kw_only=True)
class DreamConfig(AgentConfig):
    """The agent's settings, and those of its dreams.

    env is where it has to act, and is evaluated; total_steps are steps in dreams, and num_envs the
    environments side by side in reality.
    """

    world_model: Path
    """folder of a world model (pretrain/train_world_model.py) of the encoder's slots"""
    data: Path
    """the recording (envs/collect.py) that it was trained on, which is all of reality that the
    agent learns from"""
    num_dreams: int = 64
    """dreams side by side, in one batch"""
    start: Start = "mixture"
    """where dreams start: in novel scenes from the encoder's prior, in recorded ones (data), or in
    either (mixture)"""
    temperature: float = 1.0
    """factor on the prior's standard deviations"""
    model_temperature: float = 1.0
    """factor on the world model's; a dream of little noise is exploited more easily"""
    horizon: int = 25
    """steps after which a dream is cut; the critic says what would have come"""
    trust: float = 0.99
    """cut a dream where the world model is less certain than at this share of the held-out recorded
    steps; 1: never"""
    uncertainty_penalty: float = 0.0
    """what a unit of uncertainty takes from a dream's reward"""
    iterate: int = 0
    """how often to record the agent in reality, fit the world model anew to all that is recorded,
    and practise for total_steps more"""
    collect_steps: int = 5_000
    """steps that are recorded each time"""
    fit_steps: int = 6_000
    """updates of each new world model"""
    seeds: tuple[int, ...] = ()
    """compare, once for each seed, with PPO that takes as many steps in reality as were recorded;
    none: practise once"""
    episodes: int = 200
    """episodes in reality on which the compared agents are scored at the end"""
    summary: Path | None = None
    """JSON file of the comparison, with the curves beside it; None: dream.json in out"""
    total_steps: int = 500_000
    """steps in dreams, rounded up to whole rollouts of ppo.n_steps"""
    eval_every: int = 50_000
    """steps in dreams between evaluations"""
    out: Path = Path("runs/dreamer")
    """the run's folder, or that of all compared runs"""

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        if self.obs not in ENCODED or self.finetune:
            raise ValueError(
                f"obs is {self.obs!r} and finetune {self.finetune}; dreams are made of "
                f"slots: wanted obs {', '.join(ENCODED)}, and no finetune."
            )
        if self.max_minutes is not None:
            raise ValueError(
                f"max_minutes is {self.max_minutes}; wanted None: dreams go by total_steps."
            )
        check_integers(self, 1, *_COUNTS)
        check_limits(self)
        if self.iterate < 0:
            raise ValueError(f"iterate is {self.iterate}; wanted at least 0.")
        if not 0 < self.trust <= 1:
            raise ValueError(f"trust is {self.trust}; wanted a value in (0, 1].")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; wanted each once.")
        self.dream_options(self.data)

    @property
    def round_steps(self) -> int:
        """Steps in dreams between two recordings: whole rollouts."""
        rollout = self.num_dreams * self.ppo.n_steps
        return -(-self.total_steps // rollout) * rollout

    def dream_options(self, data: Path, max_uncertainty: float | None = None) -> DreamOptions:
        """How dreams start, go on and end.

        Args:
            data: the recording of scenes to start from.
            max_uncertainty: where to cut; None: nowhere.
        """
        return DreamOptions(
            start=self.start,
            data=None if self.start == "prior" else str(data),
            data_frames="all",
            temperature=self.temperature,
            model_temperature=self.model_temperature,
            horizon=self.horizon,
            max_uncertainty=max_uncertainty,
            uncertainty_penalty=self.uncertainty_penalty,
        )
