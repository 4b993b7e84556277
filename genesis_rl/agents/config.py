"""Settings of an agent: environment, encoder, policy, PPO and the run."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args, get_type_hints

import numpy as np

from genesis_rl.checks import check_integers, check_limits, check_parameters
from genesis_rl.envs.make import check_wrappers, parse_options
from genesis_rl.frames import LAYOUTS, Layout

Obs = Literal["encoder", "genesis", "monet", "vae", "random", "state", "pixels", "feature_map"]
# Those that see through an encoder.
ENCODED = ("encoder", "genesis", "monet", "vae", "random")
# Those that see frames as they are.
PIXELS = ("pixels", "feature_map")
# Flags of agents/train.py under one name. What is published on the relational tasks names the
# settings of "published"; the others are Stable-Baselines3's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "ours": {},
    "published": {
        "num-envs": 4,
        "ppo.n-steps": 2048,
        "ppo.batch-size": 32,
        "ppo.learning-rate": 3e-4,
        "ppo.gamma": 0.99,
        "ppo.ent-coef": 0.01,
    },
    # Rules that relate objects to each other want calmer updates than ObjectGoal, if what is seen
    # of the objects is not the plain truth.
    "relational": {"ppo.n-steps": 512, "ppo.batch-size": 512, "ppo.learning-rate": 3e-4},
}


def preset_flags(name: str, prefix: str = "") -> list[str]:
    """The flags of a preset, with a prefix before each name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; wanted one of {', '.join(PRESETS)}.")
    pairs = PRESETS[name].items()
    return [part for flag, value in pairs for part in (f"--{prefix}{flag}", str(value))]


@dataclass(frozen=True)
class PolicyConfig:
    """How a set (slots, objects of the state, cells of a feature map) becomes features.

    The actor and the critic share them. NatureCNN (obs pixels) has its own sizes.
    """

    extractor: Literal["transformer", "relation", "deep_sets", "mlp"] = "transformer"
    """a transformer with a CLS token, a relation network or deep sets over the set, or an MLP on
    its elements in a row"""
    width: int = 64
    """size of the features, and of the transformer's tokens or the layers"""
    heads: int = 4
    """attention heads of the transformer"""
    layers: int = 2
    """blocks of the transformer, or layers"""

    def __post_init__(self) -> None:
        """Check values."""
        _check_choice(self, "extractor")
        _check_positive(self, "width", "heads", "layers", whole=True)
        check_limits(self)
        check_parameters("policy", 12 * self.layers * self.width**2)
        if self.extractor == "transformer" and self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; wanted a divisor of width, {self.width}.")


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO, by the names of Stable-Baselines3.

    The defaults learn ObjectGoal in the fewest steps of those tried, with 16 environments. Those of
    the published results on the relational tasks are the preset "published".
    """

    n_steps: int = 128
    """steps of every environment between updates"""
    batch_size: int = 256
    """transitions in a minibatch"""
    n_epochs: int = 10
    """passes over the collected transitions in an update"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    gamma: float = 0.95
    """discount of a step"""
    gae_lambda: float = 0.95
    """trade-off of the advantage estimate between bias and variance"""
    ent_coef: float = 0.01
    """weight of the policy's entropy"""
    vf_coef: float = 0.5
    """weight of the critic's loss"""
    clip_range: float = 0.2
    """largest change of an action's probability ratio that is rewarded"""
    max_grad_norm: float = 0.5
    """largest norm of the gradient"""

    def __post_init__(self) -> None:
        """Check values."""
        _check_positive(self, "n_steps", "n_epochs", whole=True)
        check_integers(self, 2, "batch_size")
        check_limits(self)
        _check_positive(self, "learning_rate", "clip_range", "max_grad_norm")
        for name in ("gamma", "gae_lambda"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value in (0, 1].")
        for name in ("ent_coef", "vf_coef"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted a value >= 0.")


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """All settings of an agent's training."""

    obs: Obs = "encoder"
    """what the agent sees: the slots of any encoder, of one that must be a GENESIS, a MONet or a
    VAE, or of one with the encoder's settings and random weights; the environment's ground-truth
    state; frames through NatureCNN (pixels) or through a CNN whose map is taken as a set
    (feature_map), trained with the policy"""
    encoder: str | None = None
    """folder of a pretrained model or of its run, or a Hub id; for obs random also a preset of
    pretrain/train.py"""
    finetune: bool = False
    """train the encoder with the policy, by the agent's rewards, instead of keeping it as it is;
    the agent's buffers then hold frames, and it costs several times as much"""
    env: str = "genesis_rl/ObjectGoal-v0"
    """id of a registered environment; module:id imports the module first"""
    env_options: str = "{}"
    """options of the environment as JSON, e.g. '{"num_objects": 3}'"""
    wrappers: tuple[str, ...] = ()
    """module:Class of wrappers around the environment, from the inside out"""
    obs_key: str | None = None
    """entry of a Dict observation that holds the frame, or its path in nested Dicts, e.g.
    camera/rgb; None: found"""
    frame_layout: Layout = "auto"
    """axes of a frame, e.g. HWC; auto: told from its shape"""
    render: bool = False
    """take the frames from rendering: for environments that observe none"""
    frame_size: int = 64
    """side in pixels to which frames are brought for obs pixels and feature_map"""
    mask_geometry: bool = True
    """give the agent each slot's mask centroid and area too"""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """the network"""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """the learning algorithm"""
    total_steps: int = 100_000
    """environment steps in all, rounded up to whole rollouts of ppo.n_steps"""
    max_minutes: float | None = None
    """end after this time even if steps remain"""
    num_envs: int = 16
    """environments side by side"""
    vec: Literal["subproc", "dummy"] = "subproc"
    """each environment in its own process, or all in this one"""
    eval_every: int = 20_000
    """environment steps between evaluations"""
    eval_episodes: int = 50
    """episodes of an evaluation"""
    eval_greedy: bool = False
    """evaluate the most likely actions instead of drawn ones, which are what PPO improves"""
    seed: int = 0
    """of environments, initial weights and actions"""
    device: str = "cpu"
    """where the policy runs: cpu (mostly the fastest), cuda or auto"""
    encoder_device: str = "auto"
    """where the encoder runs: auto, cpu or cuda"""
    encoder_precision: Literal["fp32", "bf16"] = "fp32"
    """arithmetic of the encoder; bf16 is faster where the hardware has it"""
    encoder_refine_steps: int = 0
    """gradient steps on the latents of every frame, for slots that fit it better"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    out: Path = Path("runs/agent")
    """the run's folder"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """report to Weights & Biases"""
    progress: bool = True
    """show a progress bar"""

    def __post_init__(self) -> None:
        """Check values."""
        if not self.env:
            raise ValueError("env is empty; wanted the id of a registered environment.")
        _check_choice(self, "obs")
        self._check_encoder()
        _check_choice(self, "vec")
        _check_choice(self, "encoder_precision")
        if self.frame_layout not in LAYOUTS:
            raise ValueError(f"frame_layout is {self.frame_layout!r}; wanted one of {LAYOUTS}.")
        if self.frame_size < _LEAST_FRAME:
            raise ValueError(
                f"frame_size is {self.frame_size}; wanted at least {_LEAST_FRAME}, which the CNN's "
                "convolutions take."
            )
        names = ("total_steps", "num_envs", "eval_every", "eval_episodes")
        _check_positive(self, *names, whole=True)
        check_limits(self)
        if self.max_minutes is not None:
            _check_positive(self, "max_minutes")
        if self.threads is not None:
            _check_positive(self, "threads", whole=True)
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}; wanted a value in 0..2**31 - 1.")
        _ = self.options
        check_wrappers(self.wrappers)

    def _check_encoder(self) -> None:
        """An encoder where one is used, and only there."""
        if self.obs in ENCODED and not self.encoder:
            raise ValueError(
                f"obs is {self.obs!r} and encoder is {self.encoder!r}; wanted the folder of a "
                "pretrained model, or a Hub id (or an obs that needs none: state, pixels, "
                "feature_map)."
            )
        if self.obs not in ENCODED and self.encoder is not None:
            raise ValueError(
                f"encoder is {self.encoder!r}, which obs {self.obs!r} does not use; wanted no "
                f"encoder, or obs {', '.join(ENCODED)}."
            )
        if self.finetune and self.obs not in ENCODED:
            raise ValueError(
                f"finetune is set, but obs {self.obs!r} has no encoder; wanted obs "
                f"{', '.join(ENCODED)}."
            )
        check_integers(self, 0, "encoder_refine_steps")
        if self.encoder_refine_steps and self.finetune:
            raise ValueError(
                f"encoder_refine_steps is {self.encoder_refine_steps}, but an encoder that the "
                "policy trains is not refined; wanted 0, or no finetune."
            )
        if self.obs == "state" and self.render:
            raise ValueError("render is set, but obs 'state' takes no frames; wanted one of them.")

    @property
    def options(self) -> dict[str, Any]:
        """The environment's options."""
        return parse_options(self.env_options)

    @property
    def agent(self) -> "AgentConfig":
        """The settings of the agent alone, without those that a subclass adds."""
        return AgentConfig(
            **{field.name: getattr(self, field.name) for field in fields(AgentConfig)}
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON data."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The settings of `to_json`.

        Raises:
            ValueError: if an entry is missing, unknown or of another type.
        """
        if not isinstance(data, dict):
            raise ValueError(f"config is {type(data).__name__}; wanted an object of settings.")
        values = dict(data)
        try:
            values["policy"] = PolicyConfig(**values.get("policy", {}))
            values["ppo"] = PPOConfig(**values.get("ppo", {}))
            values["out"] = Path(values.get("out", "."))
            values["wrappers"] = tuple(values.get("wrappers", ()))
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"config does not fit this version: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TrainConfig(AgentConfig):
    """Settings of agents/train.py."""

    resume: bool = False
    """resume the run in out from its last checkpoint: policy, optimiser, step, log, best evaluation
    and elapsed time, which max-minutes limits over all sessions; start at step 0 where nothing was
    saved yet. What followed the checkpoint, and a rollout under way, is lost. Environments start
    new episodes, and random numbers are drawn anew by seed and step: resuming from one checkpoint
    repeats bit by bit, but is not equal to a run without interruption"""


#: Settings of the machine and of reports, which change nothing of what is learned.
MACHINE = ("out", "device", "encoder_device", "threads", "vec", "tensorboard", "wandb", "progress")


def check_same_settings(
    config: AgentConfig, stored: Mapping[str, Any], where: Path, *, ignore: Collection[str]
) -> None:
    """Check that a run in a folder has the settings that it is to be resumed with.

    Args:
        config: the settings.
        stored: the run's, as of `AgentConfig.to_json`; those that an earlier version did not have
            are at their defaults.
        where: the folder, for the message.
        ignore: names of settings that may differ.

    Raises:
        ValueError: naming the settings that differ.
    """
    mine, theirs = (_flat(c.to_json()) for c in (config, type(config).from_json(stored)))
    told = ", ".join(
        f"{name} {theirs[name]} (now {mine[name]})"
        for name in mine
        if name not in ignore and mine[name] != theirs[name]
    )
    if told:
        raise ValueError(f"{where} holds a run with {told}; wanted the same settings, another out.")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name nested settings by their path, as flags do: ``ppo.gamma``."""
    flat = dict[str, Any]()
    for name, value in settings.items():
        nested = value if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": entry for key, entry in nested.items()} or {name: value}
    return flat


def seeing(config: AgentConfig, obs: str) -> AgentConfig:
    """The settings of an agent that sees otherwise.

    Args:
        config: the settings.
        obs: as ``AgentConfig.obs``, with the encoder behind it where it takes one:
            "genesis=runs/eyes".

    Raises:
        ValueError: if it is unknown, lacks its encoder, or has one that it does not use.
    """
    name, _, encoder = obs.partition("=")
    return replace(config, obs=cast("Obs", name), encoder=encoder or None)


def obs_label(obs: str) -> str:
    """A name for an obs as `seeing` takes it: "genesis-eyes" for "genesis=runs/eyes"."""
    name, _, encoder = obs.partition("=")
    return f"{name}-{Path(encoder).name}" if encoder else name


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of an evaluation."""

    folder: Path
    """an agent, or a run of agents/train.py, whose best agent is taken"""
    episodes: int = 200
    """episodes for each policy"""
    seed: int = 10_000
    """of the first episode; the others follow"""
    random: bool = True
    """evaluate a random policy on the same episodes, too"""
    greedy: bool = True
    """evaluate the most likely actions, too; the agent itself draws its actions, as in training"""
    video_episodes: int = 8
    """episodes in the video; 0: no video"""
    video_format: Literal["mp4", "gif"] = "mp4"
    """of the video; a README shows a GIF"""
    num_envs: int = 8
    """environments side by side"""
    vec: Literal["subproc", "dummy"] = "dummy"
    """each environment in its own process, or all in this one"""
    device: str = "cpu"
    """where the policy runs: cpu, cuda or auto"""
    encoder_device: str = "auto"
    """where the encoder runs: auto, cpu or cuda"""
    threads: int | None = None
    """CPU threads; None: PyTorch's choice"""
    out: Path | None = None
    """where to write; None: the folder given"""
    trust_remote_code: bool = False
    """import the modules and read the paths that the agent's settings name"""

    def __post_init__(self) -> None:
        """Check values."""
        _check_choice(self, "vec")
        _check_choice(self, "video_format")
        _check_positive(self, "episodes", "num_envs", whole=True)
        check_limits(self)
        if self.threads is not None:
            _check_positive(self, "threads", whole=True)
        if self.video_episodes < 0:
            raise ValueError(f"video_episodes is {self.video_episodes}; wanted at least 0.")
        if not 0 <= self.seed < 2**31 - self.episodes:
            raise ValueError(f"seed is {self.seed}; wanted a value from 0 to below 2**31.")


# NatureCNN's three convolutions leave one cell of it.
_LEAST_FRAME = 36


def _check_choice(config: Any, name: str) -> None:
    """Refuse a value that is not one of the field's Literal."""
    choices = get_args(get_type_hints(type(config))[name])
    if getattr(config, name) not in choices:
        raise ValueError(
            f"{name} is {getattr(config, name)!r}; wanted one of {', '.join(choices)}."
        )


def _check_positive(config: Any, *names: str, whole: bool = False) -> None:
    """Refuse values that are not above 0 (or not finite); whole numbers start at 1."""
    for name in names:
        value: Any = getattr(config, name)
        if type(value) is bool or not isinstance(value, int | float | np.number):
            raise TypeError(f"{name} must be a number > 0, got {value!r}.")
        if whole and (not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name} is {value}; wanted a whole number >= 1.")
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; wanted a value > 0.")
